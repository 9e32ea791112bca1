"""A run that is stopped, fails or diverges loses nothing that was whole; real processes: tests/test_killed.py."""
import logging
import os
import shutil
import signal
from collections import namedtuple

import jax
import numpy as np
import pytest

from relnet_jax.errors import UserError
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import checkpoint, manifest, step_folder
from relnet_jax.runs.checkpoint import CheckpointError
from relnet_jax.runs.workdir import held
from relnet_jax.training import loop
from relnet_jax.training.window import NonFiniteLoss, Window
from tests.training import standin
from tests.training.conftest import Killed, assert_same, kill, lines, loop_config, without_origin

TIMES = {'seconds_per_step', 'images_per_second', 'data_wait'}


def without_times(workdir):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines(workdir)]


def assert_same_run(a, b):
    """Everything that a run leaves is the same, bit for bit, but for the times it took."""
    assert without_times(a) == without_times(b)
    assert checkpoint.steps(a)[-1] == checkpoint.steps(b)[-1]
    folders = [checkpoint.find(run) for run in (a, b)]
    for item in ('params', 'ema', 'optimizer'):
        assert_same(*(step_folder.read_tree(folder, item) for folder in folders))
    assert step_folder.read_json(folders[0], 'metrics') == step_folder.read_json(folders[1], 'metrics')
    for name in ('metrics.json', 'detections.json'):
        assert without_origin(a / 'eval' / name, a) == without_origin(b / 'eval' / name, b)


@pytest.fixture
def apart(config):
    """7 steps whose log lines, evaluations and checkpoints do not come together."""
    config.train.steps, config.train.log_every, config.train.eval_every, config.train.checkpoint_every = 7, 4, 3, 2
    return config


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The run of `apart` without an interruption."""
    folder = tmp_path_factory.mktemp('interruption') / 'whole'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_rcnn, 'build', standin.build)
        loop.train(apart.__wrapped__(loop_config()), folder)
    assert [(line['step'], line['split']) for line in lines(folder)] == [
        (3, 'val'), (4, 'train'), (6, 'val'), (7, 'train'), (7, 'val')]
    return folder


def some(quick, *slow):
    return pytest.mark.parametrize('step', [quick, *(pytest.param(step, marks=pytest.mark.slow) for step in slow)])


@some(6, 2, 4, 7)
def test_metrics_of_a_run_cut_between_its_log_lines_are_those_of_a_whole_one(apart, whole, tmp_path, at_batch, step):
    undo = at_batch(step, kill)
    with pytest.raises(Killed):
        loop.train(apart, tmp_path / 'cut')
    undo()
    loop.train(apart, tmp_path / 'cut')
    assert_same_run(whole, tmp_path / 'cut')


@some(3, 5, 7)      # where an evaluation is due, where nothing is, and at the end
def test_metrics_of_a_run_stopped_by_a_signal_are_those_of_a_whole_one(apart, whole, tmp_path, at_batch, step):
    undo = at_batch(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert loop.train(apart, tmp_path / 'cut').step == step
    undo()
    assert checkpoint.steps(tmp_path / 'cut')[-1] == step
    loop.train(apart, tmp_path / 'cut')
    assert without_times(whole) == without_times(tmp_path / 'cut')
    assert_same(*(checkpoint.load_params(run) for run in (whole, tmp_path / 'cut')))


def test_an_evaluation_that_a_second_signal_cut_is_made_up_for(apart, whole, tmp_path, monkeypatch):
    def twice(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.report, 'evaluate', twice)
        loop.train(apart, tmp_path / 'cut')
    assert checkpoint.steps(tmp_path / 'cut')[-1] == 3
    loop.train(apart, tmp_path / 'cut')
    assert without_times(whole) == without_times(tmp_path / 'cut')


def test_a_damaged_newest_step_is_set_aside_and_the_run_ends_as_ever(apart, whole, tmp_path, at_batch, caplog):
    undo = at_batch(6, kill)
    with pytest.raises(Killed):
        loop.train(apart, tmp_path / 'cut')
    undo()
    file = checkpoint.find(tmp_path / 'cut') / 'params' / '_METADATA'
    file.write_bytes(file.read_bytes()[:-1] + b'?')
    caplog.set_level(logging.INFO, logger='absl')
    loop.train(apart, tmp_path / 'cut')
    assert 'step 4 is damaged and was moved to' in caplog.text and 'resuming from step 3' in caplog.text
    assert (tmp_path / 'cut' / 'damaged' / '4').is_dir()
    assert_same_run(whole, tmp_path / 'cut')


# ---- what ends a run ----
def test_a_second_training_in_the_folder_is_refused_before_it_touches_anything(config, tmp_path):
    with held(tmp_path), pytest.raises(UserError, match=f'process {os.getpid()} on .* trains there'):
        loop.train(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['.lock']
    config.train.steps = 1
    assert loop.train(config, tmp_path).step == 1


def test_a_save_that_fails_ends_the_run_with_one_line_that_names_the_last_whole_step(config, tmp_path, monkeypatch):
    config.train.steps, config.train.log_every = 200, 1
    seal, done = manifest.seal, []

    def fail(folder):
        if folder.name.startswith('4'):
            raise OSError(28, os.strerror(28), str(folder / manifest.FILE))
        seal(folder)
    monkeypatch.setattr(manifest, 'seal', fail)
    monkeypatch.setattr(loop, 'warn_of_mask_loss', lambda step, values: done.append(step))
    with pytest.raises(CheckpointError, match="no checkpoint could be written to '.*/checkpoints': .*No space left on "
                                              "device.*; the last one is step 2") as caught:
        loop.train(config, tmp_path)
    assert '\n' not in str(caught.value) and done[-1] < 20      # long before the last step
    assert checkpoint.steps(tmp_path) == [2]
    monkeypatch.setattr(manifest, 'seal', seal)
    config.train.steps = 4
    assert loop.train(config, tmp_path).step == 4


def test_a_full_disk_is_found_before_the_first_step_and_before_a_save(config, tmp_path, monkeypatch):
    usage, free = namedtuple('usage', 'free'), iter([10**9] * 3 + [1000] * 100)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(next(free)))
    with pytest.raises((CheckpointError, OSError), match='No space left|and the disk has 0.0 MB left'):
        loop.train(config, tmp_path)
    with pytest.raises(UserError, match='a checkpoint takes 0.0 MB, and the disk has 0.0 MB left'):
        loop.train(config, tmp_path)


def test_a_diverging_run_does_not_rotate_its_last_healthy_step_away(config, tmp_path, caplog):
    config.train.steps, config.train.keep, config.train.checkpoint_every = 8, 1, 1
    config.train.learning_rate, config.train.clip_norm = 1e6, 1.0
    try:
        loop.train(config, tmp_path)
    except NonFiniteLoss:
        pass
    healthy, *diverged = checkpoint.steps(tmp_path)
    assert healthy <= 2 and diverged and diverged[-1] >= 6
    losses = [step_folder.read_json(tmp_path / 'checkpoints' / str(step), 'metrics')['train_loss']
              for step in (healthy, diverged[-1])]
    assert losses[0] < 10 < losses[1] / 10
    assert f'is out of range; step {healthy}, with ' in caplog.text


def test_parameters_that_are_not_finite_become_no_checkpoint():
    with pytest.raises(NonFiniteLoss, match='not finite: a/b: 1 of 3 numbers; no checkpoint holds this state'):
        Window(None, batch_size=1).check({'a': {'b': np.array([0, np.inf, 1], np.float32)}, 'c': np.zeros(2)})


def test_other_data_are_refused_unless_they_are_allowed(config, tmp_path, caplog):
    config.train.steps = 2
    loop.train(config, tmp_path)
    config.train.steps, config.data.phantom.train_images = 4, 7
    with pytest.raises(CheckpointError, match='other data: config.data.phantom.train_images is 7, was 8; 7 training '
                                              'images, were 8; .*--config.train.allow_changed_data'):
        loop.train(config, tmp_path)
    assert checkpoint.steps(tmp_path) == [2]
    config.train.allow_changed_data = True
    assert loop.train(config, tmp_path).step == 4
    assert 'validation images may have been trained on: config.data.phantom.train_images is 7, was 8' in caplog.text
    config.train.allow_changed_data, config.train.steps = False, 6
    assert loop.train(config, tmp_path).step == 6       # what it was trained on last counts


def test_a_window_of_another_model_is_forgotten():
    window = Window(None, batch_size=1, since_log=[dict(loss=9.0, lr=1.0, finite=1.0, extra=1.0)])
    window.add(1, [0], {k: np.float32(1) for k in ('loss', 'lr', 'finite')})
    assert window.means()['loss'] == 1 and not jax.tree.leaves(window.since_log)
