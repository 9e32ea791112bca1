"""Polylines of DICOM's image coordinates enclose exactly the pixels of a mask."""
import numpy as np
import pytest

from relnet_jax.data.archive.outlines import box_outline, edge_rings, mask_outline


def inside(line: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """bool `shape`: pixels whose centre lies inside a closed line by the even-odd rule, counted edge by edge."""
    y, x = np.mgrid[:shape[0], :shape[1]].reshape(2, -1, 1) + 0.5
    (x1, y1), (x2, y2) = line[:-1].T, line[1:].T
    crossed = (y1 <= y) != (y2 <= y)
    where = x1 + (y - y1) * (x2 - x1) / np.where(y1 == y2, 1, y2 - y1)
    return ((crossed & (where > x)).sum(1) % 2 == 1).reshape(shape)


def test_a_pixel_reaches_from_its_upper_left_to_its_lower_right_corner():
    mask = np.zeros((5, 7), bool)
    mask[2, 3] = True
    line = mask_outline(mask)
    assert {tuple(point) for point in line} == {(3, 2), (4, 2), (4, 3), (3, 3)} and len(line) == 5
    assert line[0].tolist() == line[-1].tolist()


def test_a_mask_of_the_whole_film_reaches_columns_and_rows():
    line = mask_outline(np.ones((5, 7), bool))
    np.testing.assert_array_equal([line.min(0), line.max(0)], [[0, 0], [7, 5]])


@pytest.mark.parametrize('seed', range(40))
def test_pieces_holes_and_touching_corners_are_enclosed_exactly(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 14, 2)) < rng.random()
    mask.flat[rng.integers(mask.size)] = True
    line = mask_outline(mask)
    np.testing.assert_array_equal(line[0], line[-1])
    np.testing.assert_array_equal(inside(line, mask.shape), mask)
    (x1, y1), (x2, y2) = line[:-1].T, line[1:].T
    assert abs(np.sum(x1 * y2 - x2 * y1)) / 2 == pytest.approx(mask.sum())     # cuts enclose nothing


def test_points_stand_only_where_the_line_turns():
    mask = np.zeros((50, 60), bool)
    mask[5:45, 10:50] = True
    mask[20:30, 20:30] = False
    assert sorted(map(len, edge_rings(mask))) == [4, 4]


def test_a_line_of_too_many_points_becomes_coarser_but_stays_close():
    y, x = np.mgrid[:400, :400]
    disc = np.hypot(x - 200, y - 190) < 150
    exact, coarse = mask_outline(disc), mask_outline(disc, most=100)
    assert len(exact) > 100 >= len(coarse) > 10
    wrong = inside(coarse, disc.shape) != disc
    assert wrong.sum() < 0.01 * disc.sum()
    assert np.abs(np.hypot(*(np.argwhere(wrong)[:, ::-1] - [200, 190]).T) - 150).max() < 2


def test_where_no_line_is_short_enough_the_box_of_the_mask_remains():
    mask = np.zeros((40, 50), bool)
    mask[4:37:2, 3:48:2] = True
    line = mask_outline(mask, most=20)
    np.testing.assert_array_equal([line.min(0), line.max(0)], [[3, 4], [48, 37]])
    assert len(line) == 5


def test_boxes_keep_their_fractions_and_are_cut_to_the_film():
    line = box_outline((-3.5, 10.25, 20.5, 99), (50, 60))
    np.testing.assert_array_equal(line, [[0, 10.25], [20.5, 10.25], [20.5, 50], [0, 50], [0, 10.25]])
