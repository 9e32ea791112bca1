"""The stem's 7x7 convolution of stride 2, as a 4x4 convolution of stride 1 over 2 x 2 blocks of pixels.

The same sums in another order. Three input channels leave vector units idle; twelve use them: on CPU the tiny stem
runs four to ten times faster so (`python -m benchmarks.convolutions`), and TPUs are known to gain as well.
"""
import jax
import jax.numpy as jnp

from relnet_jax.models.kernel_gradient import product_kernel_gradient

BEFORE = 2      # blocks of zeros on top and on the left of the 4x4 convolution; one on the other sides


def convolve(blocks: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, in] with kernel [4, 4, in, out] -> [B, H, W, out]."""
    return jax.lax.conv_general_dilated(blocks, kernel, (1, 1), [(BEFORE, 3 - BEFORE)] * 2,
                                        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def xla_gradients(blocks: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradients of `convolve` by the blocks and by the kernel."""
    return jax.vjp(convolve, blocks, kernel)[1](gradient)


def cpu_gradients(blocks: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same in the form that is fast on CPU."""
    along_blocks = jax.vjp(lambda x: convolve(x, kernel), blocks)[1](gradient)[0]
    return along_blocks, product_kernel_gradient(blocks, gradient, size=4, before=BEFORE)


@jax.custom_vjp
def conv4x4(blocks: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolve`; the form of its gradient is chosen by the platform that it is lowered for."""
    return convolve(blocks, kernel)


def _forward(blocks, kernel):
    return convolve(blocks, kernel), (blocks, kernel)


def _backward(saved, gradient):
    return jax.lax.platform_dependent(*saved, gradient, cpu=cpu_gradients, default=xla_gradients)


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
