"""Every number in the tables of the pages about real films is one of a file in benchmarks/results."""
import json

import pytest

from tests.pipe_tables import RESULTS, by_folds, gives, lines, plain, table


@pytest.mark.parametrize('folder, films, patients', [
    ('jsrt_structures', 124, 124), ('jsrt_nodules', 124, 124), ('cxr_findings', 65, 49)])
def test_every_film_was_held_out_once(folder, films, patients):
    found = json.loads((RESULTS / folder / 'patients.json').read_text(encoding='utf-8'))
    assert {(run['films'], run['patients']) for run in found.values()} == {(films, patients)}


# ---- JSRT ----
def test_jsrt_anatomy_of_all_films_is_that_of_the_folds():
    row, aimed = table('docs/jsrt.md', 'run', 'lungs', 'heart')
    found = by_folds('jsrt_structures', 'anatomy')
    for organ, cell in zip(('Lungs', 'Heart', 'Clavicles'), row[1:], strict=True):
        assert gives(cell, found[f'jaccard_{organ}']), organ
    assert aimed == ['aimed at', '0.94', '0.86', '0.75']


def test_jsrt_anatomy_is_that_of_the_trials():
    trials = {t['trial']: t for t in lines('jsrt/trials.jsonl')}
    rows = table('docs/jsrt.md', 'trial', 'steps')
    order = ('first', 'no_jitter', 'rois_64_half_positive', 'roi_aligned', 'steps_1600', 'anatomy')
    for name, row in zip(order, rows, strict=True):
        trial, whole = trials[name], name in ('first', 'anatomy')
        assert row[1] == f"{trial['steps']:,}"
        for organ, cell in zip(('Lungs', 'Heart', 'Clavicles'), row[2:], strict=True):
            m = trial['metrics' if whole else 'differences'][f'jaccard_{organ}']
            assert gives(cell, m, signed=not whole), (name, organ, cell, m)


def test_further_jsrt_trials_are_those_of_the_file():
    trials = {t['trial']: t for t in lines('jsrt/trials.jsonl')}
    order = ('anatomy_rotation', 'anatomy_rotation_from_phantom', 'tuned_500_mask_pool_28')
    for name, row in zip(order, table('docs/jsrt.md', 'further trial', 'steps'), strict=True):
        trial = trials[name]
        assert row[1] == f"{trial['steps']:,}" and bool(row[2]) == bool(trial['differences'])
        for organ, cell in zip(('Lungs', 'Heart', 'Clavicles'), row[3:], strict=True):
            m = trial['differences' if row[2] else 'metrics'][f'jaccard_{organ}']
            assert gives(cell.replace('**', ''), m, signed=bool(row[2])), (name, organ, cell, m)


def test_jsrt_nodules_of_all_films_are_those_of_the_folds():
    rows, name = table('docs/jsrt.md', 'run', 'hit'), ''
    assert len(rows) == 2 * (4 + 3)
    for i, row in enumerate(rows):
        name = row[0] or name
        run, _, control = name.partition(' - ')
        hit, m = row[1].replace(' ', ''), by_folds('jsrt_nodules', run, 'differences' if control else 'metrics')
        assert hit == ('22mm', 'radius')[i % 2] and control in ('', 'base')
        for rate, cell in zip(('0.5', '1', '2', '4'), row[2:], strict=True):
            assert gives(cell, m[f'nodule_{hit}_{rate}'], signed=bool(control)), (name, rate, cell)


def test_jsrt_trials_of_nodules_are_those_of_the_file():
    trials = {t['trial']: t for t in lines('jsrt/trials.jsonl')}
    order = ('nodules_from_phantom', 'nodules_400_steps_more', 'nodules_square_anchors', 'nodules_16_rois')
    for name, row in zip(order, table('docs/jsrt.md', 'trial of base', 'films'), strict=True):
        assert row[1] == str(trials[name]['films_held_out'])
        for metric, cell in zip(('nodule_22mm_1', 'nodule_22mm_4', 'box_AP50'), row[2:], strict=True):
            assert gives(cell, trials[name]['differences'][metric], signed=True), (name, metric, cell)
    assert f"none of the {trials['base']['objects']} nodules of the first fold" in plain('docs/jsrt.md')
    assert all(trials['base']['metrics'][f'nodule_{hit}_4']['value'] == 0 for hit in ('radius', '22mm'))


# ---- two findings on 65 mixed films ----
FINDINGS = ('box_AP50', 'voc_AP_0.01', 'froc_mean')


def test_findings_of_all_films_are_those_of_the_folds():
    rows = table('docs/findings.md', 'run', 'box AP50')
    assert [row[0] for row in rows] == ['base', 'part', 'context', 'ours', 'part - base', 'context - base',
                                        'ours - base']
    for name, *cells in rows:
        run, _, control = name.partition(' - ')
        found = by_folds('cxr_findings', run, 'differences' if control else 'metrics')
        for metric, cell in zip(FINDINGS, cells, strict=True):
            assert gives(cell, found[metric], signed=bool(control)), (name, metric, cell)


def test_what_the_phantom_brings_is_as_in_the_trials():
    trials = {t['trial']: t for t in lines('cxr/trials.jsonl')}
    films = dict(all='48 to 49', half='20 to 27', quarter='8 to 12')
    shown = [((run,), t['metrics']) for run, t in trials.items()]
    shown += [((run, other), found) for run, t in trials.items() for other, found in t['differences'].items()]
    rows = table('docs/findings.md', 'films to train on', 'start')
    for (runs, found), (where, start, steps, *cells) in zip(shown, rows, strict=True):
        share, *_ = runs[0].split('_')
        assert (where, start) == (films[share], ' - '.join(run.split('_')[1] for run in runs))
        assert steps == ', '.join(f"{trials[run]['steps']:,}" for run in runs)
        for metric, cell in zip(FINDINGS, cells, strict=True):
            assert gives(cell, found[metric], signed=len(runs) > 1), (runs, metric, cell)
