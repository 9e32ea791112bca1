"""The detector as a function of images alone, which is what the exported files hold."""
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from relnet_jax.models.relations import chosen, needs
from relnet_jax.types import Array

INPUTS = ('image', 'image_size', 'part_boxes', 'part_valid')


def takes_parts(config: ConfigDict, parts: int) -> bool:
    """Whether detections depend on parts that the caller knows."""
    m = config.model
    return parts > 0 and m.parts != 'predicted' and 'parts' in needs(chosen(m))


def input_shapes(config: ConfigDict, *, batch: int, parts: int) -> list[jax.ShapeDtypeStruct]:
    """The arguments of the exported function, in order; `parts` P."""
    shapes = [jax.ShapeDtypeStruct((batch, *config.data.canvas, 3), np.uint8),
              jax.ShapeDtypeStruct((batch, 2), np.float32)]
    if takes_parts(config, parts):
        shapes += [jax.ShapeDtypeStruct((batch, parts, 4), np.float32), jax.ShapeDtypeStruct((batch, parts), np.bool_)]
    return shapes


def standalone(detect: Callable, params: Any, parts: int) -> Callable:
    """`detect` of `detector.run.make_detect` as a function of the image inputs alone, which returns a dict."""
    def call(*arrays: Array) -> dict:
        # Without the barrier the compiler computes on the constants ahead of time.
        found = detect(jax.lax.optimization_barrier(params), *detector_inputs(arrays, parts))._asdict()
        return found if found['masks'].shape[-1] else {name: value for name, value in found.items() if name != 'masks'}
    return call


def detector_inputs(arrays: tuple[Array, ...], parts: int) -> tuple[Array, ...]:
    """The exported function's arguments as `detect` takes them: unknown parts where there are none among them."""
    if len(arrays) == len(INPUTS):
        return tuple(arrays)
    batch = len(arrays[0])
    return (*arrays, jnp.zeros((batch, parts, 4)), jnp.zeros((batch, parts), bool))
