"""Intervals over patients of runs with several seeds, beside the comparison of two result files."""
import json

import numpy as np
import pytest

from relnet_jax.ablation import patients
from relnet_jax.compare import compare
from relnet_jax.evaluation import report
from tests.evaluation.made import film_set

COUNT = 50


@pytest.fixture
def made(tmp_path):
    """(truth, {run: its results by seed}, {run: its folders}): base finds less than `other`, in the same films."""
    truth, everything = film_set(0, 30, 1.0)
    for image in truth['images']:
        image['patient'] = f"p{image['id'] // 2}"
    found = {'base': [everything[::3], everything[1::3]], 'other': [everything, everything[::2]]}
    folders = {}
    for run, seeds in found.items():
        for seed, results in enumerate(seeds):
            folder = tmp_path / f'{run}_s{seed}' / 'eval'
            folder.mkdir(parents=True)
            (folder / 'ground_truth.json').write_text(json.dumps(truth))
            (folder / 'detections.json').write_text(json.dumps(results))
            folders.setdefault(run, []).append(folder)
    return truth, found, folders


def test_one_seed_is_what_compare_says(made):
    truth, found, folders = made
    rows = patients.measure({run: paths[:1] for run, paths in folders.items()}, by='patient', controls=('base',),
                            count=COUNT)
    expected = compare(truth, found['base'][0], found['other'][0], by='patient', resamples=COUNT)
    assert rows['base']['patients'] == 15 and not rows['base']['control'] and rows['other']['control'] == 'base'
    assert {'box_AP50', 'froc_mean', 'no_finding_AUC'} <= rows['other']['differences'].keys() <= expected.keys()
    for name, i in rows['other']['differences'].items():
        np.testing.assert_allclose([i.mean, i.low, i.high], [expected[name][k] for k in ('difference', 'low', 'high')],
                                   rtol=1e-12)


def test_the_table_shows_intervals_of_one_seed_too(made):
    rows = patients.measure({run: paths[:1] for run, paths in made[2].items()}, by='patient', controls=('base',),
                            count=COUNT)
    line, = (line for line in patients.markdown(rows).split('## Differences')[1].splitlines() if 'box_AP50' in line)
    i = rows['other']['differences']['box_AP50']
    assert f'{100 * i.mean:+.1f}' in line and f'[{100 * i.low:+.1f}, {100 * i.high:+.1f}]' in line


def test_seeds_are_averaged_in_every_resample(made):
    truth, found, folders = made
    rows = patients.measure(folders, by='patient', controls=('base',), count=COUNT)
    single = [patients.measure({'x': [folder]}, by='patient', controls=(), count=COUNT)['x']['metrics']['box_AP50']
              for folder in folders['other']]
    both = rows['other']['metrics']['box_AP50']
    assert both.mean == pytest.approx(np.mean([report.evaluate(truth, r)['box_AP50'] for r in found['other']]))
    assert both.high - both.low < max(i.high - i.low for i in single) and rows['other']['seeds'] == 2
    text = patients.markdown(rows)
    assert '30 films of 15 patients; `base` 2 seeds, `other` 2 seeds' in text and '`other` - `base`' in text


def test_runs_with_other_films_or_fewer_seeds_are_not_compared(made):
    truth, _, folders = made
    fewer = patients.measure({'base': folders['base'][:1], 'other': folders['other']}, by='patient',
                             controls=('base',), count=COUNT)
    assert not fewer['other']['control'] and not fewer['other']['differences']
    less = truth | dict(images=truth['images'][:-1], annotations=[a for a in truth['annotations']
                                                                 if a['image_id'] != truth['images'][-1]['id']])
    for folder in folders['base']:
        (folder / 'ground_truth.json').write_text(json.dumps(less))
        results = json.loads((folder / 'detections.json').read_text())
        (folder / 'detections.json').write_text(json.dumps(
            [r for r in results if r['image_id'] != truth['images'][-1]['id']]))
    assert not patients.measure(folders, by='patient', controls=('base',), count=COUNT)['other']['control']
