"""Bodies by name: config.model.backbone -> what makes the maps that the detector reads.

A body is a Linen module. Its call takes the image [B, H, W, 3], normalised by config.model.pixel_mean and pixel_std,
and `valid`, a dict stride -> bool [B, H/stride, W/stride, 1] (True where a map of the unpadded image has a cell) or
None (all of it) for the strides 1, 2, 4, .., 32. It returns the maps [C2, C3, C4, C5] of strides 4, 8, 16, 32, the
first `settings.stages` of them (3: without C5). Where `valid` says so, what lies on the padding must not reach the
image: a convolution of more than one cell reads zeros there (`layers.zero_padding`). Below the last of
`settings.frozen_stages` no gradient flows (0: none is frozen, 1: the stem, 2: the stem and the stage of C2, ... 5:
all).

A body that serves the neck 'c4' also has `head(x)`, which makes C5 of pooled C4: [N, T, T, C4] -> [N, T/2, T/2, C5].

A new body is one file and one line in BACKBONES; docs/extending.md shows how.
"""
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from relnet_jax.errors import UserError
from relnet_jax.models.backbones import convnext, resnet
from relnet_jax.models.backbones.deformable import VERSIONS


class BackboneSettings(NamedTuple):
    """As the keys of config.model; `stages` that the call runs: 4, or 3 where the last is the head on RoIs."""
    name: str
    norm: str
    stride_in_1x1: bool = False
    frozen_stages: int = 0
    deformable: str = ''
    stages: int = 4
    remat: bool = False


class Backbone(NamedTuple):
    """A line of BACKBONES."""
    make: Callable[[BackboneSettings, jnp.dtype], nn.Module]    # compute type; the module is named 'backbone'
    channels: tuple[int, int, int, int]                         # of C2 to C5
    freeze_patterns: Callable[[int], tuple[str, ...]]           # frozen_stages -> patterns of the parameters' paths
    takes: dict[str, tuple]     # 'neck', 'norm', 'deformable', 'stride_in_1x1', 'remat' of config.model -> the values
                                # it can do


def _resnet(layout: str) -> Backbone:
    def make(settings: BackboneSettings, dtype: jnp.dtype) -> nn.Module:
        return resnet.ResNet(layout, norm=settings.norm, stride_in_1x1=settings.stride_in_1x1,
                             frozen_stages=settings.frozen_stages, deformable=settings.deformable,
                             stages=settings.stages, remat=settings.remat, dtype=dtype, name='backbone')

    return Backbone(make, resnet.stage_channels(layout), resnet.freeze_patterns,
                    takes={'neck': ('fpn', 'c4'), 'norm': ('frozen_bn', 'group_norm'), 'deformable': ('', *VERSIONS),
                           'stride_in_1x1': (False, True), 'remat': (False, True)})


def _convnext(layout: str) -> Backbone:
    def make(settings: BackboneSettings, dtype: jnp.dtype) -> nn.Module:
        return convnext.ConvNeXt(layout, frozen_stages=settings.frozen_stages, stages=settings.stages,
                                 remat=settings.remat, dtype=dtype, name='backbone')

    return Backbone(make, convnext.LAYOUTS[layout].widths, convnext.freeze_patterns,
                    takes={'neck': ('fpn', 'c4'), 'norm': ('layer_norm', 'group_norm'), 'deformable': ('',),
                           'stride_in_1x1': (False,), 'remat': (False, True)})


BACKBONES = {layout: _resnet(layout) for layout in resnet.LAYOUTS} | {
    layout: _convnext(layout) for layout in convnext.LAYOUTS}


def find(name: str) -> Backbone:
    """Raises ValueError for a name that is not in BACKBONES."""
    if name not in BACKBONES:
        raise UserError(f"config.model.backbone: expected one of {sorted(BACKBONES)}, got '{name}'")
    return BACKBONES[name]


def validate(settings: BackboneSettings, neck: str) -> None:
    """Raises ValueError, naming the config key, for a body that is unknown or cannot do what is asked of it."""
    body = find(settings.name)
    body.freeze_patterns(settings.frozen_stages)
    for key, values in body.takes.items():
        value = neck if key == 'neck' else getattr(settings, key)
        if value not in values:
            raise UserError(f'config.model.{key}: {settings.name} takes one of {values}, got {value!r}')
