"""The loop on a few phantom images with the stand-in model, which compiles in a second, and what interrupts it."""
import json
import re

import jax
import numpy as np
import pytest

from relnet_jax.models import mask_rcnn
from relnet_jax.training import loop
from tests.training import standin


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setattr(mask_rcnn, 'build', standin.build)
    return loop_config()


def loop_config():
    c = standin.small_config()
    c.data.format, c.data.threads, c.data.prefetch = 'phantom', 2, 2
    c.data.phantom.size, c.data.phantom.train_images, c.data.phantom.val_images = 64, 8, 3
    c.train.ema, c.train.log_every, c.train.checkpoint_every = 0.9, 2, 2
    c.test.batch_size = 2
    return c


@pytest.fixture
def at_batch(monkeypatch):
    """at_batch(n, action): runs `action` when the loop asks for its n-th batch from now on."""
    def arrange(n, action):
        real = loop.pipeline.train_batches

        def batches(*args, **kwargs):
            for i, batch in enumerate(real(*args, **kwargs), 1):
                if i == n:
                    action()
                yield batch
        monkeypatch.setattr(loop.pipeline, 'train_batches', batches)
        return lambda: monkeypatch.setattr(loop.pipeline, 'train_batches', real)
    return arrange


def lines(workdir):
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def without_origin(path, run):
    """The bytes of a file without the minute and the command that it was written by, which names the run's folder."""
    text = re.sub(rb'\d{4}-\d\d-\d\d \d\d:\d\d UTC', b'', path.read_bytes())
    return text.replace(str(run).encode(), b'FOLDER').replace(f'{run.name}, step'.encode(), b'RUN, step')


def assert_same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


class Killed(Exception):
    pass


def kill():
    raise Killed
