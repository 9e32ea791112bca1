import numpy as np
import pytest

from relnet_jax.evaluation import measures, operating
from relnet_jax.runs.operating_points import OperatingPoints
from tests.evaluation.made import coco, film_set, thing

BOX, TOUCHES, FAR = [0, 0, 10, 10], [8, 8, 10, 10], [60, 60, 10, 10]


def test_any_overlap_is_a_hit_and_one_detection_may_hit_several_objects():
    truth = coco([thing(0, 1, BOX), thing(0, 1, [10, 10, 10, 10]), thing(0, 1, FAR)], images=2)
    results = [thing(0, 1, TOUCHES, 0.9), thing(0, 1, BOX, 0.4), thing(1, 1, BOX, 0.6)]
    r = operating.hits(truth, results)['a']
    assert r.score.tolist() == [0.9, 0.9, 0.6] and r.right.tolist() == [True, True, False]
    at = operating.at_threshold(r, 0.5, np.ones((1, 2)))
    assert at.sensitivity == pytest.approx([2 / 3]) and at.fp_per_film == [0.5]
    strict = operating.hits(truth, results, iou=0.6)['a']        # now only BOX is one, and what merely touches is false
    assert strict.score[strict.right].tolist() == [0.4] and strict.score[strict.wrong].tolist() == [0.9, 0.6]


def test_a_box_of_two_classes_keeps_the_better_one():
    truth = coco([thing(0, 1, BOX), thing(0, 2, BOX)], images=1, classes='abc')
    results = [thing(0, 2, BOX, 0.8), thing(0, 1, BOX, 0.7), thing(0, 1, TOUCHES, 0.6), thing(0, 3, [0, 0, 10, 5], 0.5)]
    kept = operating.best_classes(truth, results)
    assert [(r['category_id'], r['score']) for r in kept] == [(2, 0.8), (1, 0.6), (3, 0.5)]
    assert operating.best_classes(truth, []) == []


def test_crowds_and_difficult_objects_count_neither_way():
    truth = coco([thing(0, 1, BOX, iscrowd=1), thing(0, 1, FAR, difficult=1), thing(1, 1, BOX)], images=2)
    r = operating.hits(truth, [thing(0, 1, TOUCHES, 0.9), thing(0, 1, FAR, 0.8), thing(1, 1, BOX, 0.7)])['a']
    assert r.score.tolist() == [0.7] and r.right.all() and r.objects.tolist() == [0, 1]


def test_the_threshold_lies_between_the_false_positive_too_many_and_what_ranks_above():
    # ten films, 0.2 wanted: two false positives stay, the third, 0.5, goes; above it ranks a hit of 0.56
    false = [thing(i, 1, FAR, s) for i, s in ((1, 0.9), (2, 0.8), (3, 0.5), (4, 0.4))]
    truth = coco([thing(0, 1, BOX)], images=10)
    r = operating.hits(truth, [*false, thing(0, 1, BOX, 0.56)])['a']
    assert operating.threshold(r, 0.2) == pytest.approx(0.53)
    assert operating.threshold(r, 0.4) == 0 and operating.threshold(r, 0.39) == pytest.approx(0.45)
    assert operating.threshold(r, 0.0) == pytest.approx((0.9 + 1) / 2)


def test_equal_scores_go_together():
    false = [thing(i, 1, FAR, 0.5) for i in range(3)]
    r = operating.hits(coco([thing(0, 1, BOX)], images=10), [*false, thing(9, 1, FAR, 0.7)])['a']
    assert operating.threshold(r, 0.2) == pytest.approx(0.6)


@pytest.mark.parametrize('wanted', [0.1, 0.3, 1.0])
def test_the_wanted_rate_is_kept_where_it_was_chosen_and_one_more_would_break_it(wanted):
    truth, results = film_set(5, 30, 1.0)
    points = operating.choose(truth, results, fp_per_film=wanted, data_set='made')
    assert points.fp_per_film == wanted and points.data_set == 'made' and 0.05 <= points.temperature <= 20
    for name, r in operating.hits(truth, results).items():
        rate = operating.at_threshold(r, points.thresholds[name], np.ones((1, 30))).fp_per_film[0]
        assert rate <= wanted
        below = r.score[r.score < points.thresholds[name]]
        assert not len(below) or operating.at_threshold(r, below[0], np.ones((1, 30))).fp_per_film[0] > wanted


def test_measured_at_points_chosen_elsewhere():
    truth = coco([thing(0, 1, BOX), thing(1, 1, BOX), thing(1, 2, BOX)], images=4, classes='ab')
    results = [thing(0, 1, BOX, 0.9), thing(1, 1, BOX, 0.2), thing(2, 1, FAR, 0.8), thing(1, 2, FAR, 0.1),
               thing(1, 2, TOUCHES, 0.3)]
    points = OperatingPoints({'a': 0.5}, 2.0, 0.2, 'elsewhere')      # b, unknown there, is shown whatever its score
    found = measures.of_boxes(truth, results, points=points)(np.ones((1, 4)))
    assert found['operating_sensitivity'][:, 0].tolist() == [0.5, 1.0]
    assert found['operating_fp_per_film'] == [0.5]       # 0.8 of a and 0.1 of b, in four films
    assert found['ECE_calibrated'][0] != found['ECE'][0]
    assert 'operating_sensitivity' not in measures.of_boxes(truth, results)(np.ones((1, 4)))
