"""What a step will need, what is free, and the line for whoever ran out of memory; real runs: test_out_of_memory.py."""
import logging
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax import config as config_lib
from relnet_jax.runs import memory
from relnet_jax.runs.memory import Need, OutOfMemory


def compiled_step(side):
    """A step whose state, batch and one temporary array [side, side] have sizes that can be counted, and its state."""
    def step(state, batch):
        product = batch @ batch.T       # sorted: some versions of XLA keep no product that is only summed
        return {'w': state['w'] + jnp.sum(jnp.sort(product, axis=0)[:3])}

    state, batch = {'w': np.zeros((300, 100), np.float32)}, np.zeros((side, 2), np.float32)
    return jax.jit(step, donate_argnums=0).lower(state, batch).compile(), state


def test_the_need_is_that_of_the_arrays():
    for side in (500, 1000):
        compiled, state = compiled_step(side)
        need = memory.step_need(compiled, state)
        product, batch = 4 * side * side, 8 * side
        assert need.state == 4 * 300 * 100
        assert product + batch <= need.running < 2 * product + batch + 10_000      # sorted in place


def test_a_compiler_that_says_nothing_costs_no_line(caplog):
    silent = namedtuple('Compiled', 'memory_analysis')(lambda: None)
    with caplog.at_level(logging.INFO, logger='absl'):
        memory.log_need(silent, {}, config_lib.load('base'))
    assert memory.step_need(silent, {}) is None and not caplog.records


@pytest.mark.parametrize('free, warned', [(None, False), (10**12, False), (100_000, True)])
def test_one_line_says_what_a_step_needs_and_a_warning_where_less_is_free(monkeypatch, caplog, free, warned):
    compiled, state = compiled_step(500)
    monkeypatch.setattr(memory, 'free_bytes', lambda devices: free)
    monkeypatch.setattr(memory, 'step_need', lambda compiled, state: Need(510_000_000, 1_790_000_000)
                        if not warned else Need(0, 100_000))
    monkeypatch.setattr(jax, 'local_devices', lambda: jax.devices()[:2 if warned else 1])
    with caplog.at_level(logging.INFO, logger='absl'):
        memory.log_need(compiled, state, config_lib.load('base'))
    lines = [record.getMessage() for record in caplog.records]
    if warned:      # two devices that share what is free
        assert len(lines) == 2 and 'on each device' in lines[0] and 'may run out of memory' in lines[1]
        assert 'Turn down config.train.batch_size (now 16)' in lines[1]
    else:
        said = 'a step needs about 2.30 GB: 0.51 GB for parameters and optimiser, 1.79 GB while it runs'
        assert lines == [said + ('; 1000 GB are free' if free else '')]


def test_of_several_devices_the_fullest_counts_and_nothing_is_known_of_those_that_do_not_tell():
    device = namedtuple('Device', 'platform memory_stats')
    stats = [dict(bytes_limit=100, bytes_in_use=taken) for taken in (20, 70, 0)]
    assert memory.free_bytes([device('gpu', lambda s=s: s) for s in stats]) == 30
    assert memory.free_bytes([device('gpu', lambda: None), device('gpu', lambda: {'bytes_in_use': 3})]) is None


# ---- what is said ----
@pytest.mark.parametrize('error, said', [
    (jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 2080907792 bytes.\nmore'),
     'out of memory (Out of memory allocating 2080907792 bytes. more). Do this'),
    (RuntimeError('Error: RESOURCE_EXHAUSTED: hbm'), 'out of memory (hbm). Do this'),
    (MemoryError(), 'out of memory. Do this'),
    (MemoryError('Unable to allocate 5 GiB\nfor x'), 'out of memory (Unable to allocate 5 GiB for x). Do this')])
def test_errors_of_memory_become_one_line(error, said):
    with pytest.raises(OutOfMemory) as caught, memory.told('Do this'):
        raise error
    assert str(caught.value) == said and caught.value.__cause__ is error


@pytest.mark.parametrize('error', [RuntimeError('INVALID_ARGUMENT: x'), ValueError('RESOURCE_EXHAUSTED'), OSError(28)])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, memory.told('Do this'):
        raise error
    assert caught.value is error


def test_remedies_name_what_can_still_be_done_with_its_present_value():
    config = config_lib.load('base')
    assert memory.training_remedies(config) == (
        'Turn down config.train.batch_size (now 16) or the images (config.data.canvas, scale and max_size, now '
        '(1024, 1024), 800 and 1024), or raise config.train.accumulate (now 1), or set config.model.remat=True, or '
        'config.model.dtype=bfloat16')
    with config.unlocked():
        config.train.batch_size, config.model.remat, config.model.dtype = 1, True, 'bfloat16'
        config.test.batch_size = 1
    for text in (memory.training_remedies(config), memory.detection_remedies(config)):
        assert text == ('Turn down the images (config.data.canvas, scale and max_size, now (1024, 1024), 800 and 1024)')
