import json

import numpy as np
import pytest

from relnet_jax.errors import UserError
from relnet_jax.evaluation import bootstrap, nodules
from relnet_jax.evaluation.froc import normal_films
from relnet_jax.evaluation.matching import by_distance
from tests.evaluation.made import coco, thing

MM = dict(mm_per_pixel=0.5)


def at(x, y, size=20):
    return [x - size / 2, y - size / 2, size, size]


def test_a_hit_is_a_centre_near_enough_whatever_the_box():
    truth = coco([thing(0, 1, at(100, 100))], images=1, classes=['Nodule'], **MM)
    for x, strict, usual in ((109.9, True, True), (110.1, False, True), (143.9, False, True), (144.1, False, False)):
        results = [thing(0, 1, at(x, 100, 200), 0.9)]
        assert nodules.ranking(truth, results, mm=0).right.tolist() == [strict]
        assert nodules.ranking(truth, results).right.tolist() == [usual]
        assert (by_distance(truth, results, pixels=44)['Nodule'].fit[0] >= 1) == usual


def test_later_hits_of_a_nodule_are_ignored_and_everything_else_is_false():
    truth = coco([thing(0, 1, at(100, 100)), thing(0, 1, at(300, 100))], images=2, classes=['Nodule'], **MM)
    results = [thing(0, 1, at(105, 100), 0.9), thing(0, 1, at(100, 100), 0.8), thing(0, 1, at(100, 300), 0.7),
               thing(1, 1, at(100, 100), 0.6), thing(0, 1, at(300, 101), 0.5)]
    r = nodules.ranking(truth, results)
    assert r.right.tolist() == [True, False, False, False, True]
    assert r.wrong.tolist() == [False, False, True, True, False]
    found = bootstrap.means(nodules.measure_of(r)(np.ones((1, 2))))
    assert {name: float(v[0]) for name, v in found.items()} == {
        'nodules_0.25': 0.5, 'nodules_0.5': 0.5, 'nodules_1': 1, 'nodules_2': 1, 'nodules_4': 1, 'nodules_8': 1,
        'nodules_mean': pytest.approx(5 / 6)}
    normal = nodules.measure_of(r, prefix='n', normal=normal_films(truth))(np.ones((1, 2)))
    assert normal['n_0.5'] == [0.5] and normal['n_1'] == [1]


def test_millimetres_need_the_size_of_a_pixel():
    truth = coco([thing(0, 1, at(100, 100))], images=1, classes=['Nodule'])
    assert nodules.ranking(truth, [thing(0, 1, at(100, 100), 0.9)], mm=0).right.all()
    with pytest.raises(UserError, match='image 0: no mm_per_pixel'):
        nodules.ranking(truth, [])


def test_the_films_of_jsrt(real_data):
    truth = json.loads((real_data / 'jsrt' / 'instances.json').read_text())
    boxes = [a for a in truth['annotations'] if a['category_id'] == 1]
    results = [thing(a['image_id'], 1, [a['bbox'][0] + 40, *a['bbox'][1:]], 0.5) for a in boxes]     # 14 mm aside
    once = np.ones((1, 124))
    assert nodules.measure_of(nodules.ranking(truth, results))(once)['nodules_0.25'] == [1]
    small = np.mean([(w + h) / 4 < 40 for _, _, w, h in (a['bbox'] for a in boxes)])
    strict = nodules.measure_of(nodules.ranking(truth, results, mm=0))(once)
    assert strict['nodules_1'] == [pytest.approx(1 - small)] and 0.5 < small < 1
    group, what = bootstrap.patients(truth['images'])
    drawn = bootstrap.draws(nodules.measure_of(nodules.ranking(truth, results, mm=0)), group, count=200)['nodules_1']
    low, high = bootstrap.interval(drawn, float(strict['nodules_1'][0]))
    assert what == 'patients (patient)' and low < 1 - small < high
