"""The runs of an ablation with their seeds: what is done of them, and how long the rest will take."""
import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging
from ml_collections import ConfigDict

from relnet_jax.ablation import folds, results, side_by_side
from relnet_jax.training import phases


def workdir_of(out: Path, run: str, seed: int | str) -> Path:
    return out / 'runs' / results.run_name(run, seed)


class Job(NamedTuple):
    """One run with one seed."""
    config: ConfigDict
    asked: dict             # the keys of a result file that are known before running
    result: dict | None     # of the result file, if there is one
    folds: int = 1          # trainings of the run, each with another part held out
    after: str = ''         # the name of the one it starts from

    @property
    def name(self) -> str:
        return results.run_name(self.asked['run'], self.asked['seed'])

    def workdir(self, out: Path) -> Path:
        return workdir_of(out, self.asked['run'], self.asked['seed'])

    def missing_boxes(self, counts: list[int]) -> list[int]:
        """Of the numbers of test boxes asked for, those that are not measured yet."""
        done = self.result['boxes'] if self.result else {str(self.config.test.boxes)}
        return [count for count in counts if str(count) not in done]


class Piece(NamedTuple):
    """What one process does at a time: a run with a seed, or one fold of it."""
    job: Job
    fold: int | None

    @property
    def name(self) -> str:
        return self.job.name if self.fold is None else f'{self.job.name}_fold_{self.fold}'


def pieces(jobs: Sequence[Job]) -> list[Piece]:
    """The folds of runs without a result; other runs as a whole."""
    return [Piece(job, fold) for job in jobs
            for fold in (range(job.folds) if job.folds > 1 and job.result is None else (None,))]


def with_results(jobs: list[Job], out: Path) -> list[Job]:
    """`jobs` with the results that there are by now."""
    stored = {results.run_name(r['run'], r['seed']): r for r in results.read_all(out)}
    return [job._replace(result=stored.get(job.name)) for job in jobs]


def index_of(jobs: list[Job], job: Job) -> int:
    return [j.name for j in jobs].index(job.name)


def working(jobs: list[Job], out: Path) -> int:
    """How many processes train runs of `jobs`, this one included, which has claimed its own."""
    return max(1, sum(side_by_side.busy(out, piece.name) for piece in pieces(jobs) if piece.job.result is None))


def finished_folds(jobs: list[Job], out: Path) -> list[dict]:
    """What the finished folds of unfinished runs gave."""
    return [found for job in jobs if job.result is None and job.folds > 1
            for found in folds.finished(job.config, job.workdir(out))]


def time_left(jobs: list[Job], folds_done: Sequence[dict] = (), *, processes: int = 1) -> str:
    """From the seconds per step of what is done; steps of different runs are taken to cost about the same.

    folds_done: those of runs that are not finished.
    """
    done = [r for r in (*(job.result for job in jobs), *folds_done) if r and not r['resumed_at_step']]
    if not done:
        return f"unknown before the first {'fold' if jobs[0].folds > 1 else 'run'} is done"
    pace = sum(r['seconds'] for r in done) / sum(r['steps'] * r.get(results.FOLDS, 1) for r in done)
    steps = sum(phases.total_steps(job.config) * job.folds for job in jobs if not job.result)
    steps -= sum(r['steps'] for r in folds_done)
    return str(datetime.timedelta(seconds=round(pace * steps / processes)))


def follow(jobs: list[Job], out: Path, processes: int) -> Callable[[], None]:
    """A function that says how far other processes are, whenever one more run is done."""
    said = None

    def say() -> None:
        nonlocal said
        done = sum(results.file_named(out, job.name).exists() for job in jobs)
        if done not in (said, len(jobs)):
            logging.info('%d of %d runs with their seeds are done; time left: %s', done, len(jobs),
                         time_left(now := with_results(jobs, out), finished_folds(now, out), processes=processes))
        said = done
    return say
