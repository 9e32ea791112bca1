import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models import depthwise7x7

SHAPES = [(2, 9, 14, 6), (1, 1, 1, 3), (2, 3, 20, 5)]


def draw(shape, dtype=jnp.float32):
    rng = np.random.default_rng(sum(shape))
    sizes = shape, (7, 7, 1, shape[-1]), shape
    return [jnp.asarray(rng.standard_normal(size), dtype) for size in sizes]


@pytest.mark.parametrize('shape', SHAPES)
def test_the_sums_equal_xlas_convolution_and_its_kernel_gradient(shape):
    x, kernel, gradient = draw(shape)
    np.testing.assert_allclose(depthwise7x7.convolve_by_shifts(x, kernel), depthwise7x7.convolve(x, kernel), atol=1e-5)
    np.testing.assert_allclose(depthwise7x7.kernel_gradient_by_cells(x, gradient),
                               depthwise7x7.kernel_gradient(x, gradient), atol=3e-5)


@pytest.mark.parametrize('shape', SHAPES)
def test_value_and_both_gradients_equal_those_of_numpy_sums(shape):
    """On whatever platform the test runs."""
    x, kernel, gradient = (np.asarray(a, np.float64) for a in draw(shape))
    height, width = shape[1:3]
    padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)))
    value, along_kernel, along_padded = np.zeros(shape), np.zeros(kernel.shape), np.zeros(padded.shape)
    for i in range(7):
        for j in range(7):
            window = padded[:, i:i + height, j:j + width]
            value += window * kernel[i, j]
            along_kernel[i, j, 0] = (window * gradient).sum((0, 1, 2))
            along_padded[:, i:i + height, j:j + width] += gradient * kernel[i, j]
    found, pull = jax.vjp(depthwise7x7.depthwise7x7, *draw(shape)[:2])
    along_x, along_taps = pull(draw(shape)[2])
    np.testing.assert_allclose(found, value, atol=1e-5)
    np.testing.assert_allclose(along_x, along_padded[:, 3:-3, 3:-3], atol=1e-5)
    np.testing.assert_allclose(along_taps, along_kernel, atol=3e-5)


def test_bfloat16_sums_in_float32():
    """Of 4096 products of one sign a bfloat16 sum would stop growing at 256."""
    x = jnp.ones((1, 64, 64, 1), jnp.bfloat16)
    total = jax.vjp(depthwise7x7.depthwise7x7, x, jnp.ones((7, 7, 1, 1), jnp.bfloat16))[1](x)[1]
    assert total.dtype == jnp.bfloat16 and total[3, 3, 0, 0] == 4096


def test_cpu_runs_the_sums_and_other_platforms_xlas_convolution():
    x, kernel, _ = draw(SHAPES[0])
    total = jax.jit(jax.grad(lambda x, kernel: depthwise7x7.depthwise7x7(x, kernel).sum(), (0, 1)))
    texts = {platform: total.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
             for platform in ('cpu', 'cuda', 'tpu')}
    assert {platform: text.count('stablehlo.convolution') for platform, text in texts.items()} == {
        'cpu': 0, 'cuda': 2, 'tpu': 2}
