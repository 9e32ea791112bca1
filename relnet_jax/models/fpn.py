"""Feature pyramid network (Lin et al., CVPR 2017): C2..C5 -> P2..P6."""
import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax.models.layers import Conv, lecun_uniform, make_norm, zero_padding


def upsample(x: jax.Array) -> jax.Array:
    """Nearest neighbour, factor 2: [B, H, W, C] -> [B, 2H, 2W, C]."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


class FPN(nn.Module):
    """Maps [B, H_l, W_l, C_l] of strides 4..32 -> [P2, P3, P4, P5, P6] of `channels`, zero outside `valid`.

    With group norm every convolution is followed by one and has no bias; frozen batch norm has no part in the neck.
    """
    channels: int
    norm: str = 'frozen_bn'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: list[jax.Array], valid: dict[int, jax.Array | None]) -> list[jax.Array]:
        normed = self.norm == 'group_norm'

        def conv(x, kernel_size, mask, name):
            x = Conv(self.channels, kernel_size, use_bias=not normed, kernel_init=lecun_uniform, dtype=self.dtype,
                     name=name)(x, mask)
            return make_norm(self.norm, dtype=self.dtype, name=f'{name}_norm')(x, mask) if normed else x

        masks = [valid[4 * 2 ** i] for i in range(len(maps))]
        top_down, pyramid = None, []
        for i in reversed(range(len(maps))):
            lateral = conv(maps[i], 1, masks[i], f'inner_{i}')
            top_down = lateral if top_down is None else lateral + upsample(top_down)
            pyramid.insert(0, zero_padding(conv(top_down, 3, masks[i], f'layer_{i}'), masks[i]))
        return [*pyramid, pyramid[-1][:, ::2, ::2]]
