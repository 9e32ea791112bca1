"""Phases: exact boundaries, what freezes in each, what passes from one to the next, and going on across a boundary."""
import json
import math

import jax
import numpy as np
import pytest

from relnet_jax.models import mask_rcnn
from relnet_jax.runs import checkpoint
from relnet_jax.runs.rotation import LOWEST_LOSS, TRAIN_LOSS
from relnet_jax.runs.step_folder import read_json, read_tree
from relnet_jax.training import loop, phases
from relnet_jax.trees import path_names
from tests.training import standin

KEEP = ('head/',)


@pytest.fixture
def config(monkeypatch):
    """The stand-in with its relation: 2 plain steps, 2 with everything trained, 3 with the head kept."""
    monkeypatch.setattr(mask_rcnn, 'build', standin.build)
    c = standin.small_config()
    c.data.format, c.data.threads, c.data.prefetch = 'phantom', 2, 2
    c.data.phantom.size, c.data.phantom.train_images, c.data.phantom.val_images = 64, 8, 3
    c.model.relations = ('region',)
    c.train.ema, c.train.log_every, c.train.checkpoint_every, c.train.keep = 0.9, 1, 100, 10
    c.train.phases = (dict(name='original', steps=2, plain=True), dict(name='retrain', steps=2),
                      dict(name='keep', steps=3, freeze=KEEP, rois=128))
    c.train.steps = 5
    c.test.batch_size = 3
    return c


def params_at(workdir, step, item='params'):
    tree = read_tree(workdir / 'checkpoints' / str(step), item)
    return dict(zip(path_names(tree), jax.tree.leaves(tree)))


def changed(before, after, prefix):
    """Which parameters below `prefix` differ."""
    return {k for k in before if k.startswith(prefix) and not np.array_equal(before[k], after[k])}


def lines(workdir, split):
    found = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return {line['step']: line for line in found if line['split'] == split}


def assert_same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def spans(config):
    return [(p.name, p.first, p.last) for p in phases.plan(config)]


# ---- the plan ----
def test_phases_follow_one_another_and_the_plain_ones_have_a_schedule_of_their_own(config):
    plan = phases.plan(config)
    assert spans(config) == [('original', 1, 2), ('retrain', 3, 4), ('keep', 5, 7)]
    assert [p.begin for p in plan] == [0, 2, 2]
    assert [p.config.train.steps for p in plan] == [2, 5, 5]
    assert [p.config.train.rois for p in plan] == [512, 512, 128]
    assert [p.config.model.relations for p in plan] == [(), ('region',), ('region',)]
    assert [phases.at(plan, s) for s in range(9)] == [0, 0, 0, 1, 1, 2, 2, 2, 2]


def test_a_run_without_phases_is_one_phase(config):
    config.train.phases = ()
    (phase,) = phases.plan(config)
    assert (phase.first, phase.last, phase.begin) == (1, 5, 0)
    assert phase.config == config


def test_a_warm_up_that_takes_most_of_a_run_is_pointed_out(config, caplog):
    config.train.steps, config.train.phases, config.train.warmup_steps = 1000, (), 500
    phases.log_plan(phases.plan(config), config)
    assert 'warms up over 500 of 1000 steps' in caplog.text
    caplog.clear()
    config.train.warmup_steps = 100
    phases.log_plan(phases.plan(config), config)
    assert 'warms up' not in caplog.text


def test_another_number_of_steps_and_the_scale_stretch_all_phases_alike(config):
    config.train.phases = (dict(name='original', steps=96_000, plain=True), dict(name='retrain', steps=54_999),
                           dict(name='keep', steps=41_000))
    config.train.steps, config.scale_schedule = 95_999, 0.01
    assert spans(config) == [('original', 1, 960), ('retrain', 961, 1510), ('keep', 1511, 1920)]
    config.train.steps, config.scale_schedule = 600, 1.0
    assert spans(config)[1:] == [('retrain', 601, 944), ('keep', 945, 1200)]
    config.scale_schedule = 1e-5
    assert spans(config) == [('original', 1, 1), ('retrain', 2, 2), ('keep', 3, 3)]     # one step at least
    assert phases.total_steps(config) == 3


def test_a_plain_run_that_was_there_before_stands_for_the_plain_phases(config):
    config.train.plain_from = 'runs/original'
    assert spans(config) == [('retrain', 1, 2), ('keep', 3, 5)]
    config.train.phases = config.train.phases[1:]
    with pytest.raises(ValueError, match="plain_from: 'runs/original' .* did you mean config.train.init_from"):
        phases.plan(config)


@pytest.mark.parametrize('entries, message', [
    ((dict(name='a', steps=3, freze=()),), r"phases\[0\]: no key 'freze', did you mean 'freeze'"),
    ((dict(name='a', steps=0),), r'phases\[0\]: expected steps of 1 or more, got 0'),
    ((dict(name='a', steps=1), dict(name='a', steps=1)), r'phases\[0\]: expected a name of its own'),
    ((dict(name='a', steps=1), dict(name='b', steps=1, plain=True)), r'phases\[1\]: a plain phase comes before'),
    ((dict(name='a', steps=1, plain=True),), 'expected a phase after the plain ones'),
])
def test_wrong_phases_are_refused_by_position(config, entries, message):
    config.train.phases = entries
    with pytest.raises(ValueError, match=message):
        phases.plan(config)


# ---- the loop ----
def test_each_phase_moves_what_it_should_and_nothing_else(config, tmp_path):
    standin.BUILT.clear()
    loop.train(config, tmp_path)
    assert checkpoint.steps(tmp_path) == [2, 4, 7]      # the end of each phase is kept, and evaluated
    assert sorted(lines(tmp_path, 'val')) == [2, 4, 7]
    assert [c.train.rois for c in standin.BUILT] == [512, 512, 512, 128]    # the whole, and then one for each phase
    two, four, seven = (params_at(tmp_path, s) for s in (2, 4, 7))
    model = standin.Standin(num_classes=14, relation=True)
    shapes = loop.train_state.batch_shapes(config, 1, 5)
    drawn = loop.train_state.init_params(model, shapes, jax.random.key(config.seed))
    drawn = dict(zip(path_names(drawn), jax.tree.leaves(drawn)))
    assert changed(drawn, two, 'head/') and not changed(drawn, two, 'relation_head/')
    assert changed(two, four, 'head/') and changed(two, four, 'relation_head/')
    assert not changed(four, seven, 'head/') and changed(four, seven, 'relation_head/')
    assert changed(four, seven, 'backbone/')


def test_fine_tuning_begins_with_the_average_a_new_schedule_and_new_momentum(config, tmp_path):
    config.train.phases = (config.train.phases[0], dict(name='still', steps=3, lr_factor=0.0))
    config.train.steps = 3
    loop.train(config, tmp_path)
    assert changed(params_at(tmp_path, 2), params_at(tmp_path, 2, 'ema'), 'head/')
    assert not changed(params_at(tmp_path, 2, 'ema'), params_at(tmp_path, 5), '')     # rate 0: as it began
    config.train.phases = (config.train.phases[0], dict(name='tune', steps=3, lr_factor=0.5))
    loop.train(config, tmp_path / 'b')
    rates = [line['lr'] for line in lines(tmp_path / 'b', 'train').values()]
    warm = [1 / 3, 2 / 3, 1.0]          # of 0.1, or of half of it; the drops to a tenth come at 2/3 and 8/9
    expected = [0.1 * warm[0], 0.01 * warm[1], 0.05 * warm[0], 0.05 * warm[1], 0.005 * warm[2]]
    assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(rates, expected, strict=True))


def test_phases_that_change_nothing_change_nothing(config, tmp_path):
    config.train.phases = tuple(dict(name=n, steps=s) for n, s in (('a', 2), ('b', 1), ('c', 2)))
    parts = loop.train(config, tmp_path / 'parts')
    config.train.phases = ()
    assert_same(parts, loop.train(config, tmp_path / 'whole'))      # momentum, schedule, average and random numbers


class Killed(Exception):
    pass


@pytest.mark.slow       # a run of configs/lab.py that is cut is in the quick selection
@pytest.mark.parametrize('cut', [2, 3, 4, 6])       # the last step that is done: of a phase, or in its middle
def test_a_run_cut_anywhere_ends_bit_for_bit_like_one_that_was_not(config, tmp_path, monkeypatch, cut):
    config.train.checkpoint_every = 1
    whole = loop.train(config, tmp_path / 'whole')
    real = loop.pipeline.train_batches

    def batches(*args, **kwargs):
        for i, batch in enumerate(real(*args, **kwargs)):
            if i == cut:
                raise Killed
            yield batch
    with monkeypatch.context() as patch:
        patch.setattr(loop.pipeline, 'train_batches', batches)
        with pytest.raises(Killed):
            loop.train(config, tmp_path / 'cut')
    assert checkpoint.steps(tmp_path / 'cut')[-1] == cut
    assert_same(loop.train(config, tmp_path / 'cut'), whole)


def test_a_phase_is_traced_once_and_no_more(config, tmp_path, monkeypatch):
    traces, make = [], loop.make_train_step

    def counting(*args, **kwargs):
        body = make(*args, **kwargs)
        return lambda state, batch: (traces.append(kwargs['begin']), body(state, batch))[1]
    monkeypatch.setattr(loop, 'make_train_step', counting)
    loop.train(config, tmp_path)
    assert traces == [0, 2, 2]


def test_scores_of_a_plain_phase_do_not_compete_for_the_best_step(config, tmp_path):
    loop.train(config, tmp_path)
    assert read_json(checkpoint.find(tmp_path / 'checkpoints' / '2'), 'metrics').keys() == {TRAIN_LOSS, LOWEST_LOSS}
    assert 'box_AP50' in read_json(checkpoint.find(tmp_path / 'checkpoints' / '4'), 'metrics')


def test_plain_from_takes_the_plain_detectors_parameters(config, tmp_path):
    relations, entries = config.model.relations, config.train.phases
    config.model.relations, config.train.phases, config.train.steps = (), (), 2
    original = loop.train(config, tmp_path / 'original')
    config.model.relations, config.train.phases, config.train.steps = relations, entries[:1] + (
        dict(name='still', steps=1, lr_factor=0.0),), 1
    config.train.plain_from = str(tmp_path / 'original')
    tuned = loop.train(config, tmp_path / 'tuned')
    for name in ('backbone', 'head', 'rpn'):
        assert_same(tuned.params[name], original.ema[name])
    assert int(tuned.step) == 1
