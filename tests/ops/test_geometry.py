"""Box geometry against golden values and loops; nothing flows into boxes."""
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.ops.geometry import divide_boxes, divide_parts, geometry_embedding, pair_geometry, polar_offsets

GOLDEN = Path(__file__).resolve().parents[1] / 'golden' / 'relations.npz'
BOXES = np.float32([[[10, 20, 50, 40], [10, 20, 50, 40], [100, 0, 130, 90]]])
SIZE = np.float32([[100, 200]])


@pytest.mark.parametrize('name, function', [
    ('geometry_matrix', pair_geometry),
    ('geometry_embedding_64', geometry_embedding),
    ('geometry_embedding_32', lambda q, k: geometry_embedding(q, k, dim=32))])
def test_golden(name, function):
    file = np.load(GOLDEN)
    got = function(file[f'{name}/input/boxes'], file[f'{name}/input/key_boxes'])
    expected = file[f'{name}/expected']
    assert got.shape == expected.shape and got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_dim_must_be_a_multiple_of_eight():
    for dim in (0, 12):
        with pytest.raises(ValueError, match=f'multiple of 8, got {dim}'):
            geometry_embedding(BOXES, BOXES, dim=dim)


def test_geometry_does_not_change_with_place_and_scale():
    wide = lambda boxes: boxes - np.float32([0, 0, 1, 1])  # so that inclusive sizes scale exactly
    near = pair_geometry(wide(BOXES), wide(BOXES))
    np.testing.assert_allclose(pair_geometry(wide(4 * BOXES), wide(4 * BOXES))[..., 2:], near[..., 2:], atol=1e-5)
    np.testing.assert_allclose(pair_geometry(BOXES + 64, BOXES + 64), pair_geometry(BOXES, BOXES), atol=1e-5)


def test_inverted_padding_rows_stay_finite():
    odd = np.float32([[[50, 50, -400, 3], [0, 0, 0, 0]]])
    assert np.isfinite(geometry_embedding(odd, BOXES)).all() and np.isfinite(geometry_embedding(BOXES, odd)).all()


def test_polar_offsets_equal_the_loop():
    got = polar_offsets(BOXES, SIZE)
    for i in range(3):
        for j in range(3):
            centre = [((b[0] + b[2]) / 2 / 200, (b[1] + b[3]) / 2 / 100) for b in (BOXES[0, i], BOXES[0, j])]
            dx, dy = np.subtract(*centre)
            np.testing.assert_allclose(got[0, i, j], [np.hypot(dx, dy), np.arctan2(dy, dx)], atol=1e-6)
    np.testing.assert_array_equal(got[0, 0, 1], [0, 0])  # equal boxes, also of different rows
    assert np.all(np.asarray(got[0, [0, 1, 2], [0, 1, 2]]) == 0)


def test_equal_centres_have_angle_zero_in_compiled_code_too():
    low = np.random.default_rng(0).uniform(0, 100, (2, 40, 2)).astype(np.float32)
    boxes = np.concatenate([low, low + np.float32(33.3)], -1)
    boxes[:, 20:] = boxes[:, :20]
    got = np.asarray(jax.jit(polar_offsets)(boxes, np.float32([[480, 513], [700.5, 333]])))
    rows = np.arange(40)
    for other in (rows, (rows + 20) % 40):
        np.testing.assert_array_equal(got[:, rows, other], np.zeros((2, 40, 2)))


def test_no_gradient_flows_into_boxes():
    functions = (geometry_embedding, lambda q, k: polar_offsets(jnp.concatenate([q, k], 1), SIZE),
                 lambda q, k: divide_boxes(q, rows=2, cols=2) + divide_boxes(k, rows=2, cols=2))
    for function in functions:
        loss = lambda q, k, function=function: jnp.sum(function(q, k) ** 2)
        for gradient in jax.grad(loss, (0, 1))(jnp.asarray(BOXES), jnp.asarray(BOXES)):
            np.testing.assert_array_equal(gradient, np.zeros_like(BOXES))


def test_cells_tile_their_box_row_by_row():
    cells = divide_boxes(np.float32([[10, 20, 40, 40]]), rows=2, cols=3)
    np.testing.assert_allclose(cells, [[[10, 20, 20, 30], [20, 20, 30, 30], [30, 20, 40, 30],
                                        [10, 30, 20, 40], [20, 30, 30, 40], [30, 30, 40, 40]]])


def test_cells_come_part_by_part_and_share_the_parts_validity():
    valid = np.array([[True, False, True]])
    boxes, mask = divide_parts(BOXES, valid, parts=(2, 1), rows=1, cols=2)
    np.testing.assert_allclose(boxes[0], [[100, 0, 115, 90], [115, 0, 130, 90], [10, 20, 30, 40], [30, 20, 50, 40]])
    np.testing.assert_array_equal(mask, [[True, True, False, False]])
    with pytest.raises(IndexError, match='0..2'):
        divide_parts(BOXES, valid, parts=(3,), rows=1, cols=2)
