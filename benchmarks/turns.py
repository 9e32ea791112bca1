"""Work of several processes done in turns, A B A B, so that a busy machine is as busy for one as for the other.

A worker is a program that gets its job as JSON in its first argument, makes the pieces of work it is about and calls
`serve`. Needs nothing but Python: a worker may run under a Python without this project's packages.
"""
import json
import os
import resource
import subprocess
import time
from collections.abc import Callable


def serve(work: dict[str, Callable[[], object]], about: dict) -> None:
    """Says what this worker can do, then does one piece of it for each name that comes in, until there is no more.

    A piece of work returns when it is done; what it returns is dropped.
    """
    print(json.dumps(dict(about, work=list(work))), flush=True)
    while True:
        try:
            name = input()
        except EOFError:
            return
        wall, processor = time.perf_counter(), time.process_time()
        work[name]()
        print(json.dumps(dict(wall=time.perf_counter() - wall, cpu=time.process_time() - processor,
                              peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20)), flush=True)


class Worker:
    """A running worker: `about` is what it said of itself. Raises RuntimeError where it ends without an answer."""

    def __init__(self, command: list[str], job: dict, **environment: str):
        self.process = subprocess.Popen([*command, json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=os.environ | environment)
        start = time.perf_counter()
        self.about = self._answer()
        self.ready_s = time.perf_counter() - start

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError(f'{self.process.args[:-1]} ended with exit code {self.process.returncode}')
        return json.loads(line)

    def run(self, name: str) -> dict:
        self.process.stdin.write(name + '\n')
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        self.process.communicate()


def in_turns(workers: dict[str, Worker], names: list[str], rounds: int) -> dict[str, dict[str, dict]]:
    """worker -> name of work -> best wall and processor seconds of `rounds` after one that does not count, and the peak
    memory of the process so far. What a worker does not know it is not asked for."""
    found = {side: {} for side in workers}
    for name in names:
        for lap in range(rounds + 1):
            for side, worker in workers.items():
                if name in worker.about['work']:
                    new = worker.run(name)
                    old = found[side].get(name, new) if lap > 1 else new
                    found[side][name] = {'wall': min(new['wall'], old['wall']), 'cpu': min(new['cpu'], old['cpu']),
                                         'peak_gib': new['peak_gib']}
    return found
