"""The masks of benchmarks/true_boxes.py."""
import numpy as np

from benchmarks.true_boxes import masks_in_true_boxes
from tests.models.conftest import Detector, make_batch, make_config


def test_masks_are_those_of_the_ground_truths():
    tiny, batch = Detector(make_config()), make_batch()
    found = masks_in_true_boxes(tiny.model)(tiny.params, batch)
    np.testing.assert_array_equal(found.boxes, batch.gt_boxes)
    np.testing.assert_array_equal(found.valid, batch.gt_valid)
    assert found.masks.shape == (2, 4, 28, 28) and 0 < np.min(found.masks) < np.max(found.masks) < 1
    other = batch._replace(gt_boxes=batch.gt_boxes + 9.0)
    assert not np.allclose(found.masks[:, :3], masks_in_true_boxes(tiny.model)(tiny.params, other).masks[:, :3])
