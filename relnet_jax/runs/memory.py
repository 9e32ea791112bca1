"""Memory: what a compiled training step will ask for and what is free, and one line for whoever ran out of it."""
import os
import re
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import logging
from ml_collections import ConfigDict

from relnet_jax.errors import UserError

FULL = 'RESOURCE_EXHAUSTED'     # how XLA's errors begin where memory is what lacked
UNLIMITED = 1 << 60             # bytes; a limit of a group of processes above it is none
CGROUPS, PROC = Path('/sys/fs/cgroup'), Path('/proc')


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


def gigabytes(count: int) -> str:
    return f'{count / 1e9:.2f} GB' if count < 1e10 else f'{count / 1e9:.0f} GB'


# ---- what is free ----
def free_bytes(devices: Sequence[jax.Device]) -> int | None:
    """On the fullest of `devices`; where these are processors, what this process may still take of the system. None
    where nothing tells."""
    if devices[0].platform == 'cpu':
        return host_free()
    found = [stats['bytes_limit'] - stats['bytes_in_use'] for stats in (d.memory_stats() or {} for d in devices)
             if {'bytes_limit', 'bytes_in_use'} <= stats.keys()]
    return min(found, default=None)


def host_free(*, proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Bytes that the system has to give, or less where a limit of the process (ulimit -v) or of its group (a container,
    a batch system) comes first. None outside Linux."""
    found = []
    if available := _number(proc / 'meminfo', r'MemAvailable:\s*(\d+) kB'):
        found.append(1024 * available)
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and (pages := _number(proc / 'self' / 'statm', r'(\d+)')):
        found.append(max(limit - pages * os.sysconf('SC_PAGE_SIZE'), 0))
    for folder, most, taken, cache in _groups(proc, cgroups):
        limit, used = _number(folder / most, r'(\d+)'), _number(folder / taken, r'(\d+)')
        if limit is not None and used is not None and limit < UNLIMITED:
            given_back = _number(folder / 'memory.stat', rf'{cache} (\d+)') or 0    # of files, when it is wanted
            found.append(max(limit - used + given_back, 0))
    return min(found, default=None)


def _groups(proc: Path, cgroups: Path) -> Iterator[tuple[Path, str, str, str]]:
    """(folder, names of its limit, of what is taken and of the part of that which can be given back) of the control
    groups, of version 2 and 1, that this process is in and of those around them."""
    try:
        lines = (proc / 'self' / 'cgroup').read_text(encoding='utf-8').splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, kinds, name = line.split(':', 2)
        if kinds and 'memory' not in kinds.split(','):
            continue
        root = cgroups / 'memory' if kinds else cgroups
        names = (('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file') if kinds else
                 ('memory.max', 'memory.current', 'inactive_file'))
        folder = root / name.lstrip('/')
        for place in (folder, *folder.parents):
            yield place, *names
            if place == root:
                break


def _number(file: Path, pattern: str) -> int | None:
    """What the pattern finds at the beginning of a line of a file; None without it."""
    try:
        found = re.search(f'^{pattern}', file.read_text(encoding='utf-8'), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return int(found[1]) if found else None


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
