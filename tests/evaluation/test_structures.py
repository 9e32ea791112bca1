import json
import math

import numpy as np
import pytest

from relnet_jax.detector.results import encode_mask
from relnet_jax.evaluation import bootstrap, structures
from tests.evaluation.made import coco, thing

SIZE = dict(height=20, width=30)


def rle(box):
    mask = np.zeros((20, 30), bool)
    x, y, w, h = box
    mask[y:y + h, x:x + w] = True
    return encode_mask(mask)


def marked(image, category, box, score=None):
    return thing(image, category, box, score, segmentation=rle(box))


def test_the_best_detection_of_the_class_counts_and_a_missing_one_is_0():
    truth = coco([marked(i, 1, [0, 0, 10, 10]) for i in (0, 1)] + [marked(2, 2, [0, 0, 5, 5])], images=3, classes='ab',
                 **SIZE)
    results = [marked(0, 1, [0, 0, 10, 10], 0.3), marked(0, 1, [0, 0, 10, 5], 0.6), marked(0, 2, [0, 0, 10, 10], 0.9)]
    found = structures.jaccard(truth, results)
    assert found['a'][:2].tolist() == [0.5, 0] and math.isnan(found['a'][2])
    assert structures.summary(found)['a'] == dict(images=2, mean=0.25, std=0.25)
    assert structures.summary(found)['b'] == dict(images=1, mean=0, std=0)
    assert structures.jaccard(truth, [])['a'][0] == 0


def test_the_pixels_of_both_sides_are_one_structure():
    # left: 100 of 100 pixels; right: 20 of 40 -> (100 + 20) / (100 + 40), not the mean of 1 and 1/2
    truth = coco([marked(0, 1, [0, 0, 10, 10]), marked(0, 2, [15, 0, 10, 4])], images=1, classes='lr', **SIZE)
    results = [marked(0, 1, [0, 0, 10, 10], 0.9), marked(0, 2, [15, 0, 10, 2], 0.9)]
    assert structures.jaccard(truth, results, {'both': ('l', 'r')})['both'] == pytest.approx([120 / 140])
    assert structures.jaccard(truth, results[:1], {'both': ('l', 'r')})['both'] == pytest.approx([100 / 140])


def test_annotations_may_be_polygons_or_plain_runs():
    square = [[0, 0, 10, 0, 10, 10, 0, 10]]
    runs = dict(size=[20, 30], counts=[0] + [10, 10] * 9 + [10, 410])
    for segmentation in (square, runs):
        truth = coco([thing(0, 1, [0, 0, 10, 10], segmentation=segmentation)], images=1, **SIZE)
        assert structures.jaccard(truth, [marked(0, 1, [0, 0, 10, 10], 0.9)])['a'] == [1]


def test_results_without_masks_are_named():
    with pytest.raises(ValueError, match='result 0: has no segmentation'):
        structures.jaccard(coco([], images=1, **SIZE), [thing(0, 1, [0, 0, 1, 1], 0.5)])


def test_means_have_intervals_over_the_films_that_show_the_structure():
    measure = structures.measure_of({'a': np.array([0.5, 1.0, np.nan])})
    assert bootstrap.means(measure(np.array([[1.0, 1, 1], [2, 0, 1], [0, 0, 3]])))['a'][:2].tolist() == [0.75, 0.5]
    assert np.isnan(measure(np.array([[0.0, 0, 3]]))['a'])


def test_the_annotation_itself_is_perfect_on_real_films(real_data):
    truth = json.loads((real_data / 'jsrt' / 'instances.json').read_text())
    kept = {image['id'] for image in truth['images'][:6]}
    truth['images'] = truth['images'][:6]
    truth['annotations'] = [a for a in truth['annotations'] if a['image_id'] in kept]
    results = [thing(a['image_id'], a['category_id'], a['bbox'], 0.5, segmentation=a['segmentation'])
               for a in truth['annotations'] if a.get('segmentation')]
    found = structures.summary(structures.jaccard(truth, results, structures.SCR))
    assert found == {name: dict(images=6, mean=1, std=0) for name in ('Lungs', 'Heart', 'Clavicles')}
    found = structures.summary(structures.jaccard(truth, [r for r in results if r['category_id'] != 2], structures.SCR))
    assert 0.3 < found['Lungs']['mean'] < 0.7 and found['Heart']['mean'] == 1
