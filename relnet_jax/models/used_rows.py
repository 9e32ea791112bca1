"""Work on the rows of a padded array that are used, a chunk after the other, and no more chunks than these fill.

Shapes are static and say how many rows there may be: 128 RoIs that teach masks, 100 detections. A film has a few. The
number of chunks is counted while the program runs, so the work follows the number of used rows, and what a chunk needs
in between stays small enough for a processor's cache. An accelerator wants few large steps instead: one chunk of all
rows, used or not (`chunk_size`).
"""
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from relnet_jax.types import Array

CPU_CHUNK = 16


def chunk_size(rows: int) -> int:
    """Rows in a chunk of `rows`, by backend."""
    return min(CPU_CHUNK, rows) if jax.default_backend() == 'cpu' else rows


def _chunks(used: Array, chunk: int) -> tuple[Array, Array, Array]:
    """Rows in chunks, used ones first: index int32 [chunks, chunk] and whether they are used, and the number of chunks
    that hold a used row. Rows that fill up the last chunk are row 0 again, not used."""
    padding = (0, -len(used) % chunk)
    order = jnp.pad(jnp.argsort(~used, stable=True), padding).reshape(-1, chunk)
    count = used.sum()
    return order, jnp.arange(order.size).reshape(order.shape) < count, -(-count // chunk)


def on_used_rows(run: Callable, used: Array, rows: tuple[Array, ...], *, chunk: int) -> Array:
    """run(*rows) -> [N, ...] for arrays `rows` [N, ...] where `used` bool [N], zeros elsewhere. Not differentiable."""
    if chunk >= len(used):
        found = run(*rows)
        return jnp.where(used.reshape(-1, *(1,) * (found.ndim - 1)), found, 0)
    order, keep, filled = _chunks(used, chunk)
    shape = jax.eval_shape(run, *(row[:chunk] for row in rows))

    def body(i: Array, out: Array) -> Array:
        found = run(*(row[order[i]] for row in rows))
        keep_i = keep[i].reshape(-1, *(1,) * (found.ndim - 1))
        return out.at[order[i]].add(jnp.where(keep_i, found, 0))
    return jax.lax.fori_loop(0, filled, body, jnp.zeros((len(used), *shape.shape[1:]), shape.dtype))


def sum_over_used_rows(run: Callable, chunk: int, params: Any, x: Array, rows: tuple[Array, ...], used: Array) -> Array:
    """Sum of run(params, x, *rows) -> float32 [N] where `used` bool [N]; x and `rows` are arrays [N, ...].

    Differentiable by params and x. Each chunk gives its value and its gradients at once: nothing of a chunk is kept
    until the backward pass, which only scales. The order of additions is that of the chunks.
    """
    if chunk >= len(used):
        return jnp.where(used, run(params, x, *rows), 0).sum()
    return _chunked_sum(run, chunk, params, x, rows, used)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _chunked_sum(run, chunk, params, x, rows, used):
    order, keep, filled = _chunks(used, chunk)

    def body(i: Array, total: Array) -> Array:
        return total + _chunk_sum(run, order[i], keep[i], rows, params, x[order[i]])
    return jax.lax.fori_loop(0, filled, body, jnp.zeros((), jnp.float32))


def _chunk_sum(run, index, keep, rows, params, x):
    return jnp.where(keep, run(params, x, *(row[index] for row in rows)), 0).sum()


def _forward(run, chunk, params, x, rows, used):
    order, keep, filled = _chunks(used, chunk)

    def body(i, state):
        total, params_gradient, x_gradient = state
        value, (by_params, by_x) = jax.value_and_grad(partial(_chunk_sum, run, order[i], keep[i], rows), (0, 1))(
            params, x[order[i]])
        return (total + value, jax.tree.map(jnp.add, params_gradient, by_params), x_gradient.at[order[i]].add(by_x))
    zeros = jax.tree.map(jnp.zeros_like, (params, x))
    total, *gradients = jax.lax.fori_loop(0, filled, body, (jnp.zeros((), jnp.float32), *zeros))
    return total, gradients


def _backward(run, chunk, gradients, upstream):
    scaled = jax.tree.map(lambda g: (upstream * g).astype(g.dtype), gradients)
    return (*scaled, None, None)


_chunked_sum.defvjp(_forward, _backward)
