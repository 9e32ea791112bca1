"""Memory: what a compiled training step will ask for and what is free, and one line for whoever ran out of it."""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from absl import logging
from ml_collections import ConfigDict

from relnet_jax.errors import UserError
from relnet_jax.host_memory import gigabytes, host_free

FULL = 'RESOURCE_EXHAUSTED'     # how XLA's errors begin where memory is what lacked


class OutOfMemory(UserError):
    """The system or a device had less memory than was asked for."""


class Need(NamedTuple):
    """Bytes on one device. state: parameters, average and optimiser, which stay. running: what else a step takes."""
    state: int
    running: int


def step_need(compiled: Any, state: Any) -> Need | None:
    """What the compiler says of a step(state, batch) that it compiled; None where it says nothing. Python, JAX and the
    program itself come on top."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    own = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    whole = (analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
             + analysis.temp_size_in_bytes)
    return Need(own, max(whole - own, 0))


def log_need(compiled: Any, state: Any, config: ConfigDict) -> None:
    """One line of what a step needs on each device and what is free there; a warning where that is less."""
    need, devices = step_need(compiled, state), jax.local_devices()
    if need is None:
        return
    free = free_bytes(devices)
    shared = len(devices) if devices[0].platform == 'cpu' else 1        # devices that take from the same memory
    logging.info('a step needs about %s%s: %s for parameters and optimiser, %s while it runs%s', gigabytes(sum(need)),
                 ' on each device' if len(devices) > 1 else '', gigabytes(need.state), gigabytes(need.running),
                 '' if free is None else f'; {gigabytes(free)} are free')
    if free is not None and need.running * shared > free:
        logging.warning('the training step may run out of memory: it needs about %s while it runs, and %s are free. %s',
                        gigabytes(need.running * shared), gigabytes(free), training_remedies(config))


def free_bytes(devices: Sequence[jax.Device]) -> int | None:
    """On the fullest of `devices`; where these are processors, what this process may still take of the system. None
    where nothing tells."""
    if devices[0].platform == 'cpu':
        return host_free()
    found = [stats['bytes_limit'] - stats['bytes_in_use'] for stats in (d.memory_stats() or {} for d in devices)
             if {'bytes_limit', 'bytes_in_use'} <= stats.keys()]
    return min(found, default=None)


# ---- where it was too little ----
def training_remedies(config: ConfigDict) -> str:
    """What makes a training step smaller, as far as the config has not done it, with the values it has now."""
    m, t = config.model, config.train
    down = [f'config.train.batch_size (now {t.batch_size})'] * (t.batch_size > 1) + [_image_size(config)]
    more = [f'raise config.train.accumulate (now {t.accumulate})'] * (t.accumulate < t.batch_size)
    more += ['set config.model.remat=True'] * (not m.remat) + ['config.model.dtype=bfloat16'] * (m.dtype == 'float32')
    return ', or '.join([f'Turn down {" or ".join(down)}', *more])


def detection_remedies(config: ConfigDict) -> str:
    """The same for evaluation and prediction."""
    count = config.test.batch_size
    down = [f'config.test.batch_size (now {count})'] * (count > 1) + [_image_size(config)]
    return f'Turn down {" or ".join(down)}'


def _image_size(config: ConfigDict) -> str:
    d = config.data
    return f'the images (config.data.canvas, scale and max_size, now {tuple(d.canvas)}, {d.scale} and {d.max_size})'


@contextmanager
def told(remedies: str) -> Iterator[None]:
    """Raises OutOfMemory, a line with what to do, for what Python, numpy or XLA raise where memory lacks."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and FULL not in text:
            raise
        said = ' '.join(text.rpartition(f'{FULL}:')[2].split())[:200].rstrip('.')
        raise OutOfMemory(f'out of memory{f" ({said})" if said else ""}. {remedies}') from error
