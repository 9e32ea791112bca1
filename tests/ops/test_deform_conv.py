import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.ops.deform_conv import deform_conv


def case(seed=0, *, height=5, width=6, stride=1, spread=1.5):
    """x [2, h, w, 3], offsets, kernel [3, 3, 3, 4], modulation."""
    rng = np.random.default_rng(seed)
    rows, columns = -(-height // stride), -(-width // stride)
    return (rng.normal(size=(2, height, width, 3)).astype(np.float32),
            (spread * rng.normal(size=(2, rows, columns, 9, 2))).astype(np.float32),
            rng.normal(size=(3, 3, 3, 4)).astype(np.float32),
            rng.uniform(size=(2, rows, columns, 9)).astype(np.float32))


def plain(x, kernel, stride=1):
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), [(1, 1), (1, 1)],
                                        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def loops(x, offsets, kernel, modulation, stride):
    """The definition, one tap of one cell after the other."""
    batch, height, width, _ = x.shape
    out = np.zeros((*offsets.shape[:3], kernel.shape[-1]))

    def read(b, y, column):
        total, top, left = np.zeros(x.shape[-1]), int(np.floor(y)), int(np.floor(column))
        for i in (top, top + 1):
            for j in (left, left + 1):
                if 0 <= i < height and 0 <= j < width:
                    total = total + x[b, i, j].astype(float) * (1 - abs(y - i)) * (1 - abs(column - j))
        return total

    for b, i, j, tap in np.ndindex(*offsets.shape[:4]):
        dy, dx = offsets[b, i, j, tap]
        value = read(b, i * stride + tap // 3 - 1 + float(dy), j * stride + tap % 3 - 1 + float(dx))
        out[b, i, j] += modulation[b, i, j, tap] * (value @ kernel[tap // 3, tap % 3])
    return out


@pytest.mark.parametrize('stride', [1, 2])
def test_without_offsets_it_is_the_plain_convolution(stride):
    x, offsets, kernel, _ = case(height=7, stride=stride)
    got = jax.jit(lambda *args: deform_conv(*args, stride=stride))(x, np.zeros_like(offsets), kernel)
    np.testing.assert_allclose(got, plain(x, kernel, stride), atol=1e-4)


def test_whole_offsets_shift_the_map():
    x, offsets, kernel, _ = case()
    shifted = np.pad(x, ((0, 0), (0, 1), (0, 2), (0, 0)))[:, 1:, 2:]
    got = jax.jit(deform_conv)(x, np.zeros_like(offsets) + np.float32([1, 2]), kernel)
    inner = (slice(None), slice(1, 4), slice(1, 3))     # where no tap of either sees what the shift has cut off
    np.testing.assert_allclose(got[inner], plain(shifted, kernel)[inner], atol=1e-4)


@pytest.mark.parametrize('stride', [1, 2])
def test_it_is_what_loops_over_taps_give(stride):
    x, offsets, kernel, modulation = case(1, stride=stride)
    got = jax.jit(lambda *args: deform_conv(*args, stride=stride))(x, offsets, kernel, modulation)
    np.testing.assert_allclose(got, loops(x, offsets, kernel, modulation, stride), atol=1e-4)


def test_offsets_may_point_anywhere():
    x, offsets, kernel, modulation = case()
    far = np.where(offsets > 0, np.float32(1e9), np.float32(-1e9))
    total, gradient = jax.jit(jax.value_and_grad(lambda o: abs(deform_conv(x, o, kernel, modulation)).sum()))(far)
    assert total == 0 and not np.any(gradient)


def test_gradients_are_those_of_finite_differences():
    arrays = case(2, height=4, width=4, spread=0.4)
    arrays = (arrays[0], 0.15 + 0.7 * np.abs(np.sin(arrays[1])), *arrays[2:])   # no tap on a cell: there is a kink
    weight = np.random.default_rng(3).normal(size=(2, 4, 4, 4))
    loss = jax.jit(lambda *a: jnp.sum(weight.astype(np.float32) * deform_conv(*a)))
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*arrays)
    for place, (array, gradient) in enumerate(zip(arrays, gradients)):
        direction = np.random.default_rng(place).normal(size=array.shape)
        step = 1e-3
        moved = []
        for sign in (1, -1):
            changed = [a.astype(float) for a in arrays]
            changed[place] += sign * step * direction
            moved.append(np.sum(weight * loops(*changed, 1)))
        np.testing.assert_allclose(np.sum(gradient * direction), (moved[0] - moved[1]) / (2 * step), rtol=2e-3)


def test_offsets_of_another_shape_are_refused():
    x, offsets, kernel, _ = case()
    with pytest.raises(ValueError, match=r'expected offsets \(2, 3, 3, 9, 2\), got \(2, 5, 6, 9, 2\)'):
        deform_conv(x, offsets, kernel, stride=2)
