import numpy as np
import pytest

from benchmarks.false_nodules import NONE, false_positives, shares
from tests.benchmarks.test_nodules_by import result, truth


def test_the_best_scoring_wrong_detections_are_taken_up_to_one_a_film():
    results = [result(0, 0.9, hit=True), result(0, 0.8, hit=True),       # the second of a nodule is neither
               *(result(3, 0.7 - i / 100, hit=False) for i in range(3)), result(1, 0.2, hit=False),
               result(2, 0.1, hit=False)]
    assert false_positives(truth(), results) == [(3, 85.0, 85.0)] * 3 + [(1, 85.0, 85.0)]


def test_points_lie_in_the_masks_of_their_own_image():
    square = lambda x, y, side: [[x, y, x + side, y, x + side, y + side, x, y + side]]
    document = dict(
        images=[dict(id=i, width=100, height=60) for i in (7, 8)],
        categories=[dict(id=1, name='Nodule'), dict(id=2, name='Lung'), dict(id=3, name='Heart')],
        annotations=[dict(image_id=7, category_id=1, bbox=[0, 0, 100, 60]),
                     dict(image_id=7, category_id=2, segmentation=square(10, 10, 30)),
                     dict(image_id=7, category_id=2, segmentation=square(60, 10, 30)),
                     dict(image_id=8, category_id=3, segmentation=square(20, 20, 30))])
    points = [(7, 20.0, 20.0), (7, 70.5, 30.0), (7, 50.0, 20.0), (8, 20.0, 15.0), (8, 99.9, 60.0)]
    assert shares(points, document) == pytest.approx({'Lung': 0.4, 'Heart': 0.0, NONE: 0.6})
    both = document | dict(annotations=[a | dict(image_id=7) for a in document['annotations']])
    np.testing.assert_allclose(list(shares(points[:1], both).values()), [1, 1, 0])
