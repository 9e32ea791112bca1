"""Depthwise 7x7 convolution: every channel with a kernel of its own, stride 1, zero padding 3.

XLA's CPU backend is slow at such convolutions: on the shapes of ConvNeXt-T the plain sums below, which are float32 for
bfloat16 maps too, are 13 to 19 times faster, and their kernel gradient 30 to 200 times (`python -m
benchmarks.convolutions`). Other backends use XLA's own.
"""
import functools
import operator

import jax
import jax.numpy as jnp

SIDE, PADDING = 7, 3


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's own: [B, H, W, C], [7, 7, 1, C] -> [B, H, W, C]."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(PADDING, PADDING)] * 2, feature_group_count=x.shape[-1],
                                        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """XLA's own: input and output gradient [B, H, W, C] -> [7, 7, 1, C]."""
    return jax.vjp(lambda kernel: convolve(x, kernel), jnp.zeros((SIDE, SIDE, 1, x.shape[-1]), x.dtype))[1](gradient)[0]


def _padded(x: jax.Array) -> jax.Array:
    sides = (PADDING, PADDING)
    return jnp.pad(x.astype(jnp.float32), ((0, 0), sides, sides, (0, 0)))


def convolve_by_shifts(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The sum of 49 shifted maps, each times one tap, which XLA fuses into one pass over the map."""
    height, width = x.shape[1:3]
    padded, taps = _padded(x), kernel[:, :, 0].astype(jnp.float32)
    shifted = (padded[:, i:i + height, j:j + width] * taps[i, j] for i in range(SIDE) for j in range(SIDE))
    return functools.reduce(operator.add, shifted).astype(x.dtype)


def kernel_gradient_by_cells(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """The sum over cells of the 7x7 window around each times its gradient; the sum stays in the fastest cache."""
    batch, height, width, channels = x.shape
    padded, gradient = _padded(x), gradient.astype(jnp.float32)

    def add(cell: jax.Array, total: jax.Array) -> jax.Array:
        start = (cell // (height * width), cell // width % height, cell % width, 0)
        window = jax.lax.dynamic_slice(padded, start, (1, SIDE, SIDE, channels))[0]
        return total + window * jax.lax.dynamic_slice(gradient, start, (1, 1, 1, channels))[0]

    total = jax.lax.fori_loop(0, batch * height * width, add, jnp.zeros((SIDE, SIDE, channels), jnp.float32))
    return total[:, :, None].astype(x.dtype)


@jax.custom_vjp
def depthwise7x7(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, C], [7, 7, 1, C] of one type -> [B, H, W, C]; the form is chosen by the platform it is lowered for."""
    return jax.lax.platform_dependent(x, kernel, cpu=convolve_by_shifts, default=convolve)


def _forward(x, kernel):
    return depthwise7x7(x, kernel), (x, kernel)


def _backward(saved, gradient):
    x, kernel = saved
    along_x = depthwise7x7(gradient, kernel[::-1, ::-1])
    along_kernel = jax.lax.platform_dependent(x, gradient, cpu=kernel_gradient_by_cells, default=kernel_gradient)
    return along_x, along_kernel


depthwise7x7.defvjp(_forward, _backward)
