"""Layers that keep their input alone for the backward pass and compute what lies inside again (Chen et al., 2016,
arXiv:1604.06174): less memory for one more forward pass of theirs.

jax.checkpoint does not serve: XLA's CPU compiler drops its barriers, finds that both computations are the same, and
keeps the values after all. Here the second one also reads the gradient, so that it cannot be the first.
"""
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax.types import Array


def call_layer(layer: nn.Module, x: Array, *constants: Array | None, remat: bool) -> Array:
    """layer(x, *constants), with `remat` recomputed for the backward pass. No gradient flows to `constants`.

    The layer has parameters only: no random numbers, no values sown.
    """
    if not remat or layer.is_initializing():
        return layer(x, *constants)
    return _recomputed(_apply(layer.clone(parent=None)), layer.variables['params'], x, constants)


def _apply(layer: nn.Module) -> Callable:
    return lambda params, x, constants: layer.apply({'params': params}, x, *constants)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recomputed(run: Callable, params: Any, x: Array, constants: tuple[Array | None, ...]) -> Array:
    return run(params, x, constants)


def _forward(run, params, x, constants):
    return run(params, x, constants), (params, x, constants)


def _backward(run, saved, gradient):
    params, x, constants = saved
    x = jax.lax.platform_dependent(x, gradient, cpu=_after_on_cpu, default=_after)
    _, pull = jax.vjp(lambda params, x: run(params, x, constants), params, x)
    return *pull(gradient), None


_recomputed.defvjp(_forward, _backward)


def _after(x: Array, gradient: Array) -> Array:
    """`x`, not before `gradient` is known."""
    return jax.lax.optimization_barrier((x, gradient))[0]


def _after_on_cpu(x: Array, gradient: Array) -> Array:
    """The same for a compiler that drops barriers: 0 times a number is known to be 0 only once the number is known not
    to be infinite, which the compiler must leave open. Where it is, so is the loss."""
    return x + 0 * jnp.ravel(gradient)[0].astype(x.dtype)
