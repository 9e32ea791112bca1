"""Nodules and structures among the metrics of an evaluation, where the data set allows them."""
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from relnet_jax.compare import compare
from relnet_jax.evaluation import report
from tests.evaluation.made import coco, thing

CLASSES = ['Nodule', 'Left Lung', 'Right Lung', 'Heart']
NODULE, LEFT, RIGHT, HEART = range(1, 5)


def rle(x, y, w, h, side=64):
    mask = np.zeros((side, side), np.uint8)
    mask[y:y + h, x:x + w] = 1
    found = coco_mask.encode(np.asfortranarray(mask))
    return dict(size=found['size'], counts=found['counts'].decode())


def shape(image, category, box, score=None):
    return thing(image, category, box, score, segmentation=rle(*box))


def films(**record):
    return coco([thing(0, NODULE, [10, 10, 10, 10]), thing(1, NODULE, [30, 30, 10, 10]),
                 shape(0, LEFT, [0, 0, 20, 20]), shape(0, RIGHT, [40, 0, 20, 20])], images=4, classes=CLASSES,
                width=64, height=64, **record)


RESULTS = [shape(0, NODULE, [20, 10, 10, 10], 0.9),     # 10 pixels off: outside the radius of 5, within 22 mm
           shape(2, NODULE, [1, 1, 9, 9], 0.8), shape(3, NODULE, [1, 1, 9, 9], 0.7),
           shape(1, NODULE, [31, 30, 10, 10], 0.6),
           shape(0, LEFT, [0, 0, 20, 20], 0.9), shape(0, RIGHT, [40, 0, 20, 10], 0.8),
           shape(0, RIGHT, [40, 0, 20, 20], 0.7)]        # right, but not the best-scoring one


def test_sensitivity_of_nodules_and_jaccard_of_structures_are_metrics():
    found = report.evaluate(films(mm_per_pixel=2), RESULTS, resamples=20)
    assert [found[f'nodule_22mm_{rate}'] for rate in ('0.5', '1', '2', '4')] == [1, 1, 1, 1]    # after 2 wrong in 4
    assert [found[f'nodule_radius_{rate}'] for rate in ('0.5', '1', '2', '4')] == [0, 0.5, 0.5, 0.5]
    assert found['jaccard_Lungs'] == pytest.approx(600 / 800)
    assert 'jaccard_Clavicles' not in found and np.isnan(found['jaccard_Heart'])     # no such class; never annotated
    low, high = found['intervals']['nodule_radius_4']
    assert low <= 0.5 <= high and {*found['intervals']} >= {'nodule_22mm_2', 'jaccard_Lungs'}


@pytest.mark.parametrize('truth, results, lacks', [
    (films(), RESULTS, 'nodule'),                                   # how large a pixel is nobody said
    (films(mm_per_pixel=2), [{k: v for k, v in r.items() if k != 'segmentation'} for r in RESULTS], 'jaccard'),
    (coco([thing(0, 1, [1, 1, 9, 9])], images=1, classes=['Mass'], mm_per_pixel=1), [], 'nodule')])
def test_what_the_data_do_not_allow_is_left_out(truth, results, lacks):
    assert not [name for name in report.evaluate(truth, results) if name.startswith(lacks)]


def test_comparisons_have_them_too():
    found = compare(films(mm_per_pixel=2), RESULTS, RESULTS[3:], resamples=20)
    assert found['nodule_radius_0.5']['difference'] == 0.5 and found['jaccard_Lungs']['difference'] == 0
