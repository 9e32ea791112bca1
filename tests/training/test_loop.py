"""The whole loop on a few phantom images, with the stand-in model; a real one under SIGKILL: test_processes.py."""
import json
import os
import signal

import jax
import numpy as np
import pytest

from relnet_jax.models import mask_rcnn
from relnet_jax.runs import checkpoint, state
from relnet_jax.training import loop
from relnet_jax.training.window import NonFiniteLoss
from tests.training import standin
from tests.training.conftest import Killed, assert_same, kill, lines


def test_a_run_killed_and_started_again_ends_bit_for_bit_like_one_that_was_not(config, tmp_path, at_batch):
    whole = loop.train(config, tmp_path / 'whole')
    undo = at_batch(6, kill)
    with pytest.raises(Killed):
        loop.train(config, tmp_path / 'cut')
    undo()
    assert checkpoint.steps(tmp_path / 'cut') == [2, 4]         # step 5 was done, and is lost
    again = loop.train(config, tmp_path / 'cut')
    assert_same(again, whole)
    for workdir in (tmp_path / 'whole', tmp_path / 'cut'):
        assert [(line['step'], line['split']) for line in lines(workdir)] == [
            (2, 'train'), (4, 'train'), (6, 'train'), (6, 'val')]
    for a, b in zip(lines(tmp_path / 'whole'), lines(tmp_path / 'cut')):
        assert a.get('loss') == b.get('loss')


def test_pmap_is_there_for_who_asks_for_it_and_trains_the_same_run(config, tmp_path):
    want = loop.train(config, tmp_path / 'shard_map')
    config.train.parallel = 'pmap'
    got = loop.train(config, tmp_path / 'pmap')
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)
    a, b = (json.loads((tmp_path / run / 'eval' / 'detections.json').read_text()) for run in ('shard_map', 'pmap'))
    np.testing.assert_allclose([r['score'] for r in a], [r['score'] for r in b], rtol=1e-5)


def test_a_run_leaves_checkpoints_metrics_and_a_report(config, tmp_path):
    config.train.eval_every = 3
    loop.train(config, tmp_path)
    assert checkpoint.steps(tmp_path)[-2:] == [4, 6]
    assert [line['step'] for line in lines(tmp_path) if line['split'] == 'val'] == [3, 6]
    about = json.loads((tmp_path / 'eval' / 'metrics.json').read_text())['about']
    assert about['images'] == 3 and 'step 6' in about['checkpoint']
    assert len(list((tmp_path / 'eval' / 'overlays').iterdir())) == 3
    assert checkpoint.read_class_table(tmp_path)['parts'] == loop.pipeline.open_sources(config)[0].parts


def test_nothing_is_traced_again_after_the_first_time(config, tmp_path, monkeypatch):
    config.train.eval_every = 2
    traces, make = [], loop.make_train_step

    def counting(*args, **kwargs):
        body = make(*args, **kwargs)
        return lambda state, batch: (traces.append(1), body(state, batch))[1]

    monkeypatch.setattr(loop, 'make_train_step', counting)
    standin.DETECT_TRACES.clear()
    loop.train(config, tmp_path)
    assert len(traces) == 1
    assert len(standin.DETECT_TRACES) == 1          # three evaluations, the last batch of each only half full


def test_sigterm_saves_and_the_run_goes_on_later(config, tmp_path, at_batch):
    whole = loop.train(config, tmp_path / 'whole')
    undo = at_batch(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    handler = signal.getsignal(signal.SIGTERM)
    assert loop.train(config, tmp_path / 'cut').step == 3
    assert signal.getsignal(signal.SIGTERM) == handler
    undo()
    assert checkpoint.steps(tmp_path / 'cut') == [2, 3]
    assert_same(loop.train(config, tmp_path / 'cut'), whole)


def test_a_loss_that_is_not_finite_stops_the_run_and_spoils_no_checkpoint(config, tmp_path):
    config.train.learning_rate, config.train.log_every = 1e38, 100     # checkpoints come before the first log line
    config.train.checkpoint_every = 1
    with pytest.raises(NonFiniteLoss, match=r'step \d: .*not finite, in a batch of the images'):
        loop.train(config, tmp_path)
    for step in checkpoint.steps(tmp_path):
        params = checkpoint.load_params(tmp_path / 'checkpoints' / str(step))
        assert all(np.isfinite(p).all() for p in jax.tree.leaves(params))


def test_a_failing_evaluation_costs_no_training(config, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise Killed
    monkeypatch.setattr(loop.report, 'evaluate', fail)
    with pytest.raises(Killed):
        loop.train(config, tmp_path)
    assert checkpoint.steps(tmp_path)[-1] == 6


def test_a_finished_run_started_again_only_evaluates(config, tmp_path):
    config.train.steps = 2
    first = loop.train(config, tmp_path)
    (tmp_path / 'eval' / 'metrics.json').unlink()
    assert_same(loop.train(config, tmp_path), first)
    assert (tmp_path / 'eval' / 'metrics.json').exists()


def test_resume_goes_before_init_from_and_init_from_before_scratch(config, tmp_path):
    config.train.steps = 2
    base = loop.train(config, tmp_path / 'base')
    config.train.init_from, config.train.learning_rate = str(tmp_path / 'base'), 0.0
    tuned = loop.train(config, tmp_path / 'tuned')
    assert_same(tuned.params, base.ema)             # rate 0: still what it started from, the base's averaged parameters
    config.train.init_from = str(tmp_path / 'absent')
    assert_same(loop.train(config, tmp_path / 'tuned').params, base.ema)


def test_a_model_without_optimiser_is_no_run_to_go_on_with_but_one_to_start_from(config, tmp_path):
    """What `interop.convert` writes."""
    config.train.steps, config.train.learning_rate = 1, 0.0
    source, _ = loop.pipeline.open_sources(config)
    model = mask_rcnn.build(config, num_classes=len(source.classes) + 1)
    shapes = state.batch_shapes(config, 1, len(source.parts))
    params = jax.device_get(state.init_params(model, shapes, jax.random.key(5)))
    checkpoint.save_model(tmp_path / 'model', params, config=config,
                          class_table={key: getattr(source, key) for key in checkpoint.CLASS_TABLE})
    with pytest.raises(checkpoint.CheckpointError, match="without an optimiser's state: give it as config.train.in"):
        loop.train(config, tmp_path / 'model')
    config.train.init_from = str(tmp_path / 'model')
    assert_same(loop.train(config, tmp_path / 'tuned').params, params)


def test_changed_keys_are_named_and_other_classes_are_refused(config, tmp_path, caplog, monkeypatch):
    config.train.steps = 2
    loop.train(config, tmp_path)
    config.train.learning_rate = 0.05
    loop.train(config, tmp_path)
    assert 'train.learning_rate: 0.1 -> 0.05' in caplog.text
    open_sources = loop.pipeline.open_sources

    def renamed(config):
        train, val = open_sources(config)
        names = ('x',) + train.classes[1:]
        return [s.__class__(**{**vars(s), 'classes': names}) for s in (train, val)]
    monkeypatch.setattr(loop.pipeline, 'open_sources', renamed)
    with pytest.raises(checkpoint.CheckpointError, match='trained with other data, classes: expected'):
        loop.train(config, tmp_path)


def test_a_mask_loss_of_nothing_is_pointed_out(caplog):
    loop.warn_of_mask_loss(7, dict(loss_mask=0.5, mask_rois=3.0))
    loop.warn_of_mask_loss(7, dict(loss_mask=0.0, mask_rois=0.0))
    assert not caplog.records
    loop.warn_of_mask_loss(7, dict(loss_mask=1e-4, mask_rois=3.0))
    assert 'mask loss is 0.0001 although 3.0 RoIs' in caplog.text


def test_a_batch_that_does_not_divide_stops_before_anything_else(config, tmp_path):
    config.train.batch_size = 3
    with pytest.raises(ValueError, match='batch of 3 images .* 2 devices'):
        loop.train(config, tmp_path / 'new')
    assert not (tmp_path / 'new').exists()
