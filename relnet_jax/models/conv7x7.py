"""The stem's 7x7 convolution of stride 2, as a 4x4 convolution of stride 1 over 2 x 2 blocks of pixels.

The same sums in another order. Three input channels leave vector units idle; twelve use them: on CPU the tiny stem
runs four to ten times faster so (`python -m benchmarks.convolutions`), and TPUs are known to gain as well.
"""
from functools import partial

import jax
import jax.numpy as jnp

from relnet_jax.models import kernel_gradient

FORM = dict(size=4, before=2)       # the 4x4 convolution; one block of zeros on the right and at the bottom
convolve = partial(kernel_gradient.convolve, before=FORM['before'])  # of [B, H, W, in] with [4, 4, in, out]
xla_kernel_gradient = partial(kernel_gradient.xla_kernel_gradient, **FORM)
product_kernel_gradient = partial(kernel_gradient.product_kernel_gradient, **FORM)


@jax.custom_vjp
def conv4x4(blocks: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolve`; the form of its gradient is chosen by the platform that it is lowered for."""
    return convolve(blocks, kernel)


def _forward(blocks, kernel):
    return convolve(blocks, kernel), (blocks, kernel)


def _backward(saved, gradient):
    blocks, kernel = saved
    along_blocks, = jax.vjp(lambda x: convolve(x, kernel), blocks)[1](gradient)
    return along_blocks, jax.lax.platform_dependent(blocks, gradient, cpu=product_kernel_gradient,
                                                    default=xla_kernel_gradient)


conv4x4.defvjp(_forward, _backward)


def conv7x7(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, in], [7, 7, in, out] -> [B, ceil(H/2), ceil(W/2), out], stride 2, zero padding 3."""
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    b, h, w, c = x.shape
    blocks = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4 * c)
    # Output o sums pixels 2o - 3 .. 2o + 3: with a zero in front, kernel rows 0..7 are blocks o - 2 .. o + 1.
    kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    kernel = kernel.reshape(4, 2, 4, 2, c, -1).transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, 4 * c, -1)
    return conv4x4(blocks, kernel)
