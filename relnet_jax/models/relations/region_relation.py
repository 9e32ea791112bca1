"""RoIs exchange class features, weighted by likeness and position. After SGRN (Xu et al., CVPR 2019)."""
import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax.models.relations.context import RelationContext
from relnet_jax.ops.geometry import polar_offsets
from relnet_jax.ops.products import einsum_float32
from relnet_jax.types import Array

KERNELS = ('gaussian_random', 'gaussian_norm', 'gaussian_zero', 'relu', 'none')


class SpatialWeight(nn.Module):
    """Weight of each pair of RoIs from u = (distance, angle), see `polar_offsets`.

    gaussian_*: exp(-(u - mean)^T precision (u - mean) / 2), with mean and precision drawn from N(0, 1) (random), or
    starting at mean 0 and precision 0.5 everywhere (norm) or 0 (zero: what the lab's integer division made of it; the
    weight starts at 1 and mean has no gradient until the precision has moved). relu: relu(u . weight), weight drawn
    from N(0, 1). none: 1.
    """
    kernel: str

    @nn.compact
    def __call__(self, context: RelationContext) -> Array:
        """-> float32 [B, N, N], row i for the neighbours j of RoI i. Raises ValueError on another kernel."""
        if self.kernel not in KERNELS:
            raise ValueError(f'region relation: kernel must be one of {KERNELS}, got {self.kernel!r}')
        if self.kernel == 'none':
            return jnp.ones(context.boxes.shape[:2] + context.boxes.shape[1:2])
        offsets = polar_offsets(context.boxes, context.image_size)
        drawn = nn.initializers.normal(1.0)
        if self.kernel == 'relu':
            return nn.relu(jnp.einsum('bijk,k->bij', offsets, self.param('weight', drawn, (2,))))
        start = nn.initializers.constant(0.5 if self.kernel == 'gaussian_norm' else 0.0)
        random = self.kernel == 'gaussian_random'
        mean = self.param('mean', drawn if random else nn.initializers.zeros, (2,))
        precision = self.param('precision', drawn if random else start, (2, 2))
        apart = offsets - mean
        return jnp.exp(-0.5 * jnp.sum(jnp.einsum('bijk,kl->bijl', apart, precision) * apart, axis=-1))


class Similarity(nn.Module):
    """Learned graph S = g g^T, g = relu(fc_256(relu(fc_{F/2}(x))))."""
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """features [B, N, F] -> float32 [B, N, N], not negative."""
        hidden = nn.relu(nn.Dense(features.shape[-1] // 2, dtype=self.dtype, name='fc1')(features))
        latent = nn.relu(nn.Dense(256, dtype=self.dtype, name='fc2')(hidden))
        return einsum_float32('bid,bjd->bij', latent, latent)


def nearest(similarity: Array, valid: Array, count: int) -> Array:
    """The `count` most similar valid RoIs j of each RoI i: similarity [B, N, N], valid bool [B, N] -> bool [B, N, N].

    All that equal the last one kept stay too, so that the order of RoIs does not decide.
    """
    ranked = jnp.where(valid[:, None, :], jax.lax.stop_gradient(similarity), -jnp.inf)
    last = jax.lax.top_k(ranked, min(count, ranked.shape[-1]))[0][..., -1:]
    return (ranked >= last) & valid[:, None, :]


class RegionGraph(nn.Module):
    """One step of messages between RoIs: conv1x1_{F/4}((w * S) V). Sows w * S as 'box_to_box' [B, N, N]."""
    kernel: str
    similarity: bool                 # False: S = 1
    neighbours: int = 32             # entries of S kept in each row
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, context: RelationContext, nodes: Array) -> Array:
        """nodes V [B, N, in] -> [B, N, F / 4] in dtype."""
        weights = jnp.where(context.roi_valid[:, None, :], SpatialWeight(self.kernel, name='spatial')(context), 0.0)
        if self.similarity:
            similar = Similarity(dtype=self.dtype, name='similarity')(context.roi_features)
            weights = jnp.where(nearest(similar, context.roi_valid, self.neighbours), weights * similar, 0.0)
        self.sow('intermediates', 'box_to_box', weights)
        # Padding rows of V are finite but may be anything; their weight is 0. The sum of many terms is kept in float32.
        gathered = einsum_float32('bij,bjd->bid', weights.astype(self.dtype), nodes.astype(self.dtype))
        return nn.Dense(context.roi_features.shape[-1] // 4, dtype=self.dtype, name='reduce')(gathered)


class RegionRelation(nn.Module):
    """Messages along the similarity graph of RoIs, node features softmax(logits) W_cls (gradient flows into W_cls)."""
    kernel: str = 'relu'             # one of KERNELS
    similarity: bool = True
    dtype: jnp.dtype = jnp.float32
    needs = set()
    acts_in = 'second_pass'

    @nn.compact
    def __call__(self, context: RelationContext) -> Array:
        """-> [B, N, F / 4] in dtype."""
        probabilities = nn.softmax(context.class_logits.astype(jnp.float32)).astype(self.dtype)
        nodes = jnp.matmul(probabilities, context.class_weights.astype(self.dtype))
        graph = RegionGraph(kernel=self.kernel, similarity=self.similarity, dtype=self.dtype, name='graph')
        return graph(context, nodes)
