"""What native code writes to stderr before it ends the process, told in one line where that is known.

JAX's distributed runtime ends a process from a thread of its own, by abort(): with a stack dump and no way to ask it
for something else (its callback for that fails in converting the status, jaxlib 0.10).
"""
import ctypes
import logging as python_logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable

SUSPECT = re.compile(rb'[WEF]\d{4} .*(coordination_service|preemption_sync_manager|client\.h)|Additional GRPC error')
PATIENCE = 2.0      # seconds that suspicious lines are kept, for what follows them
DIED = 2
_state: dict = {}


def watch(told: Callable[[str], str | None]) -> None:
    """From now on native lines on stderr that may be its last words are held back for a moment; where the process is
    aborted, `told` makes of them the one line that is written in their place, with exit code 2, or None: then they are
    written and the abort goes on. Python's own stderr is not touched."""
    if _state:
        return
    sys.stderr.flush()
    own = os.dup(2)
    stream = os.fdopen(own, 'w', buffering=1, errors='backslashreplace', closefd=False)
    for handler in (h for logger in (python_logging.root,) for h in logger.handlers):
        inner = getattr(handler, 'python_handler', handler)     # absl's wraps one
        if getattr(inner, 'stream', None) is sys.stderr:
            inner.setStream(stream)
    sys.stderr = stream
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    held: list[bytes] = []
    _state.update(held=held, own=own, since=0.0)
    threading.Thread(target=_forward, args=(reader,), daemon=True).start()
    threading.Thread(target=_release, daemon=True).start()

    def aborted(number):
        time.sleep(0.3)     # for the reader
        if line := told(b''.join(held).decode(errors='replace')):
            os.write(own, f'{os.path.basename(sys.argv[0]).removesuffix(".py")}: {line}\n'.encode())
            os._exit(DIED)
        os.write(own, b''.join(held))
        libc.signal(signal.SIGABRT, None)

    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    _state['handler'] = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)       # kept: C only knows its address
    libc.signal(signal.SIGABRT, ctypes.cast(_state['handler'], ctypes.c_void_p))


def drain() -> None:
    """Writes what is held back. Before a process ends by os._exit."""
    if _state:
        time.sleep(0.05)
        _let_go()


def _let_go() -> None:
    held = _state['held']
    text = b''.join(held)
    held.clear()
    if text:
        os.write(_state['own'], text)


def _forward(reader: int) -> None:
    for line in os.fdopen(reader, 'rb'):
        if _state['held'] or SUSPECT.match(line):
            if not _state['held']:
                _state['since'] = time.monotonic()
            _state['held'].append(line)
        else:
            os.write(_state['own'], line)


def _release() -> None:
    while True:
        time.sleep(0.5)
        if _state['held'] and time.monotonic() - _state['since'] > PATIENCE:
            _let_go()
