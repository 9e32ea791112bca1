"""Mask branch (He et al., ICCV 2017): convolutions, a deconvolution, one logit map per RoI for the class it has."""
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax import losses
from relnet_jax.models.box_head import RoISample
from relnet_jax.models.layers import Conv, he_fan_out, make_norm
from relnet_jax.models.used_rows import CPU_CHUNK, sum_over_used_rows
from relnet_jax.ops.masks import crop_targets
from relnet_jax.ops.products import einsum_float32
from relnet_jax.types import Batch

Predict = Callable[[Any, jax.Array, jax.Array], jax.Array]      # (params, features, labels) -> mask logits


class MaskHead(nn.Module):
    """RoI features [N, 14, 14, C] -> [N, 14, 14, channels]; group norm, if any, in place of the biases."""
    channels: int
    convs: int
    norm: str = 'frozen_bn'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        normed = self.norm == 'group_norm'
        for i in range(1, self.convs + 1):
            x = Conv(self.channels, 3, use_bias=not normed, kernel_init=he_fan_out, dtype=self.dtype,
                     name=f'mask_fcn{i}')(x)
            x = make_norm(self.norm, dtype=self.dtype, name=f'mask_fcn{i}_norm')(x) if normed else x
            x = nn.relu(x)
        return x


class MaskPredictor(nn.Module):
    """[N, T, T, C] and labels int [N] -> logits of that class only, float32 [N, m, m], m = 2 T.

    Picking the class's weight row before the last 1x1 convolution leaves 1 / K of its arithmetic. What follows the
    deconvolution acts on each cell by itself, so that the logits are put in order, and not its C channels.
    """
    num_classes: int
    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        x = nn.relu(Deconv(self.channels, dtype=self.dtype, name='conv5_mask')(x))
        return in_rows(ClassLogits(self.num_classes, dtype=self.dtype, name='mask_fcn_logits')(x, labels))


class Deconv(nn.Module):
    """2x2 transposed convolution of stride 2 as one matrix product: [N, T, T, C] -> [N, T, T, 2, 2, features].

    The cells (row, column) that each cell becomes stay beside each other; `in_rows` makes a map of them.
    Params: kernel [2, 2, in, out], bias [out].
    """
    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = x.shape[-1]
        kernel = self.param('kernel', nn.initializers.variance_scaling(2.0, 'fan_in', 'normal', in_axis=2, out_axis=3,
                                                                       batch_axis=(0, 1)),
                            (2, 2, c, self.features), jnp.float32).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        y = x.reshape(-1, c).astype(self.dtype) @ jnp.moveaxis(kernel, 2, 0).reshape(c, -1)
        return y.reshape(*x.shape[:-1], 2, 2, self.features) + bias


class ClassLogits(nn.Module):
    """1x1 convolution to one logit per cell with the weights of each row's label: [N, ..., C] -> float32 [N, ...].

    Params: kernel [1, 1, C, K], bias [K].
    """
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        kernel = self.param('kernel', nn.initializers.normal(0.001), (1, 1, x.shape[-1], self.num_classes), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (self.num_classes,), jnp.float32)
        rows = kernel[0, 0].T[labels].astype(self.dtype)
        logits = einsum_float32('n...c,nc->n...', x, rows)
        return logits + bias[labels].reshape(-1, *(1,) * (logits.ndim - 1))


def in_rows(x: jax.Array) -> jax.Array:
    """[N, T, T, 2, 2] -> [N, 2T, 2T]: the 2 x 2 cells of each cell at their places."""
    n, height, width = x.shape[:3]
    return x.swapaxes(2, 3).reshape(n, 2 * height, 2 * width)


def mask_rois(sample: RoISample, batch: Batch, *, num: int) -> tuple[RoISample, jax.Array]:
    """The first `num` RoIs of a sample (positives come first) and which of them have a mask: bool [B, num]."""
    sample = jax.tree.map(lambda x: x[:, :num], sample)
    return sample, sample.positive & jnp.take_along_axis(batch.gt_has_mask, sample.matched, axis=1)


def mask_losses(predict: Predict, params: Any, features: jax.Array, sample: RoISample, has_mask: jax.Array,
                batch: Batch, *, size: int, aligned: bool) -> dict:
    """loss_mask as (sum, count): mean binary cross-entropy over RoIs of `sample` [B, N] where `has_mask` bool [B, N].

    predict(params, features [n, ...], labels [n]) -> logits [n, size, size], of features [B, N, ...].
    """
    targets = crop_targets(batch.gt_masks, batch.gt_boxes, sample.boxes, sample.matched, size=size, aligned=aligned)

    def per_roi(params, features, labels, targets):
        return losses.sigmoid_cross_entropy(predict(params, features, labels), targets).mean((-1, -2))

    features, labels, targets, used = (x.reshape(-1, *x.shape[2:])
                                       for x in (features, sample.labels, targets, has_mask))
    total = sum_over_used_rows(per_roi, CPU_CHUNK, params, features, (labels, targets), used)
    return {'loss_mask': (total, used.sum().astype(jnp.float32))}
