"""3x3 convolution of stride 1 whose weight gradient avoids two slow paths of XLA's CPU backend.

On CPU, XLA's gradient with respect to the kernel falls off a cliff on large maps with many channels (three to six times
slower at [2, 128, 128, 256]; in slices of rows it does not), and inside conditionals, where RoI heads run, it is slower
still (twenty times at 14 x 14; as matrix products it is not). `python -m benchmarks.detector --convolutions` measures
the first. Other backends use XLA's own gradient.
"""
import jax
import jax.numpy as jnp
import numpy as np

ROI_CELLS = 256         # maps of up to so many cells are RoI crops: matrix products
SLICE_CELLS = 4096      # cells of all images in one slice of rows
SLICE_CHANNELS = 128    # with fewer channels slicing does not pay
MAX_SLICES = 16


def convolve(x: jax.Array, kernel: jax.Array, pad_rows: int = 1) -> jax.Array:
    """[B, H, W, in] with kernel [3, 3, in, out], zero padding 1 along x and `pad_rows` along y."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(pad_rows, pad_rows), (1, 1)],
                                        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def kernel_gradient_by_products(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Nine products of shifted input and output gradient: [B, H, W, in], [B, H, W, out] -> [3, 3, in, out]."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    flat = gradient.reshape(-1, gradient.shape[-1])
    shifted = [padded[:, i:i + height, j:j + width].reshape(len(flat), -1) for i in range(3) for j in range(3)]
    return jnp.stack([columns.T @ flat for columns in shifted]).reshape(3, 3, x.shape[-1], -1)


def kernel_gradient_by_rows(x: jax.Array, gradient: jax.Array, *, slices: int) -> jax.Array:
    """XLA's kernel gradient summed over `slices` slices of rows."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    edges = np.linspace(0, x.shape[1], slices + 1).astype(int)
    zeros = jnp.zeros((3, 3, x.shape[-1], gradient.shape[-1]), x.dtype)
    total = 0
    for start, stop in zip(edges[:-1], edges[1:]):
        part = padded[:, start:stop + 2]
        total += jax.vjp(lambda kernel, part=part: convolve(part, kernel, 0), zeros)[1](gradient[:, start:stop])[0]
    return total


def kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """[3, 3, in, out], in the form that suits the map on CPU."""
    batch, height, width, channels = x.shape
    slices = min(batch * height * width // SLICE_CELLS, MAX_SLICES, height)
    if height * width <= ROI_CELLS:
        return kernel_gradient_by_products(x, gradient)
    if channels < SLICE_CHANNELS or slices < 2:
        slices = 1
    return kernel_gradient_by_rows(x, gradient, slices=slices)


@jax.custom_vjp
def cpu_convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return convolve(x, kernel)


def _forward(x, kernel):
    return convolve(x, kernel), (x, kernel)


def _backward(saved, gradient):
    x, kernel = saved
    return convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3)), kernel_gradient(x, gradient)


cpu_convolve.defvjp(_forward, _backward)


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, in], [3, 3, in, out] -> [B, H, W, out], zero padding 1; the form is chosen by backend at trace time."""
    return cpu_convolve(x, kernel) if jax.default_backend() == 'cpu' else convolve(x, kernel)
