"""Convolution and normalisation layers that know which part of a padded map is image.

`valid` is everywhere a bool map [B, H, W, 1], True where a map of the unpadded image would have a cell, or None (all of
it). Spatial convolutions see zeros outside it, so that a padded canvas gives what zero-padded convolution of the true
image gives.
"""
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax.errors import UserError
from relnet_jax.models.conv3x3 import conv3x3
from relnet_jax.models.conv7x7 import conv7x7
from relnet_jax.models.patch_conv import patch_conv

he_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')     # He et al. 2015, as for ResNet bodies
lecun_uniform = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')  # the "Xavier" of Detectron: neck and fcs


def map_size(image_size: jax.Array, stride: int) -> jax.Array:
    """Cells (rows, columns) that a stride-`stride` map of the true image has: ceil(size / stride), int32 [B, 2]."""
    return jnp.ceil(image_size / stride).astype(jnp.int32)


def valid_map(image_size: jax.Array, stride: int, shape: tuple[int, int]) -> jax.Array:
    """bool [B, H, W, 1] of a map of `shape` = (H, W): True inside the true image of `image_size` [B, 2]."""
    rows, columns = jnp.moveaxis(map_size(image_size, stride), -1, 0)
    inside_y = jnp.arange(shape[0]) < rows[:, None]
    inside_x = jnp.arange(shape[1]) < columns[:, None]
    return (inside_y[:, :, None] & inside_x[:, None, :])[..., None]


def zero_padding(x: jax.Array, valid: jax.Array | None) -> jax.Array:
    return x if valid is None else jnp.where(valid, x, 0)


class Conv(nn.Module):
    """Square convolution, zero padding kernel_size // 2 on every side.

    Params: kernel float32 [k, k, in, out], bias float32 [out]. [B, H, W, in] -> [B, ceil(H/s), ceil(W/s), out].
    """
    features: int
    kernel_size: int = 1
    stride: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = he_fan_out
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        k, s = self.kernel_size, self.stride
        kernel = self.param('kernel', self.kernel_init, (k, k, x.shape[-1], self.features), jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if k == 1:
            y = patch_conv(x, kernel, s)
        elif k == 3 and s == 1:
            y = conv3x3(zero_padding(x, valid), kernel)
        elif k == 7 and s == 2:
            y = conv7x7(zero_padding(x, valid), kernel)
        else:
            y = jax.lax.conv_general_dilated(zero_padding(x, valid), kernel, (s, s), [(k // 2, k // 2)] * 2,
                                             dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        if self.use_bias:
            y = y + self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y


class FrozenBatchNorm(nn.Module):
    """Batch norm with statistics and affine part folded into constant scale and bias [C]; no gradient reaches them."""
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        shape = (x.shape[-1],)
        scale = jax.lax.stop_gradient(self.param('scale', nn.initializers.ones, shape, jnp.float32))
        bias = jax.lax.stop_gradient(self.param('bias', nn.initializers.zeros, shape, jnp.float32))
        return x.astype(self.dtype) * scale.astype(self.dtype) + bias.astype(self.dtype)


class GroupNorm(nn.Module):
    """Group norm (Wu and He, ECCV 2018) of [B, H, W, C], gcd(32, C) groups, float32 statistics of valid cells only."""
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        channels = x.shape[-1]
        groups = math.gcd(32, channels)
        scale = self.param('scale', nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
        x = x.astype(jnp.float32)
        cells = x.shape[1] * x.shape[2] if valid is None else jnp.maximum(valid.sum((1, 2, 3)), 1)[:, None, None, None]

        def group_mean(values):  # [B, H, W, C] -> [B, 1, 1, C], the mean of each channel's group
            per_channel = zero_padding(values, valid).sum((1, 2), keepdims=True) / cells
            per_group = per_channel.reshape(*per_channel.shape[:3], groups, channels // groups).mean(-1)
            return jnp.repeat(per_group, channels // groups, -1)

        centred = x - group_mean(x)
        variance = group_mean(centred ** 2)
        return (centred * (jax.lax.rsqrt(variance + 1e-5) * scale) + bias).astype(self.dtype)


NORMS = {'frozen_bn': FrozenBatchNorm, 'group_norm': GroupNorm}


def make_norm(kind: str, *, dtype: jnp.dtype, name: str) -> nn.Module:
    """The norm layer `kind` of NORMS. Raises ValueError for another name."""
    if kind not in NORMS:
        raise UserError(f"model.norm: expected one of {sorted(NORMS)}, got '{kind}'")
    return NORMS[kind](dtype=dtype, name=name)
