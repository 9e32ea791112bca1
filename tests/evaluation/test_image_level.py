import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from relnet_jax.evaluation import bootstrap, image_level, measures
from relnet_jax.evaluation.voc import voc_metrics
from tests.evaluation.made import coco, film_set, thing


def test_a_film_has_the_score_of_its_best_detection_and_0_without():
    truth = coco([thing(1, 2, [0, 0, 5, 5])], images=3, classes='ab')
    films = image_level.films(truth, [thing(0, 1, [0, 0, 5, 5], 0.2), thing(0, 1, [9, 9, 5, 5], 0.7),
                                      thing(2, 2, [0, 0, 5, 5], 0.4)])
    assert films.scores.tolist() == [[0.7, 0, 0], [0, 0, 0.4]] and films.any_score.tolist() == [0.7, 0, 0.4]
    assert films.shown.tolist() == [[False] * 3, [False, True, False]]
    assert films.any_shown.tolist() == [False, True, False]


@pytest.mark.parametrize('levels', [4, 1000])
def test_auc_is_the_rank_statistic_of_mann_and_whitney_also_with_ties_and_repeats(levels):
    rng = np.random.default_rng(levels)
    score, shown = rng.integers(0, levels, 60) / levels, rng.random(60) < 0.4
    weights = rng.integers(0, 4, (5, 60))
    expected = [mannwhitneyu(np.repeat(score, w)[np.repeat(shown, w)], np.repeat(score, w)[~np.repeat(shown, w)])
                .statistic / (w[shown].sum() * w[~shown].sum()) for w in weights]
    assert image_level.auc(score, shown, weights.astype(float)) == pytest.approx(expected, abs=1e-12)


def test_auc_of_one_kind_of_films_is_undefined():
    once = np.ones((1, 3))
    assert np.isnan(image_level.auc(np.arange(3.0), np.ones(3, bool), once))
    assert np.isnan(image_level.auc(np.zeros(0), np.zeros(0, bool), np.ones((1, 0))))


def test_the_roc_curve_has_a_point_for_each_score_and_the_area_of_the_auc():
    score, shown = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    rate, sensitivity, at = image_level.roc(score, shown)
    assert rate.tolist() == [0, 0, 0.5, 1] and sensitivity.tolist() == [0, 0.5, 1, 1]
    assert at.tolist() == [np.inf, 0.9, 0.5, 0.1]
    area = (np.diff(rate) * (sensitivity[1:] + sensitivity[:-1]) / 2).sum()
    assert area == image_level.auc(score, shown, np.ones((1, 4)))[0] == 0.875


def test_no_finding_is_a_class_as_in_the_vindr_competition():
    """There a film without findings is annotated, and detected, as a box of one pixel of a class of its own."""
    truth, results = film_set(3, 20, 0.3)
    for image in (3, 8, 11, 19):
        truth['annotations'] = [a for a in truth['annotations'] if a['image_id'] != image]
    found = bootstrap.means(measures.of_boxes(truth, results)(np.ones((1, 20))))
    best = {i: max([r['score'] for r in results if r['image_id'] == i], default=0) for i in range(20)}
    empty = set(range(20)) - {a['image_id'] for a in truth['annotations']}
    with_class = dict(truth, categories=[*truth['categories'], dict(id=14, name='No finding')],
                      annotations=truth['annotations'] + [thing(i, 14, [0, 0, 1, 1]) for i in empty])
    results = results + [thing(i, 14, [0, 0, 1, 1], 1 - s) for i, s in best.items()]
    ious = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
    expected = voc_metrics(with_class, results, iou_thresholds=ious)
    assert found['voc_AP_0.40_no_finding'] == pytest.approx(expected[0.4]['mAP'], abs=1e-12)
    assert found['voc_AP_0.40_0.75_no_finding'] == pytest.approx(np.mean([v['mAP'] for v in expected.values()]))
    without = voc_metrics(truth, [r for r in results if r['category_id'] != 14], iou_thresholds=ious)
    assert found['voc_AP_0.40_0.75'] == pytest.approx(np.mean([v['mAP'] for v in without.values()]))
    assert found['voc_AP_0.40'] == pytest.approx(without[0.4]['mAP'])


def test_findings_are_told_from_none_by_the_best_score_of_any_class():
    truth = coco([thing(0, 1, [0, 0, 9, 9]), thing(1, 2, [0, 0, 9, 9])], images=4, classes='ab')
    results = [thing(0, 2, [50, 50, 9, 9], 0.9), thing(1, 2, [0, 0, 9, 9], 0.3), thing(2, 1, [0, 0, 9, 9], 0.5)]
    found = measures.of_boxes(truth, results)(np.ones((1, 4)))
    assert found['no_finding_AUC'] == [0.75]        # of the four pairs only (0.3, 0.5) is in the wrong order
    assert found['image_AUC'][:, 0] == pytest.approx([(0.5 + 0 + 0.5) / 3, (0 + 1 + 1) / 3])
