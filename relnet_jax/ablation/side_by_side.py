"""Several processes share the runs of one ablation: each takes the next that no other has.

A run is claimed by a lock in OUT/claims, which the system drops when the process ends, however it ends. So the same
command may be called in several terminals, or on several machines that see the same folder; `run` does so on one.
"""
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from absl import logging

from relnet_jax import cli
from relnet_jax.runs import workdir

WAIT = 2.0      # seconds between two looks


@contextmanager
def claim(out: Path, name: str) -> Iterator[bool]:
    """Whether the run `name` is this process's alone within; False if another has it."""
    with ExitStack() as stack:
        for wait in (0.1, 0):       # again, as `busy` of another process holds it for an instant
            try:
                stack.enter_context(workdir.held(out / 'claims' / name))
                break
            except workdir.HeldError:
                if not wait:
                    yield False
                    return
                time.sleep(wait)
        yield True


def busy(out: Path, name: str) -> bool:
    """Whether another process has the run `name`."""
    if not (out / 'claims' / name).exists():
        return False
    with claim(out, name) as ours:
        return not ours


def cores(count: int) -> list[set[int]]:
    """The cores that this process may use, in `count` parts of about the same size; where there are fewer cores than
    parts, parts share them."""
    own = sorted(os.sched_getaffinity(0))
    return [set(own[i::count]) or {own[i % len(own)]} for i in range(count)]


def run(command: Sequence[str], out: Path, count: int, progress: Callable[[], None]) -> int:
    """Calls `command` in `count` processes, each with its part of the cores and a log of its own in OUT/logs, and waits
    for all of them. Returns the highest exit code; WRONG stands for a process that a signal ended.

    `progress` is called every few seconds. Ctrl-C, SIGTERM and SIGHUP (a closed terminal) are passed on: each process
    then saves its run and ends.
    """
    (out / 'logs').mkdir(parents=True, exist_ok=True)
    children = []
    logs = [out / 'logs' / f'process_{i}.txt' for i in range(count)]
    # What is ignored stays so: nohup does that to SIGHUP.
    passed_on = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, lambda number, frame: sys.exit(cli.STOPPED)) for s in passed_on}
    try:
        for path, part in zip(logs, cores(count)):
            with open(path, 'w', encoding='utf-8') as log:
                # In a group of its own: Ctrl-C of the terminal would come on top of the signal that is passed on, and
                # at a second signal a training ends without saving.
                children.append(subprocess.Popen(command, stdout=log, stderr=log, process_group=0))
            os.sched_setaffinity(children[-1].pid, part)    # before it has threads, which take it over
        while any(child.poll() is None for child in children):
            progress()
            time.sleep(WAIT)
    finally:
        for child in children:
            child.terminate()       # nothing to one that has ended
        codes = [child.wait() for child in children]
        for number, handler in before.items():
            signal.signal(number, handler)
    for path, code in zip(logs, codes):
        if code not in (cli.DONE, cli.UNFINISHED):
            last = (path.read_text(encoding='utf-8', errors='replace').splitlines() or [''])[-1]
            logging.error('a process ended with the code %d, see %s: %s', code, path, last)
    return max(cli.WRONG if code < 0 else code for code in codes)


def without(argv: Sequence[str], flag: str) -> list[str]:
    """The arguments less `--flag=VALUE` and `--flag VALUE`."""
    return [a for a, last in zip(argv, ['', *argv])
            if not a.startswith(f'--{flag}=') and f'--{flag}' not in (a, last)]
