"""What a run meets beside its data: readers that fail or hang, slow disks, clocks that jump."""
import dataclasses
import itertools
import os
import random
import shutil
import signal
import threading
import time

import pytest

from relnet_jax.runs import checkpoint, manifest
from relnet_jax.runs.workdir import held
from relnet_jax.training import loop
from tests.training.test_interruption import assert_same_run


@pytest.fixture
def load(monkeypatch):
    """load(change): from now on images of a training are loaded by `change(load, index)`. Gives back a way to undo."""
    real = loop.pipeline.open_sources

    def arrange(change):
        def open_sources(config):
            train, val = real(config)
            return dataclasses.replace(train, load=lambda i: change(train.load, i)), val
        monkeypatch.setattr(loop.pipeline, 'open_sources', open_sources)
        return lambda: monkeypatch.setattr(loop.pipeline, 'open_sources', real)
    return arrange


@pytest.fixture
def whole(config, tmp_path):
    """The folder of a run of six steps that nothing troubled."""
    loop.train(config, tmp_path / 'whole')
    return tmp_path / 'whole'


@pytest.mark.parametrize('threads', [0, 2])
@pytest.mark.parametrize('error', [RuntimeError('a decoder broke'), SystemExit(3), MemoryError(), BaseException('odd')])
def test_a_reader_that_dies_ends_the_run_with_its_own_error_and_the_next_start_goes_on(config, whole, tmp_path, load,
                                                                                       threads, error):
    config.data.threads, count, lock = threads, [0], threading.Lock()

    def dies(real, index):
        with lock:
            count[0] += 1
        if count[0] > 20:       # of four images in each step, some read ahead, and eight looked at before
            raise error
        return real(index)

    undo = load(dies)
    config.train.checkpoint_every = 1
    with pytest.raises(BaseException) as caught:
        loop.train(config, tmp_path / 'cut')
    assert caught.value is error or error is caught.value.__cause__ or str(error) in str(caught.value)
    assert not isinstance(caught.value, checkpoint.CheckpointError)
    with held(tmp_path / 'cut'):
        pass        # nothing holds the folder any more
    config.train.checkpoint_every = 2
    undo()
    loop.train(config, tmp_path / 'cut')
    assert_same_run(whole, tmp_path / 'cut')


def test_a_reader_that_hangs_can_be_ended_by_two_signals_and_the_next_start_goes_on(config, whole, tmp_path, load):
    hung, released, count = threading.Event(), threading.Event(), [0]

    def hangs(real, index):
        count[0] += 1
        if count[0] > 28:
            hung.set()
            released.wait()
        return real(index)

    def interrupt():
        hung.wait()
        time.sleep(0.5)         # what was read before is used up meanwhile
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        released.set()

    undo = load(hangs)
    config.data.threads = 1
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, tmp_path / 'cut')
    thread.join()
    undo()
    assert loop.train(config, tmp_path / 'cut').step == 6
    assert_same_run(whole, tmp_path / 'cut')


def test_slow_disks_change_no_number(config, whole, tmp_path, load, monkeypatch):
    """Images that take up to 30 ms each in an order of their own, and checkpoints that take longer than steps."""
    chance, seal = random.Random(3), manifest.seal

    def slow(real, index):
        time.sleep(chance.uniform(0, 0.03))
        return real(index)

    def slow_seal(folder):
        time.sleep(0.5)
        seal(folder)

    load(slow)
    monkeypatch.setattr(manifest, 'seal', slow_seal)
    loop.train(config, tmp_path / 'slow')
    assert_same_run(whole, tmp_path / 'slow')


YEAR = 365 * 86400.0


def clock(begin, jump):
    """A `time.time` that is `begin` seconds off and jumps by `jump` whenever it is looked at."""
    real, looks = time.time(), itertools.count()
    return lambda: real + begin + jump * next(looks)


def test_a_clock_that_is_set_back_all_the_while_and_between_starts_changes_no_number(config, whole, tmp_path, at_batch,
                                                                                    monkeypatch):
    run = tmp_path / 'cut'
    monkeypatch.setattr(time, 'time', clock(20 * YEAR, -YEAR / 12))
    undo = at_batch(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert loop.train(config, run).step == 4
    undo()
    for path in sorted(run.rglob('*')):        # the newest step looks the oldest
        age = 10 * YEAR if '/4' in str(path) else 0
        os.utime(path, (2e9 - age, 2e9 - age))
    monkeypatch.setattr(time, 'time', clock(-20 * YEAR, -3600))
    loop.train(config, run)
    assert checkpoint.steps(run)[-1] == 6
    assert_same_run(whole, run)


def test_a_copied_run_goes_on_where_it_was(config, whole, tmp_path, at_batch):
    """Copies have new times, and another place."""
    undo = at_batch(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    loop.train(config, tmp_path / 'first')
    undo()
    shutil.copytree(tmp_path / 'first', tmp_path / 'copy')
    loop.train(config, tmp_path / 'copy')
    assert_same_run(whole, tmp_path / 'copy')
