"""Convolution that reads every cell at most once: its kernel is one cell, or as wide as its stride.

On CPU one matrix product over the patches laid out in rows: XLA's convolutions there are slower, and their gradients
two to four times. Other platforms have convolutions of their own for it, which need no such layout.
"""
from functools import partial

import jax
import jax.numpy as jnp


def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """XLA's own: [B, H, W, in], [k, k, in, out] -> [B, ceil(H/s), ceil(W/s), out], zeros beyond the map."""
    padding = [(0, -side % stride) for side in x.shape[1:3]]
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding,
                                        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def product(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The same as one matrix product."""
    k, features = kernel.shape[0], kernel.shape[-1]
    if k == 1:
        x = x[:, ::stride, ::stride]
    else:
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % k), (0, -x.shape[2] % k), (0, 0)))
        b, h, w, c = x.shape
        x = x.reshape(b, h // k, k, w // k, k, c).swapaxes(2, 3).reshape(b, h // k, w // k, k * k * c)
    return (x.reshape(-1, x.shape[-1]) @ kernel.reshape(-1, features)).reshape(*x.shape[:3], features)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def patch_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """[B, H, W, in], [k, k, in, out], k 1 or `stride` -> [B, ceil(H/s), ceil(W/s), out]; the form, gradients included,
    is chosen by the platform that it is lowered for."""
    return jax.lax.platform_dependent(x, kernel, cpu=lambda *args: product(*args, stride),
                                      default=lambda *args: convolve(*args, stride))


def _forward(x, kernel, stride):
    return patch_conv(x, kernel, stride), (x, kernel)


def _gradients(form, x, kernel, gradient, stride):
    """By x and by the kernel, in both of which `form` is linear."""
    along_x, = jax.linear_transpose(lambda x: form(x, kernel, stride), x)(gradient)
    along_kernel, = jax.linear_transpose(lambda kernel: form(x, kernel, stride), kernel)(gradient)
    return along_x, along_kernel


def _backward(stride, saved, gradient):
    return jax.lax.platform_dependent(*saved, gradient, cpu=lambda *args: _gradients(product, *args, stride),
                                      default=lambda *args: _gradients(convolve, *args, stride))


patch_conv.defvjp(_forward, _backward)
