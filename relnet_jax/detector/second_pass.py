"""The second pass of an image run again, with inputs of single relations left out, all variants in one compiled loop.

Everything else stays as it was: the first pass, what the other relations see, and the RoI whose scores are asked for.
"""
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax.models.relation_head import RelationHead
from relnet_jax.models.relations import RelationContext
from relnet_jax.types import Array


class Kept(NamedTuple):
    """What a relation still has, in R variants, one row each."""
    classes: Array      # bool [R, 1, K]
    parts: Array        # bool [R, 1, P], or of the cells that it looks at
    rois: Array         # bool [R, 1, N]


def make_second_pass(head: RelationHead) -> Callable:
    """Jitted function (params of `head`, contexts, kept, roi) -> class probabilities [R, K] of one RoI.

    contexts: RelationContext with B = 1 of each relation by its name, and under '' that of the head; kept: `Kept` of
    each relation by its name.
    """
    def second_pass(params: Mapping, contexts: Mapping[str, RelationContext], kept: Mapping[str, Kept], roi: Array):
        features = contexts[''].roi_features

        def once(kept: Mapping[str, Kept]) -> Array:
            def with_less(call, args, kwargs, about):
                name = about.module.name
                if about.method_name == '__call__' and len(about.module.path) == 1 and name in kept:
                    own, left = contexts[name], kept[name]
                    args = (own._replace(class_valid=left.classes, part_valid=own.part_valid & left.parts,
                                         roi_valid=own.roi_valid & left.rois),)
                return call(*args, **kwargs)

            def no_features(boxes: Array) -> Array:     # the contexts have those of the parts
                return jnp.zeros((*boxes.shape[:2], features.shape[-1]), features.dtype)

            with nn.intercept_methods(with_less):
                return nn.softmax(head.apply({'params': params}, contexts[''], no_features)[0])[0, roi]
        return jax.lax.map(once, kept)
    return jax.jit(second_pass)
