import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.ops.matching import match


@pytest.mark.parametrize('high, low, low_quality', [(0.7, 0.3, True), (0.5, 0.5, False)])
def test_matches_torchvision(golden, high, low, low_quality):
    expected = golden[f'matcher/{high}_{low}_lowquality{int(low_quality)}']  # index, -1 below, -2 between
    iou = golden['matcher/iou'][None]
    matched, label = match(iou, jnp.ones((1, len(iou[0])), bool), high=high, low=low, allow_low_quality=low_quality)
    np.testing.assert_array_equal(label[0], np.where(expected >= 0, 1, np.where(expected == -1, 0, -1)))
    np.testing.assert_array_equal(matched[0][expected >= 0], expected[expected >= 0])
    assert matched.dtype == jnp.int32 and label.dtype == jnp.int8


def test_thresholds_are_inclusive_above_and_exclusive_below():
    iou = jnp.array([[[0.75, 0.74, 0.25, 0.24]]])
    _, label = match(iou, jnp.ones((1, 1), bool), high=0.75, low=0.25, allow_low_quality=False)
    np.testing.assert_array_equal(label[0], [1, -1, -1, 0])


def test_all_best_boxes_of_a_ground_truth_become_positive_and_keep_their_own_match():
    iou = jnp.array([[[0.2, 0.2, 0.1, 0.0],      # boxes 0 and 1 tie for ground truth 0
                      [0.0, 0.6, 0.8, 0.0]]])
    matched, label = match(iou, jnp.ones((1, 2), bool), high=0.7, low=0.3, allow_low_quality=True)
    np.testing.assert_array_equal(label[0], [1, 1, 1, 0])
    np.testing.assert_array_equal(matched[0, :3], [0, 1, 1])


def test_a_ground_truth_that_overlaps_nothing_makes_nothing_positive():
    iou = jnp.array([[[0.0, 0.0, 0.0], [0.1, 0.4, 0.0]]])
    _, label = match(iou, jnp.ones((1, 2), bool), high=0.7, low=0.3, allow_low_quality=True)
    np.testing.assert_array_equal(label[0], [0, 1, 0])


def test_images_without_ground_truth_are_all_negative():
    for iou, valid in ((jnp.ones((2, 3, 5)), jnp.zeros((2, 3), bool)), (jnp.ones((2, 0, 5)), jnp.zeros((2, 0), bool))):
        matched, label = match(iou, valid, high=0.7, low=0.3, allow_low_quality=True)
        np.testing.assert_array_equal(label, np.zeros((2, 5)))
        np.testing.assert_array_equal(matched, np.zeros((2, 5)))


def test_padded_ground_truths_change_nothing_and_are_never_matched():
    rng = np.random.default_rng(0)
    iou = rng.random((2, 4, 60)).astype(np.float32)
    options = dict(high=0.8, low=0.6, allow_low_quality=True)
    bare = match(iou, np.ones((2, 4), bool), **options)
    padded = match(np.pad(iou, ((0, 0), (0, 3), (0, 0)), constant_values=1.0),
                   np.pad(np.ones((2, 4), bool), ((0, 0), (0, 3))), **options)
    compiled = jax.jit(lambda i, v: match(i, v, **options))(iou, np.ones((2, 4), bool))
    for a, b, c in zip(bare, padded, compiled):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
