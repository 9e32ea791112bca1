"""What a process does before its first compilation."""
import ctypes
import logging as python_logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib
from absl import logging
from jax.experimental import multihost_utils

CACHE_VARIABLE = 'RELNET_JAX_CACHE'


def use_compilation_cache() -> str:
    """Keeps compiled programs in a folder, so that the next start of the same program does not compile again.

    The folder is $RELNET_JAX_CACHE, or relnet_jax under the user's cache directory; an empty variable turns it off. A
    folder that JAX was already told to use stays. Returns it, '' where off.
    """
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    folder = os.environ.get(CACHE_VARIABLE, jax.config.jax_compilation_cache_dir or str(home / 'relnet_jax'))
    jax.config.update('jax_compilation_cache_dir', folder or None)
    return folder


def log_devices() -> None:
    """One line: versions, kind and number of devices, processes. Several processes meet here for the first time, while
    they are still abreast: making connections has a time limit of its own, which a slow compilation can exceed."""
    devices = jax.devices()
    meet('start')
    several = f', {jax.process_count()} processes' if jax.process_count() > 1 else ''
    logging.info('JAX %s, jaxlib %s, %d x %s (%s)%s', jax.__version__, jaxlib.__version__, len(devices),
                 devices[0].device_kind, devices[0].platform, several)


def meet(where: str) -> None:
    """Waits until all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def log_compilation(what: str) -> None:
    logging.info('compiling %s: a few seconds if it was compiled before, else half a minute to some minutes', what)


def compile_ahead(function: Callable, *inputs) -> Callable:
    """The jitted `function`, compiled for `inputs`. What the compiler used is given back to the system before the
    program asks for its own memory: with a ResNet-50 half a gigabyte."""
    compiled = function.lower(*inputs).compile()
    give_back_memory()
    return compiled


def give_back_memory() -> None:
    """What was freed goes back to the system, where the C library is glibc, which would keep it."""
    if hasattr(libc := ctypes.CDLL(None), 'malloc_trim'):
        libc.malloc_trim(0)


def _is_worth_reading(record: python_logging.LogRecord) -> bool:
    if f'{os.sep}orbax{os.sep}' in record.pathname:
        return record.levelno == python_logging.WARNING     # what it calls an error it raises too
    if f'{os.sep}asyncio{os.sep}' in record.pathname:
        return 'never retrieved' not in record.getMessage()
    return record.levelno > python_logging.INFO or f'{os.sep}xla_bridge.py' not in record.pathname


def quiet_libraries() -> None:
    """Drops the INFO lines of Orbax, some fifty per checkpoint, and of JAX's search for devices; and what Orbax and
    TensorStore say of each of the hundreds of arrays that a full disk could not take: that is raised, and told once."""
    logging.get_absl_handler().addFilter(_is_worth_reading)     # which takes the same filter once
    if not isinstance(sys.unraisablehook, _WithoutEndedLoops):
        sys.unraisablehook = _WithoutEndedLoops(sys.unraisablehook)


class _WithoutEndedLoops(NamedTuple):
    """sys.unraisablehook without TensorStore's answers to an event loop that ended with the first failure."""
    tell: Callable[[Any], None]

    def __call__(self, unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == 'Event loop is closed'):
            self.tell(unraisable)
