"""Region relation as published: two graph convolutions with Gaussian mixture kernels. SGRN, Xu et al., CVPR 2019."""
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax.errors import UserError
from relnet_jax.models.relations.attention import masked_softmax
from relnet_jax.models.relations.context import RelationContext
from relnet_jax.models.relations.region_relation import Similarity, nearest
from relnet_jax.ops.geometry import polar_offsets
from relnet_jax.ops.products import einsum_float32
from relnet_jax.types import Array


def _uniform(low: float, high: float):
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, low, high)


class MixtureConvolution(nn.Module):
    """Graph convolution with `kernels` Gaussians over (distance, angle); each kernel has features / kernels outputs.

    Kernel k weighs neighbour j of i by exp(-(rho - mean)^2 / 2 s^2) exp(-angle^2 / 2 t^2), the angle to its mean taken
    the short way round, divided by the sum over the neighbourhood. s and t are what the source calls precisions.
    """
    features: int
    kernels: int = 8
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, nodes: Array, offsets: Array, neighbours: Array, edges: Array) -> Array:
        """nodes [B, N, in], offsets float32 [B, N, N, 2], neighbours bool [B, N, N], edges float32 [B, N, N] (factor
        on each neighbour's features) -> float32 [B, N, features], no bias, no activation.

        Raises ValueError if features is not a multiple of kernels.
        """
        if self.features % self.kernels:
            raise UserError(f'mixture convolution: features must be a multiple of {self.kernels}, got {self.features}')
        count = (self.kernels,)
        mean_rho = self.param('mean_rho', _uniform(0.0, 1.0), count)
        mean_theta = self.param('mean_theta', _uniform(-math.pi, math.pi), count)
        precision_rho = self.param('precision_rho', _uniform(0.0, 1.0), count)
        precision_theta = self.param('precision_theta', _uniform(0.0, 1.0), count)
        rho = offsets[..., 0, None] - mean_rho
        theta = jnp.abs(offsets[..., 1, None] - mean_theta)
        theta = jnp.minimum(theta, jnp.abs(2 * math.pi - theta))
        exponent = rho ** 2 / (1e-14 + precision_rho ** 2) + theta ** 2 / (1e-14 + precision_theta ** 2)
        weights = jnp.where(neighbours[..., None], jnp.exp(-0.5 * exponent), 0.0)
        weights = weights / (jnp.sum(weights, axis=2, keepdims=True) + 1e-10) * edges[..., None]
        # Mapping the N nodes before the sum over neighbours gives the same as after, without a [B, N, 32, in] gather.
        mapped = nn.DenseGeneral((self.kernels, self.features // self.kernels), use_bias=False, dtype=self.dtype,
                                 name='map')(nodes)
        out = einsum_float32('bijk,bjkd->bikd', weights.astype(self.dtype), mapped)
        return out.reshape(*out.shape[:2], self.features)


class MixtureRelation(nn.Module):
    """Two graph convolutions, F + 1 -> 512 -> 256, each followed by ReLU, on the 32 most similar RoIs of each RoI.

    A node starts as the row [weights | bias] of its best class, without gradient. The similarities of a neighbourhood
    pass a softmax and weigh the features of the first convolution, not of the second; no gradient flows from them
    into the RoI features (all as in the released source). Dropout 0.5 between the two when context.dropout_keys are
    given. Sows the edge weights as 'box_to_box' [B, N, N].
    """
    neighbours: int = 32
    dtype: jnp.dtype = jnp.float32
    needs = set()
    acts_in = 'second_pass'

    @nn.compact
    def __call__(self, context: RelationContext) -> Array:
        """-> [B, N, 256] in dtype."""
        similar = Similarity(dtype=self.dtype, name='similarity')(jax.lax.stop_gradient(context.roi_features))
        near = nearest(similar, context.roi_valid, self.neighbours)
        edges = masked_softmax(similar, near)
        self.sow('intermediates', 'box_to_box', edges)
        offsets = polar_offsets(context.boxes, context.image_size)

        rows = jax.lax.stop_gradient(jnp.concatenate([context.class_weights, context.class_bias[:, None]], axis=1))
        nodes = rows[jnp.argmax(context.class_logits, axis=-1)]
        hidden = nn.relu(MixtureConvolution(512, dtype=self.dtype, name='conv1')(nodes, offsets, near, edges))
        if context.dropout_keys is not None:
            hidden = _dropout_half(hidden, context.dropout_keys)
        hidden = MixtureConvolution(256, dtype=self.dtype, name='conv2')(hidden, offsets, near, jnp.ones_like(edges))
        return nn.relu(hidden).astype(self.dtype)


def _dropout_half(x: Array, keys: Array) -> Array:
    """Drops half of x [B, N, E] and doubles the rest, each image by its own key: the same on any number of devices."""
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, x.shape[1:]))(keys)
    return jnp.where(keep, 2.0 * x, 0.0)
