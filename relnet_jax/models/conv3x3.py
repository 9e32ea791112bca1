"""3x3 convolution of stride 1 whose gradient by the kernel is a matrix product on CPU (`kernel_gradient`): on large
maps, and inside loops and conditionals, where RoI heads run. Both other convolutions of a step are fast as they are."""
from functools import partial

import jax

from relnet_jax.models import kernel_gradient

CROP_CELLS = 784        # maps of up to so many cells may be RoI crops, 14 or 28 a side, which run in loops
SMALL_MAP, FEW_CHANNELS = 1024, 128     # where XLA's own form is as fast or faster, outside of loops

FORM = dict(size=3, before=1)
convolve = partial(kernel_gradient.convolve, before=FORM['before'])  # of [B, H, W, in] with [3, 3, in, out]
xla_kernel_gradient = partial(kernel_gradient.xla_kernel_gradient, **FORM)
product_kernel_gradient = partial(kernel_gradient.product_kernel_gradient, **FORM)


def cpu_kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """The kernel gradient in the form that is fast on CPU for maps of this shape."""
    _, height, width, channels = x.shape
    plain = CROP_CELLS < height * width <= SMALL_MAP and channels < FEW_CHANNELS
    return (xla_kernel_gradient if plain else product_kernel_gradient)(x, gradient)


@jax.custom_vjp
def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, in], [3, 3, in, out] -> [B, H, W, out], zero padding 1; the form of its gradient is chosen by the
    platform that it is lowered for."""
    return convolve(x, kernel)


def _forward(x, kernel):
    return convolve(x, kernel), (x, kernel)


def _backward(saved, gradient):
    x, kernel = saved
    along_x = convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3))
    return along_x, jax.lax.platform_dependent(x, gradient, cpu=cpu_kernel_gradient, default=xla_kernel_gradient)


conv3x3.defvjp(_forward, _backward)
