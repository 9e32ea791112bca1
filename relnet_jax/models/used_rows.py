"""Work on the rows of a padded array that are used, a chunk after the other, and no more chunks than these fill.

Shapes are static and say how many rows there may be: 128 RoIs that teach masks, 100 detections. A film has a few. On
CPU the number of chunks is counted while the program runs, so the work follows the number of used rows, and what a
chunk needs in between stays small enough for a processor's cache. An accelerator wants few large steps instead: there
all rows are one chunk, used or not. The form is chosen by the platform that the program is lowered for.
"""
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from relnet_jax.types import Array

CPU_CHUNK = 16


def _chunks(used: Array, chunk: int) -> tuple[Array, Array, Array]:
    """Rows in chunks, used ones first: index int32 [chunks, chunk] and whether they are used, and the number of chunks
    that hold a used row. Rows that fill up the last chunk are row 0 again, not used."""
    padding = (0, -len(used) % chunk)
    order = jnp.pad(jnp.argsort(~used, stable=True), padding).reshape(-1, chunk)
    count = used.sum()
    return order, jnp.arange(order.size).reshape(order.shape) < count, -(-count // chunk)


def on_used_rows(run: Callable, used: Array, rows: tuple[Array, ...], *, chunk: int = CPU_CHUNK) -> Array:
    """run(*rows) -> [N, ...] for arrays `rows` [N, ...] where `used` bool [N], zeros elsewhere. Not differentiable.

    `chunk`: rows done at once on CPU.
    """
    def at_once(used: Array, *rows: Array) -> Array:
        found = run(*rows)
        return jnp.where(used.reshape(-1, *(1,) * (found.ndim - 1)), found, 0)

    def in_chunks(used: Array, *rows: Array) -> Array:
        order, keep, filled = _chunks(used, chunk)
        shape = jax.eval_shape(run, *(row[:chunk] for row in rows))

        def body(i: Array, out: Array) -> Array:
            return out.at[order[i]].add(at_once(keep[i], *(row[order[i]] for row in rows)))
        return jax.lax.fori_loop(0, filled, body, jnp.zeros((len(used), *shape.shape[1:]), shape.dtype))

    if chunk >= len(used):
        return at_once(used, *rows)
    return jax.lax.platform_dependent(used, *rows, cpu=in_chunks, default=at_once)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sum_over_used_rows(run: Callable, chunk: int, params: Any, x: Array, rows: tuple[Array, ...], used: Array) -> Array:
    """Sum of run(params, x, *rows) -> float32 [N] where `used` bool [N]; x and `rows` are arrays [N, ...].

    Differentiable by params and x. Each chunk (on CPU `chunk` rows) gives its value and its gradients at once: nothing
    of a chunk is kept until the backward pass, which only scales. The order of additions is that of the chunks.
    """
    def in_chunks(params, x, rows, used):
        order, keep, filled = _chunks(used, chunk)

        def body(i: Array, total: Array) -> Array:
            return total + _masked_sum(run, params, x[order[i]], _take(rows, order[i]), keep[i])
        return jax.lax.fori_loop(0, filled, body, jnp.zeros((), jnp.float32))

    return jax.lax.platform_dependent(params, x, rows, used, cpu=in_chunks, default=partial(_masked_sum, run))


def _masked_sum(run, params, x, rows, used):
    return jnp.where(used, run(params, x, *rows), 0).sum()


def _take(rows, index):
    return tuple(row[index] for row in rows)


def _forward(run, chunk, params, x, rows, used):
    value_and_gradients = jax.value_and_grad(partial(_masked_sum, run), (0, 1))

    def in_chunks(params, x, rows, used):
        order, keep, filled = _chunks(used, chunk)

        def body(i, state):
            total, (params_gradient, x_gradient) = state
            value, (by_params, by_x) = value_and_gradients(params, x[order[i]], _take(rows, order[i]), keep[i])
            return total + value, (jax.tree.map(jnp.add, params_gradient, by_params), x_gradient.at[order[i]].add(by_x))
        zeros = jax.tree.map(jnp.zeros_like, (params, x))
        return jax.lax.fori_loop(0, filled, body, (jnp.zeros((), jnp.float32), zeros))

    return jax.lax.platform_dependent(params, x, rows, used, cpu=in_chunks, default=value_and_gradients)


def _backward(run, chunk, gradients, upstream):
    scaled = jax.tree.map(lambda g: (upstream * g).astype(g.dtype), gradients)
    return (*scaled, None, None)


sum_over_used_rows.defvjp(_forward, _backward)
