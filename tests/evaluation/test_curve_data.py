import json
import math

import numpy as np
import pytest

from relnet_jax import files
from relnet_jax.evaluation import curve_data, report
from relnet_jax.runs.operating_points import OperatingPoints
from tests.evaluation.made import coco, film_set, thing


def test_curves_belong_to_the_metrics_and_are_plain_json():
    truth, results = film_set(1, 30, 0.5)
    points = OperatingPoints({'1': 0.5, '2': 0.6}, 2.0, 0.2, 'made')
    metrics = report.evaluate(truth, results, points=points)
    found = curve_data.curves(truth, results, points=points)
    assert json.loads(files.to_json(found))['iou'] == 0.5
    for name, of_class in metrics['per_class'].items():
        assert found['precision_recall'][name]['AP'] == of_class['voc_AP_0.50']
        assert found['roc'][name]['AUC'] == of_class['image_AUC']
        rates, sensitivity = (np.array(found['froc'][name][key]) for key in ('fp_per_film', 'sensitivity'))
        at = [sensitivity[rates <= rate].max(initial=0) for rate in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)]
        assert np.mean(at) == pytest.approx(of_class['froc_mean'])
    mean = dict(zip(found['froc_mean']['fp_per_film'], found['froc_mean']['all_films']))
    assert all(mean[rate] == pytest.approx(metrics[f'froc_{rate:g}']) for rate in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8))
    assert found['roc'][curve_data.ANY_FINDING]['AUC'] == metrics['no_finding_AUC']
    assert found['reliability']['ECE'] == metrics['ECE'] and found['calibrated']['ECE'] == metrics['ECE_calibrated']
    table = found['operating'].values()
    assert sum(row['fp_per_film'] for row in table) == pytest.approx(metrics['operating_fp_per_film'])
    assert np.mean([row['sensitivity'] for row in table]) == pytest.approx(metrics['operating_sensitivity'])
    assert found['thresholds'] == points.thresholds
    assert sum(map(sum, found['confusion']['counts'][:2])) == len(truth['annotations'])
    assert sum(found['scores']['right']) + sum(found['scores']['wrong']) == len(results)


def test_without_operating_points_and_without_normal_films():
    truth = coco([thing(0, 1, [0, 0, 9, 9])], images=1, classes='ab')
    found = curve_data.curves(truth, [thing(0, 1, [0, 0, 9, 9], 0.9), thing(0, 2, [0, 0, 9, 9], 0.2)])
    assert found['operating'] is None and found['calibrated'] is None and found['thresholds'] == dict(a=0.3, b=0.3)
    assert list(found['precision_recall']) == list(found['froc']) == ['a'] and found['roc'] == {}
    assert set(found['froc_mean']['all_films']) == {1.0} and math.isnan(found['froc_mean']['normal_films'][0])
    assert found['failures']['detections']['hit'] == 1 and found['failures']['detections']['wrong class'] == 0


def test_long_curves_are_thinned_to_their_ends_and_points_between():
    x = np.arange(10_000.0)
    a, b = curve_data.thin(x, -x)
    assert len(a) == 200 and a[0] == 0 and a[-1] == 9999 and b == [-v for v in a]
    assert curve_data.thin(x[:3]) == [[0, 1, 2]] and curve_data.thin(x[:0]) == [[]]
