"""The gradient of a convolution of stride 1 by its kernel, as a matrix product: the form that is fast on CPU.

XLA's own gradient by the kernel runs there at a fifth of the speed of a matrix product on large maps, and slower still
inside loops and conditionals. A few rows of cells are laid out with their neighbours, as far as they fit a cache, and
multiplied. `python -m benchmarks.convolutions` measures it. Other backends use XLA's gradient.
"""
import jax
import jax.numpy as jnp

BLOCK_CELLS = 512       # cells multiplied at once; with 256 channels and 3x3, 4.5 MiB of neighbours


def block_rows(height: int, width: int) -> int:
    """Rows of a block: the largest divisor of `height` that keeps it within BLOCK_CELLS, at least 1."""
    divisors = [rows for rows in range(1, height + 1) if height % rows == 0]
    return max(rows for rows in divisors if rows == 1 or rows * width <= BLOCK_CELLS)


def convolve(x: jax.Array, kernel: jax.Array, *, before: int) -> jax.Array:
    """[B, H, W, in] with kernel [size, size, in, out] -> [B, H, W, out], stride 1; zero padding, `before` cells on top
    and on the left, size - 1 - before on the other sides."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(before, kernel.shape[0] - 1 - before)] * 2,
                                        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def xla_kernel_gradient(x: jax.Array, gradient: jax.Array, *, size: int, before: int) -> jax.Array:
    """[B, H, W, in] and what flows back [B, H, W, out] -> [size, size, in, out], as XLA differentiates `convolve`."""
    zeros = jnp.zeros((size, size, x.shape[-1], gradient.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: convolve(x, kernel, before=before), zeros)(gradient)[0]


def product_kernel_gradient(x: jax.Array, gradient: jax.Array, *, size: int, before: int) -> jax.Array:
    """The same as a sum of matrix products over blocks of rows, in float32."""
    batch, height, width, channels = x.shape
    features, rows = gradient.shape[-1], block_rows(height, width)
    blocks, more = height // rows, size - 1
    padded = jnp.pad(x, ((0, 0), (before, more - before), (before, more - before), (0, 0)))

    def body(i, total):
        image, top = i // blocks, i % blocks * rows
        part = jax.lax.dynamic_slice(padded, (image, top, 0, 0), (1, rows + more, width + more, channels))[0]
        around = jnp.concatenate([part[y:y + rows, z:z + width] for y in range(size) for z in range(size)], -1)
        back = jax.lax.dynamic_slice(gradient, (image, top, 0, 0), (1, rows, width, features))
        # The transposed side is the small one: transposing the neighbours costs a third of the product.
        return total + jax.lax.dot_general(back.reshape(-1, features), around.reshape(rows * width, -1),
                                           (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)

    total = jax.lax.fori_loop(0, batch * blocks, body, jnp.zeros((features, size * size * channels), jnp.float32))
    return total.T.reshape(size, size, channels, features).astype(x.dtype)
