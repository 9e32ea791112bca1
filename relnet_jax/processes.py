"""Several processes that work as one: how they meet, what they tell each other, and how all end when one does.

JAX connects them: `join` wraps jax.distributed. With one process everything here does nothing, or calls the function.
"""
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from relnet_jax import native_log
from relnet_jax.errors import UserError

AUTO = 'auto'
HEARTBEAT = 20      # seconds without a sign of life after which a process counts as dead
PIECE = 1 << 23     # bytes that each process tells the others at once
LOST = re.compile('Gloo|NCCL|RCCL|UNAVAILABLE|coordination service')        # in errors that another process caused


# ---- meeting ----
def join(coordinator: str, count: int = 0, own: int = -1, *, stop_together: bool = False) -> None:
    """Makes this process one of `count`, of which `own` (from 0) it is; process 0 listens at `coordinator`, host:port.

    Without `coordinator` the variables JAX_COORDINATOR_ADDRESS, NUM_PROCESSES and PROCESS_ID count, and where they are
    not set nothing happens; 'auto' asks the cluster as JAX knows it (Slurm, Open MPI, TPU, Kubernetes). Before anything
    is computed. stop_together: SIGTERM does not end the process but is noted for `multihost_utils`.
    Raises UserError for half of what it takes, and where the others did not come.
    """
    if not coordinator:
        coordinator = os.environ.get('JAX_COORDINATOR_ADDRESS', '')
        if not coordinator:
            return
        try:
            count, own = (int(os.environ[name]) for name in ('NUM_PROCESSES', 'PROCESS_ID'))
        except (KeyError, ValueError) as error:
            raise UserError('JAX_COORDINATOR_ADDRESS is set: expected NUM_PROCESSES and PROCESS_ID as numbers beside '
                            f'it, got {error}') from error
    elif coordinator != AUTO and (count < 1 or own < 0):
        raise UserError(f'--coordinator={coordinator}: expected --num_processes and --process_id beside it')
    if coordinator != AUTO and not re.fullmatch(r'.+:\d+', coordinator):
        raise UserError(f"--coordinator={coordinator}: expected 'host:port' of process 0, or 'auto'")
    if coordinator != AUTO and not 0 <= own < count:
        raise UserError(f'--process_id={own}: expected a number from 0 to {count - 1}')
    known = {} if coordinator == AUTO else dict(coordinator_address=coordinator, num_processes=count, process_id=own)
    jax.config.update('jax_enable_preemption_service', stop_together)
    native_log.watch(_tell_of_death)
    sys.excepthook = _end_at_once(sys.excepthook)
    try:
        jax.distributed.initialize(**known, heartbeat_timeout_seconds=HEARTBEAT)
    except (ValueError, RuntimeError) as error:
        if 'should be defined' in str(error) or 'must be defined' in str(error):
            raise UserError('--coordinator=auto: JAX finds no Slurm, Open MPI, TPU or Kubernetes in the environment; '
                            'give --coordinator=HOST:PORT --num_processes=N --process_id=I') from error
        raise UserError(f'the processes did not meet: {" ".join(str(error).split())[:300]}') from error
    if jax.process_index():
        logging.set_verbosity(logging.WARNING)      # what all say, process 0 says


def is_first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


# ---- ending ----
def leave(code: int) -> int:
    """The exit code of a process that failed; but where others wait for it, it ends at once, since JAX would have it
    wait for them. They are told within HEARTBEAT seconds."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        native_log.drain()
        os._exit(code)
    return code


def lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone. Left alone, it ends this one with a line that says which."""
    return (isinstance(error, (RuntimeError, ValueError)) and jax.distributed.is_initialized()
            and bool(LOST.search(str(error))))


def _end_at_once(hook: Callable) -> Callable:
    def ended(kind, error, trace):
        if lost(error):
            time.sleep(1.5 * HEARTBEAT)     # another process died, it seems: JAX knows in a while and ends this one
        hook(kind, error, trace)
        leave(1)
    return ended


def _tell_of_death(text: str) -> str | None:
    """The one line for what JAX said before it ended this process, None where that was about something else."""
    if 'distributed service detected fatal errors' not in text:
        return None
    dead = re.search(r'[Tt]ask (\d+) heartbeat timeout|stopped sending heartbeats\):\s+(\d+)', text)
    who = f'process {dead[1] or dead[2]}' if dead else 'process 0' if 'leader task' in text else 'another process'
    return (f'{who} of this run has ended or cannot be reached, so this one ends too; why is in the output of {who}. '
            'Start all again to resume')


# ---- telling ----
def gather(value: Any) -> list:
    """The JSON values of all processes in their order, in process 0; elsewhere []. All call it."""
    if jax.process_count() == 1:
        return [value]
    content = json.dumps(value).encode()
    sizes = np.ravel(multihost_utils.process_allgather(np.int64(len(content))))
    parts = [[] for _ in sizes]
    for start in range(0, int(sizes.max()), PIECE):       # by pieces of one shape, for the memory of the devices
        piece = np.zeros(PIECE, np.uint8)
        own = np.frombuffer(content[start:start + PIECE], np.uint8)
        piece[:len(own)] = own
        for part, found in zip(parts, multihost_utils.process_allgather(piece)):
            if is_first():
                part.append(found.tobytes())
    return [json.loads(b''.join(part)[:size]) for part, size in zip(parts, sizes)] if is_first() else []


def from_first(function: Callable[[], Any]) -> Any:
    """What `function` returns in process 0, a JSON value; the others wait and are told. What it raises is raised, and
    as UserError in the others."""
    if jax.process_count() == 1:
        return function()
    error, told = None, None
    if is_first():
        try:
            told = dict(value=function())
        except Exception as caught:
            error, told = caught, dict(error=f'{type(caught).__name__}: {caught}')
    content = json.dumps(told).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int64(len(content))))
    text = np.zeros(size, np.uint8)
    if is_first():
        text[:] = np.frombuffer(content, np.uint8)
    told = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(text)).tobytes())
    if error is not None:
        raise error
    if 'error' in told:
        raise UserError(f'process 0 failed: {told["error"]}')
    return told['value']


def own_share(count: int) -> range:
    """The part of `count` things that is this process's: side by side in the order of processes, as even as can be."""
    processes, own = jax.process_count(), jax.process_index()
    return range(count * own // processes, count * (own + 1) // processes)
