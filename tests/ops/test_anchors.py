import numpy as np
import pytest

from relnet_jax.ops.anchors import cell_anchors, pyramid_anchors

RATIOS = (0.5, 1.0, 2.0)


def test_anchors_match_torchvision(golden):
    """P5 of the 256-pixel model: 8 x 8 cells at stride 32, size 256."""
    levels = pyramid_anchors((256, 256), strides=(4, 8, 16, 32, 64), sizes=(32, 64, 128, 256, 512), ratios=RATIOS)
    np.testing.assert_array_equal(levels[3][:64], golden['model/anchors_p5_first64'])
    assert [len(level) for level in levels] == [3 * n * n for n in (64, 32, 16, 8, 4)]
    assert all(level.dtype == np.float32 for level in levels)


def test_order_is_row_column_anchor():
    (level,) = pyramid_anchors((32, 48), strides=(16,), sizes=(32,), ratios=RATIOS)
    grid = level.reshape(2, 3, 3, 4)
    centres = (grid[..., :2] + grid[..., 2:]) / 2
    np.testing.assert_array_equal(centres[:, :, 0, 1], [[0] * 3, [16] * 3])
    np.testing.assert_array_equal(centres[:, :, 0, 0], [[0, 16, 32]] * 2)
    np.testing.assert_array_equal(grid[0, 0], cell_anchors((32,), RATIOS))


def test_several_sizes_share_a_level_ratio_major():
    """The C4 form: six sizes on one map."""
    sizes = (16, 32, 64, 128, 256, 512)
    (level,) = pyramid_anchors((16, 16), strides=(16,), sizes=(sizes,), ratios=RATIOS)
    width, height = level[:, 2] - level[:, 0], level[:, 3] - level[:, 1]
    np.testing.assert_allclose(np.sqrt(width * height), np.tile(sizes, 3), rtol=0.05)
    np.testing.assert_allclose(height / width, np.repeat(RATIOS, 6), rtol=0.12)


def test_canvas_that_is_no_multiple_of_the_stride():
    (level,) = pyramid_anchors((100, 64), strides=(64,), sizes=(32,), ratios=(1.0,))
    np.testing.assert_array_equal(level, [[-16, -16, 16, 16], [-16, 34, 16, 66]])  # two cells, 100 // 2 apart


def test_one_size_entry_for_each_stride():
    with pytest.raises(ValueError, match='expected one entry for each of the 2 strides'):
        pyramid_anchors((64, 64), strides=(4, 8), sizes=(32,), ratios=RATIOS)
