"""Counts under weights of the images are those of the data set in which each image comes that often."""
import json

import numpy as np
import pytest

from relnet_jax.evaluation import bootstrap, measures
from relnet_jax.evaluation.coco import coco_evaluation, coco_metrics, rankings
from relnet_jax.evaluation.ranking import Ranked, average_precision, average_precision_101, counts, sensitivity
from relnet_jax.evaluation.voc import voc_metrics
from tests.evaluation.made import film_set, repeated


def ranking(text, *, images=None, objects):
    """'+' right, '-' wrong, '.' not counted, best first; all in image 0 unless said."""
    marks = np.array(list(text))
    return Ranked(np.array(images or [0] * len(marks), int), -np.arange(len(marks), dtype=float), marks == '+',
                  marks == '-', np.array(objects, float))


def test_area_under_all_points_and_at_101_recalls_by_hand():
    # precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1; COCO's recalls: 51 up to 1/2, 50 above
    c = counts(ranking('+-+', objects=[2]), np.ones((1, 1)))
    assert average_precision(c) == pytest.approx([5 / 6])
    assert average_precision_101(c) == pytest.approx([(51 + 50 * 2 / 3) / 101])
    assert average_precision(counts(ranking('+-.+', objects=[2]), np.ones((1, 1)))) == pytest.approx([5 / 6])
    assert average_precision(counts(ranking('', objects=[3]), np.ones((1, 1)))) == [0]
    nothing = counts(ranking('-', objects=[0]), np.ones((1, 1)))
    assert np.isnan(average_precision(nothing)) and np.isnan(average_precision_101(nothing))


def test_sensitivity_is_a_step_at_each_false_positive():
    c, films = counts(ranking('+-+--+', objects=[4, 0]), np.ones((1, 2))), np.array([2.0])
    at = {rate: float(sensitivity(c, films, rate)[0]) for rate in (0, 0.49, 0.5, 1.4, 1.5, 9)}
    assert at == {0: 0.25, 0.49: 0.25, 0.5: 0.5, 1.4: 0.5, 1.5: 0.75, 9: 0.75}
    assert sensitivity(c, films, 0.5, below=True) == [0.25]      # up to the false positive that reaches the rate
    assert np.isnan(sensitivity(c, np.zeros(1), 0.5))


@pytest.mark.parametrize('seed', range(4))
def test_weights_equal_a_data_set_in_which_images_come_several_times(seed):
    truth, results = film_set(seed, 12, 0.7)
    weights = np.stack([np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12)) for _ in range(3)])
    evaluation = coco_evaluation(truth, results, 'bbox')
    values = bootstrap.means(measures.of_coco(rankings(evaluation, truth), 'box')(weights))
    values |= bootstrap.means(measures.of_boxes(truth, results)(weights))
    for i, drawn in enumerate(weights):
        other, found = repeated(truth, results, drawn)
        coco = coco_metrics(other, found, 'bbox')
        voc = voc_metrics(other, found, iou_thresholds=(0.01, 0.4, 0.5))
        for name in ('AP', 'AP50', 'AP75'):
            assert values[f'box_{name}'][i] == pytest.approx(coco[name], abs=1e-12)
        for t in (0.01, 0.4, 0.5):
            assert values[f'voc_AP_{t:.2f}'][i] == pytest.approx(voc[t]['mAP'], abs=1e-12)
        alone = bootstrap.means(measures.of_boxes(other, found)(np.ones((1, 12))))
        assert {name: v[i] for name, v in values.items() if name in alone} == pytest.approx(
            {name: v[0] for name, v in alone.items()}, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_weights_of_one_are_the_known_answers_of_pycocotools(real_data, iou_type):
    folder = real_data / 'eval_known_answers' / 'coco_val2014_100'
    truth = json.loads((folder / 'instances_val2014_100.json').read_text())
    results = json.loads((folder / f'instances_val2014_fake{iou_type}100_results.json').read_text())
    expected = json.loads((folder / 'expected_pycocotools.json').read_text())
    measure = measures.of_coco(rankings(coco_evaluation(truth, results, iou_type), truth), 'x')
    found = bootstrap.means(measure(np.ones((1, 100))))
    for name in ('AP', 'AP50', 'AP75'):
        assert found[f'x_{name}'] == pytest.approx(expected[iou_type][expected['order'].index(name)], abs=1e-9)
