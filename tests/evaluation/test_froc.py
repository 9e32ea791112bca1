import numpy as np
import pytest

from relnet_jax.evaluation import measures
from relnet_jax.evaluation.froc import RATES, chestx_det10_recall, froc, normal_films
from relnet_jax.evaluation.matching import by_overlap, ranked
from relnet_jax.evaluation.ranking import counts
from tests.evaluation.made import coco, film_set, thing

FAR = [100, 100, 10, 10]


def case(found, *, images=4, objects=((0, [0, 0, 10, 10]), (1, [0, 0, 10, 10]))):
    """The ranking of one class with these objects at IoU 0.5."""
    truth = coco([thing(image, 1, box) for image, box in objects], images=images)
    return ranked(by_overlap(truth, found)['a'], 0.5), truth


def test_sensitivity_at_each_rate_counted_by_hand():
    # four films; by score: hit, false, false, hit: up to 1/4 false positive a film half is found, from 1/2 on all
    r, _ = case([thing(0, 1, [0, 0, 10, 10], 0.9), thing(2, 1, FAR, 0.8), thing(0, 1, FAR, 0.7),
                 thing(1, 1, [0, 0, 10, 10], 0.6)])
    found = froc(r, np.ones((1, 4)))[:, 0]
    assert dict(zip(RATES, found)) == {0.125: 0.5, 0.25: 0.5, 0.5: 1, 1: 1, 2: 1, 4: 1, 8: 1}


def test_films_without_findings_can_be_the_denominator():
    # of the two false positives one lies in the two films without a finding: 1/2 a film, not 2/4
    r, truth = case([thing(0, 1, FAR, 0.9), thing(2, 1, FAR, 0.8), thing(1, 1, [0, 0, 10, 10], 0.6)])
    normal = normal_films(truth)
    assert normal.tolist() == [False, False, True, True]
    once = np.ones((1, 4))
    assert froc(r, once, rates=(0.25, 0.49, 0.5))[:, 0].tolist() == [0, 0, 0.5]
    assert froc(r, once, rates=(0.25, 0.49, 0.5), normal=normal)[:, 0].tolist() == [0, 0, 0.5]
    assert froc(r, once, rates=(0.25, 0.5), normal=np.array([False, True, True, True]))[:, 0].tolist() == [0, 0.5]
    assert np.isnan(froc(r, once, normal=np.zeros(4, bool))).all()


def test_a_repeated_hit_is_false_unless_it_is_ignored():
    found = [thing(0, 1, [0, 0, 10, 10], 0.9), thing(0, 1, [0, 0, 10, 9], 0.8), thing(1, 1, [0, 0, 10, 10], 0.7)]
    truth = coco([thing(i, 1, [0, 0, 10, 10]) for i in (0, 1)], images=4)
    looks = by_overlap(truth, found)['a']
    assert froc(ranked(looks, 0.5), np.ones((1, 4)), rates=(0.1,))[0] == [0.5]
    assert froc(ranked(looks, 0.5, duplicates='ignored'), np.ones((1, 4)), rates=(0.1,))[0] == [1]


# What eval.py of Deepwise-AILab/ChestX-Det10-Dataset (commit 83ea6fe) gives for `film_set`: recall of two classes.
ORGANISERS = {
    (1, 30, 0.5): [[0.041666666666666664, 0.08333333333333333, 0.20833333333333334], [0.08, 0.08, 0.12]],
    (4, 20, 0.02): [[0.07407407407407407, 0.18518518518518517, 0.4444444444444444], [0.08, 0.2, 0.44]],
    (5, 30, 0.02): [[0.32142857142857145, 0.39285714285714285, 0.42857142857142855],
                    [0.2857142857142857, 0.2857142857142857, 0.47619047619047616]],
    (12, 20, 0.1): [[0.043478260869565216, 0.13043478260869565, 0.391304347826087],
                    [0.043478260869565216, 0.08695652173913043, 0.43478260869565216]]}


@pytest.mark.parametrize('seed, count, false', ORGANISERS)
def test_recall_is_that_of_chestx_det10_s_organisers(seed, count, false):
    truth, results = film_set(seed, count, false)
    found = measures.of_boxes(truth, results)(np.ones((1, count)))
    recall = np.stack([found[f'chestx_det10_recall_{rate}'][:, 0] for rate in ('0.05', '0.10', '0.20')], 1)
    np.testing.assert_allclose(recall, ORGANISERS[seed, count, false], atol=1e-6)
    np.testing.assert_allclose(found['chestx_det10_recall_mean'][:, 0], recall.mean(1))


def test_their_recall_beyond_the_last_false_positive_is_what_was_found_before_it():
    hits = [thing(0, 1, [0, 0, 10, 10], 0.9), thing(1, 1, [0, 0, 10, 10], 0.7)]
    r, _ = case([*hits, thing(2, 1, FAR, 0.8)], images=10)
    assert chestx_det10_recall(counts(r, np.ones((1, 10))), np.array([10.0]))[:, 0].tolist() == [0.5, 0.5, 0.5]
    r, _ = case(hits, images=10)
    assert chestx_det10_recall(counts(r, np.ones((1, 10))), np.array([10.0]))[:, 0].tolist() == [1, 1, 1]


def test_the_lab_s_recall_is_read_where_the_false_positives_reach_a_fifth():
    # ten films: the second false positive reaches 0.2, the hit behind it comes too late
    hits = [thing(0, 1, [0, 0, 10, 10], 0.9), thing(1, 1, [0, 0, 10, 10], 0.5)]
    false = [thing(2, 1, FAR, 0.8), thing(3, 1, FAR, 0.7)]
    truth = coco([thing(i, 1, [0, 0, 10, 10]) for i in (0, 1)], images=10)
    for results, recall in ((hits + false, 0.5), (hits + false[:1], 1.0)):
        assert measures.of_boxes(truth, results)(np.ones((1, 10)))['lab_recall_0.20'][0, 0] == recall
