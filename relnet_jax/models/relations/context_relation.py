"""Context relation: RoIs look at the lungs, or at other parts. SAR-Net's contextual relation."""
import flax.linen as nn
import jax.numpy as jnp

from relnet_jax.models.relations.attention import GeometricAttention, head_width
from relnet_jax.models.relations.context import RelationContext
from relnet_jax.models.relations.part_relation import check_parts, select_parts
from relnet_jax.ops.geometry import divide_parts
from relnet_jax.types import Array

LUNGS = (2, 3)  # in the default order of parts: left, right scapula, left, right lung, heart


class ContextRelation(nn.Module):
    """Attention of RoIs over the features of parts, then LayerNorm and ReLU. Sows 'box_to_part' [B, heads, N, parts].

    parts: rows of the context's parts that are keys: the lungs; () = all. With a grid of rows x columns each of them is
    cut into cells, which are then the keys in its place.
    """
    parts: tuple[int, ...] = LUNGS
    grid: tuple[int, int] = (0, 0)   # (0, 0): the parts as a whole
    window: bool = True              # the parts' features come from behind a learned window
    scale: str = 'published'         # 'published' 1/8 | 'lab' 1/16
    features: int = 1024             # width of the result, in 16 heads; 0 = that of the RoI features
    norm: bool = True
    dtype: jnp.dtype = jnp.float32
    acts_in = 'second_pass'

    @property
    def needs(self) -> set[str]:
        return {'parts', 'part_features', *(['part_window'] if self.window else [])}

    def divide_parts(self, boxes: Array, valid: Array) -> tuple[Array, Array] | None:
        """Part boxes [B, P, 4], valid [B, P] -> the cells looked at [B, Q, 4], [B, Q]; None without a grid."""
        rows, columns = self.grid
        if not rows * columns:
            return None
        check_parts(self.parts, boxes.shape[1])
        return divide_parts(boxes, valid, parts=self.parts, rows=rows, cols=columns)

    @nn.compact
    def __call__(self, context: RelationContext) -> Array:
        """-> [B, N, features] in dtype. Raises ValueError if that is not a multiple of 16."""
        boxes, features, valid = select_parts(context, () if any(self.grid) else self.parts)
        attention = GeometricAttention(head_dim=head_width(self.features or context.roi_features.shape[-1]),
                                       scale=self.scale, dtype=self.dtype, name='attention')
        enhanced, weights = attention(context.roi_features, context.boxes, features, boxes, valid)
        self.sow('intermediates', 'box_to_part', weights)
        if self.norm:
            enhanced = nn.relu(nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name='norm')(enhanced))
        return enhanced


class LungFeature(nn.Module):
    """The context relation without attention: every RoI gets the lungs' features in a row, then LayerNorm and ReLU."""
    parts: tuple[int, ...] = LUNGS
    norm: bool = True
    dtype: jnp.dtype = jnp.float32
    needs = {'parts', 'part_features'}
    acts_in = 'second_pass'

    @nn.compact
    def __call__(self, context: RelationContext) -> Array:
        """-> [B, N, parts * F] in dtype, the same for all RoIs of an image; a missing part gives zeros to the norm."""
        _, features, valid = select_parts(context, self.parts)
        joined = jnp.where(valid[..., None], features, 0.0).reshape(len(features), 1, -1).astype(self.dtype)
        if self.norm:
            joined = nn.relu(nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name='norm')(joined))
        return jnp.broadcast_to(joined, (len(joined), context.boxes.shape[1], joined.shape[-1]))


class PartWindow(nn.Module):
    """Learned weight of each cell of a part's pooled features, ahead of the box head's fcs that make part_features."""

    @nn.compact
    def __call__(self, pooled: Array) -> Array:
        """pooled [..., T, T, C] -> the same shape and dtype; starts as the identity."""
        window = self.param('window', nn.initializers.ones, (*pooled.shape[-3:-1], 1))
        return pooled * window.astype(pooled.dtype)
