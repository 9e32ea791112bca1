"""ConvNeXt bodies (Liu et al., CVPR 2022) giving C2..C5, the outputs of the four stages, as torchvision's `features`.

Without stochastic depth. A cell that the true image fills only in part reads zeros for the rest, as everywhere here;
torchvision leaves such cells out, so that the two agree on images whose sides are multiples of 32.
"""
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax.errors import UserError
from relnet_jax.models.depthwise7x7 import SIDE, depthwise7x7
from relnet_jax.models.layers import zero_padding
from relnet_jax.models.patch_conv import patch_conv
from relnet_jax.models.remat import call_layer


class Layout(NamedTuple):
    blocks: tuple[int, ...]     # per stage
    widths: tuple[int, ...]     # channels per stage


LAYOUTS = {
    'convnext_tiny': Layout((3, 3, 9, 3), (96, 192, 384, 768)),
    'convnext_small': Layout((3, 3, 27, 3), (96, 192, 384, 768)),
    'convnext_base': Layout((3, 3, 27, 3), (128, 256, 512, 1024)),
    'convnext_large': Layout((3, 3, 27, 3), (192, 384, 768, 1536)),
}
STEM_STRIDE = 4
init = nn.initializers.normal(0.02)     # the paper's truncation, at 100 standard deviations, never acts


def layer_norm(dtype: jnp.dtype, name: str) -> nn.Module:
    """Over the channels of every position, statistics in float32."""
    return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, dtype=dtype, name=name)


class PatchConv(nn.Module):
    """Convolution whose stride is its kernel size k: [B, H, W, in] -> [B, ceil(H/k), ceil(W/k), features]."""
    features: int
    size: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        k, features = self.size, self.features
        kernel = self.param('kernel', init, (k, k, x.shape[-1], features), jnp.float32).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, (features,), jnp.float32).astype(self.dtype)
        return patch_conv(zero_padding(x, valid).astype(self.dtype), kernel, k) + bias


class DepthwiseConv(nn.Module):
    """7x7 with bias, each channel by itself; params kernel [7, 7, 1, C], bias [C]."""
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        channels = x.shape[-1]
        kernel = self.param('kernel', init, (SIDE, SIDE, 1, channels), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
        x = zero_padding(x, valid).astype(self.dtype)
        return depthwise7x7(x, kernel.astype(self.dtype)) + bias.astype(self.dtype)


class LayerScale(nn.Module):
    """A factor per channel (Touvron et al., ICCV 2021)."""
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param('scale', nn.initializers.constant(1e-6), (x.shape[-1],), jnp.float32)
        return x * scale.astype(self.dtype)


class Block(nn.Module):
    """x + scale * pwconv2(GELU(pwconv1(norm(dwconv(x)))))."""
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> jax.Array:
        width = x.shape[-1]
        y = DepthwiseConv(self.dtype, name='dwconv')(x, valid)
        y = layer_norm(self.dtype, 'norm')(y)
        y = nn.gelu(nn.Dense(4 * width, kernel_init=init, dtype=self.dtype, name='pwconv1')(y), approximate=False)
        y = nn.Dense(width, kernel_init=init, dtype=self.dtype, name='pwconv2')(y)
        return x + LayerScale(self.dtype, name='layer_scale')(y)


class ConvNeXt(nn.Module):
    """Normalised image [B, H, W, 3] -> [C2, C3, C4, C5], strides 4, 8, 16, 32; or without C5, which `head` then makes.

    frozen_stages: 0 none, 1 the stem, 2 the stem and stage 1, ... 5 all: no gradient flows below the last frozen stage.
    """
    layout: str
    frozen_stages: int = 0
    stages: int = 4             # that the call runs: 4, or 3 if stage 4 is a head on RoIs
    remat: bool = False         # blocks keep their input alone for the backward pass
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        layout = LAYOUTS[self.layout]
        self.stem_conv = PatchConv(layout.widths[0], STEM_STRIDE, self.dtype)
        self.stem_norm = layer_norm(self.dtype, 'stem_norm')
        self.downsample = [(layer_norm(self.dtype, f'downsample{stage}_norm'),
                            PatchConv(width, 2, self.dtype, name=f'downsample{stage}_conv'))
                           for stage, width in enumerate(layout.widths[1:], 2)]
        self.blocks = [[Block(self.dtype, name=f'stage{stage}_{i}') for i in range(blocks)]
                       for stage, blocks in enumerate(layout.blocks, 1)]

    def __call__(self, x: jax.Array, valid: dict[int, jax.Array | None]) -> list[jax.Array]:
        """`valid`: stride -> map [B, H/stride, W/stride, 1] or None, for strides 1, 4..32 (16 where 3 stages run)."""
        x = self.stem_norm(self.stem_conv(x, valid[1]))
        x = jax.lax.stop_gradient(x) if self.frozen_stages >= 1 else x

        maps, stride = [], STEM_STRIDE
        for stage in range(self.stages):
            after = stride * (2 if stage > 0 else 1)
            x = self.run_stage(stage, x, valid[stride], valid[after])
            stride = after
            maps.append(x)
        return maps

    def run_stage(self, stage: int, x: jax.Array, valid_in: jax.Array | None, valid_out: jax.Array | None) -> jax.Array:
        if stage > 0:
            norm, conv = self.downsample[stage - 1]
            x = conv(norm(x), valid_in)
        for block in self.blocks[stage]:
            x = call_layer(block, x, valid_out, remat=self.remat)
        return jax.lax.stop_gradient(x) if self.frozen_stages >= stage + 2 else x

    def head(self, x: jax.Array) -> jax.Array:
        """Stage 4 on RoI features, the head of the C4 detector: [N, T, T, C4] -> [N, T/2, T/2, C5]."""
        return self.run_stage(3, x, None, None)


def freeze_patterns(frozen_stages: int) -> tuple[str, ...]:
    """Patterns of the parameters that stay: 0 none, 1 those of the stem, 2 also of stage 1, ... 5 of the whole body."""
    if not 0 <= frozen_stages <= 5:
        raise UserError(f'config.model.frozen_stages must be 0 to 5, got {frozen_stages}')
    stem = ('backbone/stem_',) if frozen_stages else ()
    return stem + tuple(f'backbone/(downsample|stage){k}_' for k in range(1, frozen_stages))
