"""A run's folder before anything is written to it: one training at a time, and room for what it will write."""
import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from absl import logging

from relnet_jax.errors import UserError
from relnet_jax.runs.step_folder import steps

LOCK = '.lock'


class HeldError(UserError):
    """Another process has the folder."""


@contextmanager
def held(workdir: str | Path) -> Iterator[None]:
    """Within, no other process can hold the folder, which is made if needed and can be written to.

    The system drops the lock when the process ends, however it ends. Who only reads needs none. Raises HeldError that
    names who holds it, and OSError for a folder that cannot be made or written to.
    """
    path = Path(workdir) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not emptied before it is ours; never removed: another may wait for this file.
    with open(path, 'a+', encoding='utf-8') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise HeldError(f"'{workdir}': {_holder(file.read())} trains there; wait for it, stop it, or choose "
                            'another folder') from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            logging.warning("'%s' cannot be locked (%s): take care that no other process trains there", workdir,
                            error.strerror)
        try:
            file.truncate(0)
            file.write(json.dumps(dict(pid=os.getpid(), host=socket.gethostname(),
                                       since=datetime.now().astimezone().isoformat(' ', 'seconds'))))
            file.flush()
        except OSError as error:        # a full disk
            error.filename = str(path)
            raise
        yield


def _holder(text: str) -> str:
    try:
        found = json.loads(text)
        return f'process {found["pid"]} on {found["host"]}, since {found["since"]},'
    except (ValueError, TypeError, KeyError):
        return 'another process'


def check_room(workdir: str | Path, size: int, *, keep: int) -> None:
    """Raises UserError if a checkpoint of `size` bytes does not fit on the disk of an existing folder any more; warns
    if the steps of a whole run do not: the last `keep`, the best, the last healthy one, and the one being written."""
    free, missing = shutil.disk_usage(workdir).free, size * max(keep + 3 - len(steps(workdir)), 1)
    if free < size:
        raise UserError(f"'{workdir}': a checkpoint takes {_megabytes(size)}, and the disk has {_megabytes(free)} left")
    if free < missing:
        logging.warning("'%s': the disk has %s left, and the checkpoints of this run may take %s more", workdir,
                        _megabytes(free), _megabytes(missing))


def _megabytes(count: int) -> str:
    return f'{count / 1e6:.1f} MB'
