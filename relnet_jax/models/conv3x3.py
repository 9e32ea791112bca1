"""3x3 convolution of stride 1 whose gradient by the kernel is a matrix product on CPU.

XLA's own gradient by the kernel runs there at a fifth of the speed of a matrix product on large maps, and inside loops
and conditionals, where RoI heads run, slower still. A few rows of cells are laid out with their neighbours, as far as
they fit a cache, and multiplied; both other convolutions of a step are fast as they are. `python -m
benchmarks.convolutions` measures it. Other backends use XLA's gradient.
"""
import jax
import jax.numpy as jnp

BLOCK_CELLS = 512       # cells multiplied at once; with 256 channels, 4.5 MiB of neighbours
CROP_CELLS = 256        # maps of up to so many cells are RoI crops, which run in loops
SMALL_MAP, FEW_CHANNELS = 1024, 128     # where XLA's own form is as fast or faster, outside of loops


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, in] with kernel [3, 3, in, out], zero padding 1 -> [B, H, W, out]."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def block_rows(height: int, width: int) -> int:
    """Rows of a block: the largest divisor of `height` that keeps it within BLOCK_CELLS, at least 1."""
    divisors = [rows for rows in range(1, height + 1) if height % rows == 0]
    return max(rows for rows in divisors if rows == 1 or rows * width <= BLOCK_CELLS)


def xla_kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """[B, H, W, in] and what flows back [B, H, W, out] -> [3, 3, in, out], as XLA differentiates `convolve`."""
    zeros = jnp.zeros((3, 3, x.shape[-1], gradient.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: convolve(x, kernel), zeros)(gradient)[0]


def product_kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """The same as a sum of matrix products over blocks of rows, in float32."""
    batch, height, width, channels = x.shape
    features, rows = gradient.shape[-1], block_rows(height, width)
    blocks = height // rows
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def body(i, total):
        image, top = i // blocks, i % blocks * rows
        part = jax.lax.dynamic_slice(padded, (image, top, 0, 0), (1, rows + 2, width + 2, channels))[0]
        around = jnp.concatenate([part[y:y + rows, z:z + width] for y in range(3) for z in range(3)], -1)
        back = jax.lax.dynamic_slice(gradient, (image, top, 0, 0), (1, rows, width, features))
        # The transposed side is the small one: transposing the neighbours costs a third of the product.
        return total + jax.lax.dot_general(back.reshape(-1, features), around.reshape(rows * width, -1),
                                           (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)

    total = jax.lax.fori_loop(0, batch * blocks, body, jnp.zeros((features, 9 * channels), jnp.float32))
    return total.T.reshape(3, 3, channels, features).astype(x.dtype)


def cpu_kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """The same in the form that is fast on CPU for maps of this shape."""
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
