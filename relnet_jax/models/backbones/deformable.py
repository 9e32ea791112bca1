"""Deformable convolution layer: 3x3, with offsets that a second 3x3 convolution reads from the same map."""
import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax.models.layers import Conv, he_fan_out, zero_padding
from relnet_jax.ops.deform_conv import deform_conv

VERSIONS = ('v1', 'v2')     # Dai et al., ICCV 2017; Zhu et al., CVPR 2019, with a factor on each tap


class DeformConv(nn.Module):
    """3x3 without bias: [B, H, W, in] -> [B, ceil(H/s), ceil(W/s), features].

    Params: kernel [3, 3, in, features], as of the plain layer, so that its weights load; offset/kernel and offset/bias
    start at zero, so that the layer starts as the plain one. The factor of v2 is therefore 2 sigmoid, where
    the paper has sigmoid and starts at one half.
    """
    features: int
    stride: int = 1
    version: str = 'v1'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        """`valid`: bool [B, H, W, 1], what of the map is image, or None (all of it); the rest counts as zero."""
        kernel = self.param('kernel', he_fan_out, (3, 3, x.shape[-1], self.features), jnp.float32)
        x = zero_padding(x, valid).astype(self.dtype)
        modulated = self.version == 'v2'
        # Offsets are float32: in bfloat16 a position beyond 128 has steps of a whole cell.
        out = Conv(27 if modulated else 18, 3, self.stride, kernel_init=nn.initializers.zeros, dtype=jnp.float32,
                   name='offset')(x, valid)
        offsets = out[..., :18].reshape(*out.shape[:3], 9, 2)
        modulation = 2 * nn.sigmoid(out[..., 18:]) if modulated else None
        return deform_conv(x, offsets, kernel, modulation, stride=self.stride)
