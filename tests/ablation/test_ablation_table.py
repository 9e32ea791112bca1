import csv
import io
import json

import numpy as np
import pytest

from relnet_jax.ablation import figure, table
from relnet_jax.ablation.statistics import interval
from tests.ablation import fake


def test_means_and_paired_differences_stand_beside_the_labs_figures():
    text = table.markdown(fake.three_seeds(), fake.TEXTS)
    base, _ = fake.lines_of(text, 'base')
    ours, classes = fake.lines_of(text, 'fpn_5')
    assert base[1:7] == ['plain, FPN', '3', '600', '42.0 ± 5.0', '-', '']
    assert ours[:7] == ['| `fpn_5`', 'class relation', '3', '600', '47.0 ± 6.6', '**+5.0** [+2.5, +7.5]', '`base`']
    assert ours[-2:] == ['-', '47.06 |']
    assert classes == ['| `fpn_5`', '47.0 ± 6.6', '- |']


def test_rows_stand_in_the_order_of_the_runs_table():
    found = [fake.result(run, 0, 0.4) for run in ('unknown', 'fpn_6', 'original', 'base')]
    assert [row.run for row in table.make_rows(found, fake.TEXTS)] == ['original', 'base', 'fpn_6', 'unknown']


def test_the_table_says_what_it_was_measured_on():
    text = table.markdown(fake.three_seeds(), fake.TEXTS)
    for said in ('say nothing about patients', '100 images', 'score > 0.05', '`train.steps=600`', '2026-01-02',
                 'a processor, 2 cores', '`python -m relnet_jax.ablate --runs=base --out=x`', 'on its private films'):
        assert said in text
    real = [fake.result('base', 0, 0.4, about=fake.ABOUT | dict(synthetic=False))]
    assert 'hantom:' not in table.markdown(real, fake.TEXTS)


def test_runs_with_a_c4_neck_are_compared_with_original_and_others_with_base():
    found = [fake.result(run, seed, ap + 0.01 * seed) for seed in range(2)
             for run, ap in (('original', 0.3), ('zero', 0.4), ('base', 0.5), ('fpn_6', 0.4))]
    rows = {row.run: row for row in table.make_rows(found, fake.TEXTS)}
    assert rows['zero'].control == 'original' and rows['fpn_6'].control == 'base'
    assert rows['zero'].differences['box_AP50'].mean == pytest.approx(0.1)
    assert rows['fpn_6'].differences['box_AP50'].mean == pytest.approx(-0.1)
    assert rows['original'].control == rows['base'].control == '' and not rows['base'].differences
    alone = table.make_rows([r for r in found if r['run'] == 'zero'], fake.TEXTS)[0]
    assert alone.control == '' and not alone.differences


def test_a_run_is_compared_with_the_control_that_trained_as_it_did():
    plain, kept = [dict(name='original', steps=2, plain=True)], dict(name='keep', steps=2, freeze=['box'])
    deltas = dict(
        original={}, ten={'train.phases': plain},
        zero={'model.relations': ['class'], 'model.relation.class_.norm': True},
        nine={'train.phases': [*plain, kept], 'model.relations': ['class']}, three={'train.phases': [kept]})
    deltas = {run: delta | {'model.neck': 'c4'} for run, delta in deltas.items()} | dict(
        base={}, no_relation={'model.background_weight': 0.5}, base_cascade={'model.cascade': [0.5, 0.6]},
        fpn3={'model.background_weight': 0.5, 'model.relations': ['class', 'part'], 'model.fusion': 'add'},
        fpn1={'model.background_weight': 0.2, 'model.relations': ['class', 'part']},
        base_cls={'model.cascade': [0.5, 0.6], 'model.relations': ['class']})
    rows = table.make_rows([fake.result(run, 0, 0.3, delta=delta) for run, delta in deltas.items()], {})
    assert {row.run: row.control for row in rows} == dict(
        original='', ten='original', zero='original', nine='ten', three='original', base='', no_relation='base',
        base_cascade='base', fpn3='no_relation', fpn1='base', base_cls='base_cascade')
    alone = [fake.result(run, 0, 0.3, delta=deltas[run]) for run in ('original', 'nine')]
    assert table.make_rows(alone, {})[1].control == '', 'fine-tuning is not compared with training from scratch'


def test_other_controls_can_be_chosen():
    found = [fake.result(run, 0, ap) for run, ap in (('original', 0.3), ('base', 0.5), ('extra', 0.6), ('fpn_6', 0.7))]
    rows = {row.run: row for row in table.make_rows(found, fake.TEXTS, controls=('zero', 'extra', 'base'))}
    assert {run: row.control for run, row in rows.items()} == {
        'original': '', 'base': 'extra', 'extra': '', 'fpn_6': 'extra'}
    assert rows['fpn_6'].differences['box_AP50'].mean == pytest.approx(0.1)
    assert '`extra`' in table.markdown(found, fake.TEXTS, controls=('extra',)).split('fpn_6')[1]


@pytest.mark.parametrize('values, mean, difference', [
    ([], '-', '-'), ([0.123], '12.3', '+12.3'), ([0.1, 0.2], '15.0 ± 63.5', '+15.0 [-48.5, +78.5]'),
    ([-0.02, -0.02], '-2.0 ± 0.0', '**-2.0** [-2.0, -2.0]')])
def test_numbers_are_written_in_per_cent(values, mean, difference):
    assert table.mean_text(interval(values)) == mean
    assert table.difference_text(interval(values)) == difference


def test_undefined_metrics_leave_a_gap_and_not_a_nan():
    found = [fake.result('base', 0, None), fake.result('fpn_5', 0, 0.4)]
    assert 'nan' not in (table.markdown(found, fake.TEXTS) + table.csv_text(found, fake.TEXTS)
                         + table.json_text(found, fake.TEXTS)).lower()
    assert table.make_rows(found, fake.TEXTS)[1].differences['box_AP50'].count == 0


def test_other_numbers_of_test_boxes_get_a_table():
    found = fake.three_seeds()
    assert 'number of test boxes' not in table.markdown(found, fake.TEXTS)
    for r in found[3:]:
        r['boxes']['64'] = dict(r['metrics'], box_AP50=0.1)
    text = table.markdown(found, fake.TEXTS)
    assert '| run | 200 | 64 |' in text
    assert ['| `base`', '42.0 ± 5.0', '- |'] in fake.lines_of(text, 'base')
    assert ['| `fpn_5`', '47.0 ± 6.6', '10.0 ± 0.0 |'] in fake.lines_of(text, 'fpn_5')


def test_a_run_is_compared_with_its_control_at_as_many_test_boxes():
    found = [fake.result('original', seed, 0.4) for seed in (0, 1)]
    found += [fake.result('zero', seed, 0.5, delta={'model.neck': 'c4', 'test.boxes': 16}) for seed in (0, 1)]
    for r in found[2:]:
        r['boxes'] = {'16': r['metrics']}
    found[0]['boxes']['16'] = dict(found[0]['metrics'], box_AP50=0.45)
    row = table.make_rows(found, fake.TEXTS)[1]
    assert row.compared_with == 'original' and row.differences['box_AP50'].mean == pytest.approx(0.1), 'one seed alone'
    assert table.AT_BOXES not in table.markdown(found, fake.TEXTS)
    found[1]['boxes']['16'] = dict(found[1]['metrics'], box_AP50=0.47)
    row = table.make_rows(found, fake.TEXTS)[1]
    assert row.compared_with == 'original@16' and row.differences['box_AP50'].mean == pytest.approx(0.04)
    assert row.means['box_AP50'].mean == pytest.approx(0.5) and row.differences['box_AP'].count == 2
    text = table.markdown(found, fake.TEXTS)
    assert fake.lines_of(text, 'zero')[0][5:7] == ['+4.0 [-8.7, +16.7]', '`original@16`'] and table.AT_BOXES in text
    assert 'original@16' in table.csv_text(found, fake.TEXTS)


def test_the_csv_holds_every_metric_of_every_run():
    rows = list(csv.DictReader(io.StringIO(table.csv_text(fake.three_seeds(), fake.TEXTS))))
    assert len(rows) == 2 * 5 and {r['run'] for r in rows} == {'base', 'fpn_5'}
    ours = next(r for r in rows if (r['run'], r['metric']) == ('fpn_5', 'box_AP50'))
    assert [float(ours[k]) for k in ('mean', 'difference', 'difference_low')] == pytest.approx([47, 5, 5 - 2.4841])
    assert ours['lab_mAP1'] == '47.06' and ours['lab_mAP50'] == '' and ours['control'] == 'base'
    plain = next(r for r in rows if (r['run'], r['metric']) == ('base', 'mask_AP50'))
    assert float(plain['mean']) == pytest.approx(37.8) and plain['difference'] == ''


def test_the_json_holds_the_values_by_seed():
    rows = json.loads(table.json_text(fake.three_seeds(), fake.TEXTS))['rows']
    ours = next(r for r in rows if r['run'] == 'fpn_5')
    assert ours['values']['box_AP50'] == {'0': 0.45, '1': 0.5, '2': 0.46}
    assert ours['means']['box_AP50']['count'] == 3 and ours['text']['map1'] == '47.06'
    assert ours['classes']['Nodule']['mean'] is None


def test_a_pipe_in_a_description_does_not_break_the_table():
    text = table.markdown([fake.result('zero', 0, 0.3)], fake.TEXTS)
    assert '| class relation \\| scratch |' in text


def test_no_results_make_an_empty_table():
    assert 'No results yet' in table.markdown([], fake.TEXTS)
    assert json.loads(table.json_text([], fake.TEXTS))['rows'] == []


# ---- figure ----
def test_the_figure_shows_means_intervals_and_differences(tmp_path):
    rows = table.make_rows(fake.three_seeds(), fake.TEXTS)
    drawn = figure.draw(rows, synthetic=True)
    left, right = drawn.axes
    assert [label.get_text() for label in left.get_yticklabels()] == [row.run for row in rows]
    marks = {round(float(x), 4) for line in left.lines if line.get_marker() == 'D' for x in line.get_xdata()}
    assert marks == {42.0, 47.0}
    bar = next(line for line in right.lines if line.get_linewidth() == 2)
    assert list(bar.get_xdata()) == pytest.approx([5 - 2.4841, 5 + 2.4841], abs=1e-3)
    assert 'PHANTOM' in drawn.get_suptitle() and 'base' in right.get_xlabel()
    drawn.savefig(tmp_path / 'table.png')
    assert (tmp_path / 'table.png').stat().st_size > 5000


def test_the_figure_can_be_drawn_of_one_seed_and_of_undefined_values():
    rows = table.make_rows([fake.result('base', 0, 0.4), fake.result('fpn_6', 0, None)], fake.TEXTS)
    left, _ = figure.draw(rows, metric='mask_AP50', synthetic=False).axes
    points = np.concatenate([line.get_xdata() for line in left.lines])
    assert points == pytest.approx([36.0, 36.0])
