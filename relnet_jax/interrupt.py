"""Ctrl-C that is heard while the compiler runs."""
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 2.0      # seconds that the main thread has for coming back to Python


@contextmanager
def heard_at_once(leave: Callable[[], None]) -> Iterator[None]:
    """Within, Ctrl-C raises KeyboardInterrupt as ever; but `leave` is called, which must end the process, where that
    does not happen within PATIENCE, because the main thread is in compiled code and a signal's handler waits for it.

    Does nothing outside the main thread, and where Ctrl-C is ignored or handled otherwise; while a handler of another's
    is in place (training has one, that saves first), it is left to that.
    """
    if (threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is not signal.default_int_handler):
        yield
        return
    heard = threading.Event()

    def interrupt(number, frame):
        heard.set()
        raise KeyboardInterrupt

    def watch():
        while number := os.read(reader, 1):     # b'' once the other end is closed
            if number[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is interrupt and not heard.wait(PATIENCE):
                leave()

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGINT, interrupt)
    before = signal.set_wakeup_fd(writer)       # where Python notes a signal at once, before any handler runs
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(writer)
        thread.join()
        os.close(reader)
