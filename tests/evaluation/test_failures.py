import numpy as np
import pytest

from relnet_jax.evaluation.failures import confusion, failures
from relnet_jax.evaluation.matching import by_overlap, ranked
from tests.evaluation.made import coco, film_set, thing

BOX = [0, 0, 100, 100]
NEAR, HALF, FAR = [0, 0, 100, 90], [0, 0, 100, 30], [500, 500, 100, 100]      # IoU 0.9, 0.3 and 0 with BOX


def judge(annotations, results, *, images=1, thresholds=0.0):
    truth = coco(annotations, images=images, classes='abc')
    return failures(truth, results, thresholds, convention='continuous'), truth


@pytest.mark.parametrize('box, category, reason, of_truth', [
    (NEAR, 1, 'hit', 'hit'), (HALF, 1, 'poor box', 'poor box'), (NEAR, 2, 'wrong class', 'wrong class'),
    (HALF, 2, 'wrong class, poor box', 'missed'), (FAR, 1, 'background', 'missed'),
    ([0, 0, 100, 10], 1, 'background', 'missed')])     # an overlap of 0.1 is still none
def test_one_detection_of_one_object(box, category, reason, of_truth):
    found, _ = judge([thing(0, 1, BOX)], [thing(0, category, box, 0.9)])
    assert found.detections == {0: reason} and found.truth == [of_truth]
    assert found.objects == ({} if reason == 'background' else {0: 0})


def test_the_best_hit_counts_and_the_others_are_duplicates():
    found, _ = judge([thing(0, 1, BOX)], [thing(0, 1, BOX, 0.4), thing(0, 1, NEAR, 0.8)])
    assert found.detections == {1: 'hit', 0: 'duplicate'} and found.truth == ['hit'] and found.taken_for == [1]


def test_a_poor_box_goes_before_a_wrong_class_and_that_before_a_duplicate():
    two = [thing(0, 1, BOX), thing(0, 2, HALF)]
    assert judge(two, [thing(0, 1, HALF, 0.9)])[0].detections == {0: 'poor box'}     # IoU 1 with b, 0.3 with its own
    both = [thing(0, 1, BOX), thing(0, 2, NEAR)]
    found, _ = judge(both, [thing(0, 1, BOX, 0.9), thing(0, 1, NEAR, 0.5)])
    assert found.detections == {0: 'hit', 1: 'wrong class'} and found.truth == ['hit', 'wrong class']


def test_an_object_that_was_hit_stays_hit_and_one_that_was_not_has_the_worse_reason():
    found, _ = judge([thing(0, 1, BOX)], [thing(0, 1, NEAR, 0.3), thing(0, 2, BOX, 0.9), thing(0, 1, HALF, 0.8)])
    assert found.truth == ['hit'] and found.detections == {0: 'hit', 1: 'wrong class', 2: 'poor box'}
    found, _ = judge([thing(0, 1, BOX)], [thing(0, 1, HALF, 0.9), thing(0, 2, BOX, 0.3)])
    assert found.truth == ['wrong class'] and found.taken_for == [1]


def test_other_images_and_weak_detections_do_not_count():
    results = [thing(1, 1, BOX, 0.9), thing(0, 1, BOX, 0.2)]
    found, _ = judge([thing(0, 1, BOX)], results, images=2, thresholds=0.5)
    assert found.detections == {0: 'background'} and found.truth == ['missed']
    found, _ = judge([thing(0, 1, BOX)], results, images=2, thresholds={'a': 0.2, 'b': 1})
    assert found.detections == {0: 'background', 1: 'hit'}


def test_crowds_and_what_overlaps_them_are_not_counted():
    annotations = [thing(0, 1, BOX, iscrowd=1)]
    found, truth = judge(annotations, [thing(0, 1, NEAR, 0.9), thing(0, 2, NEAR, 0.8), thing(0, 1, FAR, 0.7)])
    assert found.truth == ['not counted']
    assert found.detections == {0: 'not counted', 1: 'not counted', 2: 'background'}
    assert confusion(truth, [thing(0, 1, BOX, 0.9)] * 3, found)[1].sum() == 1


def test_counts_name_every_reason_and_add_up():
    truth, results = film_set(2, 20, 0.5)
    found = failures(truth, results, 0.2)
    assert sum(found.counts['truth'].values()) == len(truth['annotations'])
    assert sum(found.counts['detections'].values()) == sum(r['score'] >= 0.2 for r in results)
    assert found.counts['truth']['hit'] == found.counts['detections']['hit'] > 0


def test_hits_are_the_true_positives_of_voc():
    truth, results = film_set(7, 40, 0.5)
    found = failures(truth, results, 0.0)
    expected = {row for looks in by_overlap(truth, results).values()
                for row in looks.found.row[ranked(looks, 0.5).right].tolist()}
    assert {row for row, reason in found.detections.items() if reason == 'hit'} == expected


def test_which_findings_are_taken_for_which():
    annotations = [thing(0, 1, BOX), thing(0, 2, FAR), thing(1, 1, BOX), thing(2, 3, BOX), thing(3, 3, BOX)]
    results = [thing(0, 1, BOX, 0.9), thing(0, 1, FAR, 0.8), thing(1, 1, HALF, 0.7), thing(2, 3, NEAR, 0.6),
               thing(2, 3, BOX, 0.5), thing(3, 2, FAR, 0.4), thing(3, 1, BOX, 0.3), thing(3, 2, BOX, 0.2)]
    found, truth = judge(annotations, results, images=4)
    names, matrix = confusion(truth, results, found)
    assert names == ['a', 'b', 'c']
    assert matrix.tolist() == [[1, 0, 0, 1],        # one a found, one not: its box is poor
                               [1, 0, 0, 0],        # b was taken for an a
                               [1, 0, 1, 0],        # c found, and taken for the best of two wrong classes
                               [1, 2, 0, 0]]        # nothing there: the poor box, two of b; the duplicate is left out
    assert matrix[:3].sum() == len(annotations)


def test_nothing_found_and_nothing_there():
    found, truth = judge([thing(0, 1, BOX)], [])
    assert found.truth == ['missed'] and found.detections == {}
    found, truth = judge([], [thing(0, 1, BOX, 0.5)])
    assert found.truth == [] and found.detections == {0: 'background'}
    assert np.array_equal(confusion(truth, [thing(0, 1, BOX, 0.5)], found)[1][3], [1, 0, 0, 0])
