"""Progress of long work: a bar on a terminal; elsewhere lines in the log, now and then, with the time left."""
import datetime
import functools
import sys
import time

from absl import logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

REPORT_EVERY = 30.0     # seconds between lines where there is no terminal


@functools.cache
def _console() -> Console:
    """One for all bars: rich shows bars within bars of one console only."""
    return Console(stderr=True)


class Bar:
    """`with Bar('validation images', total=200, unit='img') as bar: ... bar.advance(8)`, on stderr.

    An empty title is silent. lines=False: no lines in the log of its own accord, for work that calls `say`.
    """

    def __init__(self, title: str, *, total: int, unit: str, done: int = 0, lines: bool = True):
        self._title, self._total, self._unit, self._done, self._lines = title, total, unit, done, lines and bool(title)
        self._bar = None
        if title and sys.stderr.isatty():
            self._bar = Progress(TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
                                 TimeRemainingColumn(compact=True), TextColumn('{task.fields[note]}'),
                                 console=_console())
            self._task = self._bar.add_task(title, total=total, completed=done, note='')

    def __enter__(self) -> 'Bar':
        self._first = self._said = self._done
        self._start = self._last = time.monotonic()
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        self.close()
        if self._lines and not self._bar:
            self._report()

    def close(self) -> None:
        """Leaves the bar as it is, for what is printed below it before the work is over."""
        if self._bar:
            self._bar.stop()

    def advance(self, count: int = 1) -> None:
        self._done += count
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        elif self._lines and time.monotonic() - self._last >= REPORT_EVERY:
            self._report()

    def say(self, text: str, *, line: str, note: str) -> None:
        """`text` goes into the log. With a bar `note` stands beside it instead, and `line` goes into the log whenever
        another tenth of the work is done."""
        if not self._bar:
            logging.info('%s', text)
            return
        self._bar.update(self._task, note=note)
        if 10 * self._done // self._total > 10 * self._said // self._total:
            logging.info('%s', line)
        self._said = self._done

    def _report(self) -> None:
        self._last = time.monotonic()
        elapsed, done = self._last - self._start, self._done - self._first
        left = datetime.timedelta(seconds=round(elapsed / max(done, 1) * (self._total - self._done)))
        logging.info('%s: %d/%d %s, %.1f %s/s, eta %s', self._title, self._done, self._total, self._unit,
                     done / max(elapsed, 1e-9), self._unit, left)
