"""What one process of an ablation does: it trains a run or a fold of it, and writes down what was measured."""
import shutil
from contextlib import ExitStack
from pathlib import Path

from absl import logging

from relnet_jax.ablation import folds, results, runner, side_by_side
from relnet_jax.ablation.jobs import Job, Piece, finished_folds, index_of, time_left, with_results, working
from relnet_jax.runs import checkpoint
from relnet_jax.training.window import NonFiniteLoss


class Stopped(Exception):
    """A signal ended a training, which saved its state."""


def do(piece: Piece, jobs: list[Job], *, out: Path, boxes: list[int], keep_checkpoints: bool, command: str
       ) -> Job | None:
    """Trains, evaluates and records what no other process has or had. Returns the run, with its result if it is
    finished and was not left to another process; None if it has to be passed over. Raises Stopped."""
    with side_by_side.claim(out, piece.name) as ours:
        if not ours:
            logging.info('%s: another process has it', piece.name)
            return piece.job._replace(result=None)
        jobs = with_results(jobs, out)
        job = jobs[index_of(jobs, piece.job)]
        if job.result is None:
            measured = train(piece, jobs, out=out)
            if measured is None:
                return None
            job = record(job, measured, out=out, command=command)
        elif piece.fold is not None:
            return job              # another process had its last fold
        if job.result is not None:
            add_boxes(job, boxes, out=out)
            if not keep_checkpoints:
                remove_checkpoints(job, out=out)
        return job


def train(piece: Piece, jobs: list[Job], *, out: Path) -> dict | None:
    """Trains and evaluates what no other process has, and returns what was measured; None if it has to be passed over,
    which is logged. Raises Stopped."""
    job, fold, workdir = piece.job, piece.fold, piece.job.workdir(out)
    if job.after and not results.file_named(out, job.after).exists():
        logging.error('%s is passed over: %s, which it starts from, is not finished', job.name, job.after)
        return None
    left = time_left(jobs, finished_folds(jobs, out), processes=working(jobs, out))
    try:
        if fold is None:
            logging.info('run %d of %d: %s; time left: %s', index_of(jobs, job) + 1, len(jobs), job.name, left)
            measured = runner.run_once(job.config, workdir)
        else:
            logging.info('%s, fold %d of %d; time left: %s', job.name, fold + 1, job.folds, left)
            measured = folds.run_fold(job.config, workdir, fold)
    except NonFiniteLoss as error:
        logging.error('%s is passed over: %s', piece.name, error)
        return None
    if measured is None:
        logging.warning('%s was stopped; the same command resumes it', piece.name)
        raise Stopped
    return measured


def record(job: Job, measured: dict | None, *, out: Path, command: str) -> Job:
    """Writes the result file of a run; of a cross-validated one if this fold was the last, and as it is otherwise."""
    with ExitStack() as stack:
        if job.folds > 1:       # two processes may come to their last folds together
            alone = stack.enter_context(side_by_side.claim(out, job.name))
            if not alone or results.file_named(out, job.name).exists():
                return job
            measured = folds.gathered(job.config, job.workdir(out))
            if measured is None:
                return job
        job = job._replace(result=dict(job.asked, **measured, machine=results.machine(), date=results.now(),
                                       command=command))
        results.write(results.file_named(out, job.name), job.result)
    return job


def add_boxes(job: Job, counts: list[int], *, out: Path) -> None:
    """Evaluates the checkpoint at those numbers of test boxes that its result file lacks."""
    workdir, counts = job.workdir(out), job.missing_boxes(counts)
    if counts and not checkpoint.steps(workdir):
        logging.warning('%s: no checkpoint left to evaluate at %s test boxes; remove its result file to train it again',
                        job.name, ', '.join(map(str, counts)))
    elif counts:
        job.result['boxes'].update(runner.sweep(job.config, workdir, counts))
        results.write(results.file_named(out, job.name), job.result)


def remove_checkpoints(job: Job, *, out: Path) -> None:
    workdir = job.workdir(out)
    for folder in (workdir, *(folds.folder_of(workdir, fold) for fold in range(job.folds))):
        shutil.rmtree(folder / checkpoint.FOLDER, ignore_errors=True)
