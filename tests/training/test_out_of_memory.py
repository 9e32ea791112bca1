"""A training that runs out of memory ends with a line that says what to turn down, wherever it happened."""
import logging
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from relnet_jax import cli, eval, predict
from relnet_jax.data import pipeline
from relnet_jax.detector.detector import Detector
from relnet_jax.evaluation import evaluate
from relnet_jax.runs import checkpoint
from relnet_jax.runs.memory import OutOfMemory
from relnet_jax.training import loop
from tests.tiny_run import tiny_config, write_run
from tests.training.test_processes import environment

FULL = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.')


def fail(*args, **kwargs):
    raise FULL


def test_a_step_that_finds_no_memory_names_what_to_turn_down_and_keeps_the_last_checkpoint(config, tmp_path,
                                                                                          monkeypatch, caplog):
    config.train.steps = 2
    with caplog.at_level(logging.INFO, logger='absl'):
        loop.train(config, tmp_path)
    assert sum('a step needs about ' in record.getMessage() for record in caplog.records) == 1
    config.train.steps = 4
    monkeypatch.setattr(loop.startup, 'compile_ahead', lambda function, *inputs: fail)
    monkeypatch.setattr(loop.memory, 'log_need', lambda *args: None)
    with pytest.raises(OutOfMemory, match=r'out of memory \(Out of memory allocating 99 bytes\)\. Turn down '
                                          r'config\.train\.batch_size \(now 4\) or .*config.train.accumulate'):
        loop.train(config, tmp_path)
    assert checkpoint.steps(tmp_path) == [2]


def test_an_evaluation_that_finds_no_memory_costs_no_training_and_names_its_own_size(config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, 'detect_source', fail)
    with pytest.raises(OutOfMemory, match=r'Turn down config\.test\.batch_size \(now 2\) or '):
        loop.train(config, tmp_path)
    assert checkpoint.steps(tmp_path)[-1] == config.train.steps


def test_a_reader_thread_that_finds_no_memory_is_no_unreadable_image(config, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise MemoryError('Unable to allocate 8 GiB')
    monkeypatch.setattr(pipeline.batching, 'pad_example', full)
    with pytest.raises(OutOfMemory, match=r'out of memory \(.*Unable to allocate 8 GiB.*\)\. Turn down config.train.b'):
        loop.train(config, tmp_path)


@pytest.mark.parametrize('command', [eval, predict])
def test_evaluation_and_prediction_end_with_the_line_and_its_exit_code(command, tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / 'run', tiny_config())
    monkeypatch.setattr(evaluate, 'evaluate_checkpoint', fail)
    monkeypatch.setattr(Detector, 'load', fail)
    images = [f'--images={Path(__file__).parents[2] / "docs" / "phantom.jpg"}'] if command is predict else []
    assert command.main([f'--ckpt={run}', f'--out={tmp_path / "out"}', *images]) == cli.WRONG
    assert 'out of memory (Out of memory allocating 99 bytes). Turn down config.test.batch_size (now 2)' in (
        capsys.readouterr().err.splitlines()[-1])


HUNGRY = """
import re, resource, sys
from pathlib import Path
import jax, jax.numpy as jnp
from relnet_jax import cli
from relnet_jax.models import mask_rcnn
from relnet_jax.training import loop
from tests.training import standin
from tests.training.conftest import loop_config

class Hungry(standin.Standin):
    def losses(self, batch, keys):
        losses, metrics = super().losses(batch, keys)
        row = jnp.sin(jnp.arange(1 << 15) * losses['loss_cls'][0])
        table = jnp.sin(jnp.outer(row, row))            # 4 GiB that a product needs whole
        return losses | dict(loss_more=(jnp.sum(table @ table), jnp.float32(1))), metrics

mask_rcnn.build = lambda config, num_classes, adjacency=None: Hungry(num_classes=num_classes)
pages = int(Path('/proc/self/statm').read_text().split()[0])
limit = pages * resource.getpagesize() + (3 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(cli.run('train', '', lambda values: None, lambda call: loop.train(loop_config(), sys.argv[1]), ['--']))
"""


def test_a_process_with_too_little_memory_is_warned_before_the_first_step_and_ends_with_one_line(tmp_path):
    """For real: a limit of 3 GiB on what the process may take beside its start, and a step that takes 4 GiB more."""
    done = subprocess.run([sys.executable, '-c', HUNGRY, tmp_path / 'run'], cwd=Path(__file__).parents[2],
                          capture_output=True, text=True, timeout=300, env=environment(1))
    assert done.returncode == cli.WRONG and 'Traceback' not in done.stderr, done.stderr
    assert 'the training step may run out of memory: it needs about ' in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith('train: out of memory (Out of memory allocating ') and 'config.train.batch_size' in last
