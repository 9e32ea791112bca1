"""ResNet bodies (He et al., CVPR 2016) giving C2..C5, with torchvision's layer names."""
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax.errors import UserError
from relnet_jax.models.backbones.deformable import DeformConv
from relnet_jax.models.layers import Conv, make_norm, zero_padding
from relnet_jax.models.remat import call_layer


class Layout(NamedTuple):
    bottleneck: bool
    blocks: tuple[int, ...]     # blocks per stage
    widths: tuple[int, ...]     # 3x3 channels per stage; a bottleneck puts out four times as many
    stem: int                   # channels of the 7x7


LAYOUTS = {
    'tiny': Layout(False, (1, 1, 1, 1), (24, 48, 96, 160), 24),     # for CPU work; ours, not published
    'resnet18': Layout(False, (2, 2, 2, 2), (64, 128, 256, 512), 64),
    'resnet34': Layout(False, (3, 4, 6, 3), (64, 128, 256, 512), 64),
    'resnet50': Layout(True, (3, 4, 6, 3), (64, 128, 256, 512), 64),
    'resnet101': Layout(True, (3, 4, 23, 3), (64, 128, 256, 512), 64),
}


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 maximum, stride 2, of [B, H, W, C] >= 0 (after a ReLU zeros are as good as -inf around the border).

    Rows, then columns, by elementwise maxima: XLA's gradient of a window maximum keeps four index maps, which on CPU
    costs more than the stem's convolution. Of equal maxima each gets a share of the gradient.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        count = -(-size // 2)
        padded = jnp.pad(x, [(1, 2 * count - size) if a == axis else (0, 0) for a in range(4)])
        x = functools.reduce(jnp.maximum, [jax.lax.slice_in_dim(padded, i, i + 2 * count - 1, 2, axis)
                                           for i in range(3)])
    return x


class Block(nn.Module):
    """Bottleneck (1x1, 3x3, 1x1) or basic (3x3, 3x3) block; `valid_in`, `valid_out`: before and after its stride."""
    width: int
    stride: int
    bottleneck: bool
    stride_in_1x1: bool
    norm: str
    dtype: jnp.dtype
    deformable: str = ''        # '' or the version of the last 3x3

    @nn.compact
    def __call__(self, x: jax.Array, valid_in: jax.Array | None, valid_out: jax.Array | None) -> jax.Array:
        def conv_norm(y, features, kernel_size, stride, valid_from, valid_to, conv, norm):
            if conv == 'conv2' and self.deformable:
                y = DeformConv(features, stride, self.deformable, dtype=self.dtype, name=conv)(y, valid_from)
            else:
                y = Conv(features, kernel_size, stride, use_bias=False, dtype=self.dtype, name=conv)(y, valid_from)
            return make_norm(self.norm, dtype=self.dtype, name=norm)(y, valid_to)

        first, second = self.stride, 1
        features = self.width
        y = x
        if self.bottleneck:
            features = 4 * self.width
            first, second = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
            valid_mid = valid_out if self.stride_in_1x1 else valid_in
            y = nn.relu(conv_norm(y, self.width, 1, first, valid_in, valid_mid, 'conv1', 'bn1'))
            y = nn.relu(conv_norm(y, self.width, 3, second, valid_mid, valid_out, 'conv2', 'bn2'))
            y = conv_norm(y, features, 1, 1, valid_out, valid_out, 'conv3', 'bn3')
        else:
            y = nn.relu(conv_norm(y, self.width, 3, first, valid_in, valid_out, 'conv1', 'bn1'))
            y = conv_norm(y, self.width, 3, 1, valid_out, valid_out, 'conv2', 'bn2')
        if self.stride != 1 or x.shape[-1] != features:
            x = conv_norm(x, features, 1, self.stride, valid_in, valid_out, 'downsample_conv', 'downsample_bn')
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Normalised image [B, H, W, 3] -> [C2, C3, C4, C5], strides 4, 8, 16, 32; or without C5, which `head` then makes.

    frozen_stages: 0 none, 1 the stem, 2 the stem and layer1, ... 5 all: no gradient flows below the last frozen stage.
    deformable: '' or the version of the convolutions that stand for the last 3x3 of every block from layer2 on.
    """
    layout: str
    norm: str = 'frozen_bn'
    stride_in_1x1: bool = False
    frozen_stages: int = 0
    deformable: str = ''
    stages: int = 4             # that the call runs: 4, or 3 if layer4 is a head on RoIs
    remat: bool = False         # blocks keep their input alone for the backward pass
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        layout = LAYOUTS[self.layout]
        self.stem = Conv(layout.stem, 7, 2, use_bias=False, dtype=self.dtype, name='conv1')
        self.stem_norm = make_norm(self.norm, dtype=self.dtype, name='bn1')
        self.blocks = [[Block(width, 2 if stage > 0 and block == 0 else 1, layout.bottleneck, self.stride_in_1x1,
                              self.norm, self.dtype, self.deformable if stage > 0 else '',
                              name=f'layer{stage + 1}_{block}') for block in range(blocks)]
                       for stage, (blocks, width) in enumerate(zip(layout.blocks, layout.widths))]

    def __call__(self, x: jax.Array, valid: dict[int, jax.Array | None]) -> list[jax.Array]:
        """`valid`: stride -> map [B, H/stride, W/stride, 1] or None, for strides 1..32 (16 where 3 stages run)."""
        x = nn.relu(self.stem_norm(self.stem(x, valid[1]), valid[2]))
        x = max_pool(zero_padding(x, valid[2]))
        x = jax.lax.stop_gradient(x) if self.frozen_stages >= 1 else x

        maps, stride = [], 4
        for stage in range(self.stages):
            after = stride * (2 if stage > 0 else 1)
            x = self.run_stage(stage, x, valid[stride], valid[after])
            stride = after
            maps.append(x)
        return maps

    def run_stage(self, stage: int, x: jax.Array, valid_in: jax.Array | None, valid_out: jax.Array | None) -> jax.Array:
        for i, block in enumerate(self.blocks[stage]):
            x = call_layer(block, x, valid_in if i == 0 else valid_out, valid_out, remat=self.remat)
        return jax.lax.stop_gradient(x) if self.frozen_stages >= stage + 2 else x

    def head(self, x: jax.Array) -> jax.Array:
        """layer4 on RoI features, the head of the C4 detector: [N, T, T, C4] -> [N, T/2, T/2, C5]."""
        return self.run_stage(3, x, None, None)


def stage_channels(layout: str) -> tuple[int, ...]:
    """Channels of C2 to C5."""
    return tuple(width * (4 if LAYOUTS[layout].bottleneck else 1) for width in LAYOUTS[layout].widths)


def freeze_patterns(frozen_stages: int) -> tuple[str, ...]:
    """Patterns of the parameters that stay: 0 none, 1 those of the stem, 2 also of layer1, ... 5 of the whole body."""
    if not 0 <= frozen_stages <= 5:
        raise UserError(f'config.model.frozen_stages must be 0 to 5, got {frozen_stages}')
    stem = (r'backbone/(?!layer)',) if frozen_stages else ()
    return stem + tuple(rf'backbone/layer{k}[_/]' for k in range(1, frozen_stages))
