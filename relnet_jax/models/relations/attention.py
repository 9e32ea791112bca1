"""Attention between boxes, weighed by how they lie to each other. Relation Networks, Hu et al., CVPR 2018, eq. 2-6."""
import flax.linen as nn
import jax.numpy as jnp

from relnet_jax.errors import UserError
from relnet_jax.models.relations.context import RelationContext
from relnet_jax.ops.geometry import geometry_embedding
from relnet_jax.ops.products import einsum_float32
from relnet_jax.types import Array

SCALES = {'lab': 1 / 16, 'published': 1 / 8}  # the published one is 1 / sqrt(64), 64 numbers per head


def head_width(features: int) -> int:
    """Width of each of 16 heads that give `features` together. Raises ValueError if that is no whole number."""
    if features % 16:
        raise UserError(f'attention: its width must be a multiple of 16 (heads), got {features}')
    return features // 16


def masked_softmax(logits: Array, valid: Array) -> Array:
    """Softmax of float32 logits [..., Q] over the valid entries of each row; zeros elsewhere, also if none is valid."""
    logits = jnp.where(valid, logits, -jnp.inf)
    top = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.where(valid, jnp.exp(logits - jnp.where(jnp.isfinite(top), top, 0.0)), 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1.0)


def best_rois(context: RelationContext, count: int, *, foreground_first: bool) -> tuple[Array, Array]:
    """The `count` best RoIs of each image by their largest foreground probability, best first.

    foreground_first: RoIs whose best class is not background come before all others. Of equal scores the lower index
    wins. Returns int32 [B, count] positions and bool [B, count], False where an image has fewer valid RoIs (also
    when N < count; the position is then 0).
    """
    logits = context.class_logits.astype(jnp.float32)
    score = jnp.max(nn.softmax(logits)[..., 1:], axis=-1)
    order = [-score, jnp.logical_not(context.roi_valid)]
    if foreground_first:
        order.insert(1, jnp.argmax(logits, axis=-1) == 0)
    best = jnp.lexsort(order, axis=-1)[:, :count].astype(jnp.int32)
    valid = jnp.take_along_axis(context.roi_valid, best, axis=1)
    missing = ((0, 0), (0, count - best.shape[1]))
    return jnp.pad(best, missing), jnp.pad(valid, missing)


class GeometricAttention(nn.Module):
    """Multi-head attention from boxes to boxes, with the values' own linear map per head.

    weights = softmax over keys of (log max(relu(W_g e), 1e-6) + scale * q.k), e the 64-wide geometry embedding; the
    value of a key is its feature itself, mapped F -> head_dim per head (a grouped 1x1 convolution).
    """
    heads: int = 16
    head_dim: int = 64
    scale: str = 'published'  # a name in SCALES
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, queries: Array, query_boxes: Array, keys: Array, key_boxes: Array,
                 key_valid: Array) -> tuple[Array, Array]:
        """queries [B, N, F], keys [B, Q, F], their boxes [B, ., 4], key_valid bool [B, Q] -> ([B, N, heads * head_dim]
        in dtype, weights float32 [B, heads, N, Q]). With no valid key the output is the bias of the last map.
        Raises ValueError for a scale that is not in SCALES."""
        if self.scale not in SCALES:
            raise ValueError(f'attention: scale must be one of {tuple(SCALES)}, got {self.scale!r}')
        heads = (self.heads, self.head_dim)
        query = nn.DenseGeneral(heads, dtype=self.dtype, name='query')(queries)
        # A bias here would add the same number to all keys of a query, which the softmax takes away again.
        key = nn.DenseGeneral(heads, use_bias=False, dtype=self.dtype, name='key')(keys)
        # float32 throughout: the logarithm is steepest where the geometry weight is small.
        geometry = nn.relu(nn.Dense(self.heads, dtype=jnp.float32, name='geometry')(
            geometry_embedding(query_boxes, key_boxes)))
        content = einsum_float32('bnhd,bmhd->bhnm', query, key)
        logits = jnp.log(jnp.maximum(geometry, 1e-6)).transpose(0, 3, 1, 2) + SCALES[self.scale] * content
        weights = masked_softmax(logits, key_valid[:, None, None, :])
        # Mapping the Q values before the sum gives the same as mapping the N sums, and is cheaper.
        value = nn.DenseGeneral(heads, use_bias=False, dtype=self.dtype, name='output')(keys)
        bias = self.param('output_bias', nn.initializers.zeros, heads)
        out = jnp.einsum('bhnm,bmhd->bnhd', weights.astype(self.dtype), value) + bias.astype(self.dtype)
        return out.reshape(*out.shape[:2], self.heads * self.head_dim), weights
