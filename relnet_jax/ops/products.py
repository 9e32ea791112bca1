"""Matrix products of low precision."""
from functools import partial

import jax
import jax.numpy as jnp

from relnet_jax.types import Array


def einsum_float32(subscripts: str, a: Array, b: Array) -> Array:
    """einsum of two arrays of one type, bfloat16 or float32, with sums and result in float32.

    What flows back is rounded to that type, so that both gradients are products in it; differentiation would leave
    products of float32.
    """
    return _einsum(subscripts, a, b)    # type: ignore[return-value]   custom_vjp has no type of its own


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _einsum(subscripts, a, b):
    return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)


def _forward(subscripts, a, b):
    return _einsum(subscripts, a, b), (a, b)


def _backward(subscripts, saved, gradient):
    a, b = saved
    gradient = gradient.astype(a.dtype)
    along_a, = jax.linear_transpose(lambda a: jnp.einsum(subscripts, a, b), a)(gradient)
    along_b, = jax.linear_transpose(lambda b: jnp.einsum(subscripts, a, b), b)(gradient)
    return along_a, along_b


_einsum.defvjp(_forward, _backward)
