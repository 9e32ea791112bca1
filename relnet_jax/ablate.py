"""Train and evaluate runs of a config with names, as configs/lab.py is, one after another, and write their table.

    python -m relnet_jax.ablate --runs=base,fpn_5,fpn_6 --data=phantom --seeds=3 --out=runs/table \
        --config.train.steps=600 --config.data.phantom.ambiguity=0.7
    python -m relnet_jax.ablate --config=configs/jsrt.py --runs=base,part --folds=4 --seeds=1 --out=runs/nodules \
        --config.data.train.annotations=DIR/instances.json --config.data.train.images=DIR/images

Installed, the command is relnet-ablate. `--config.KEY=VALUE` holds for all runs. A finished (run, seed) leaves
OUT/results/RUN_sSEED.json and is skipped from then on; one that was interrupted is resumed from its checkpoint in
OUT/runs. `--processes=2` does two runs, or folds, side by side, each with half of the cores; the same command in other
terminals, or on machines that see the same folder, joins in. Renewed after every run: OUT/table.md, .csv, .json and
.png. With `--folds=K` a run is K trainings, each without one K-th of the patients, and what they find in the films that
they did not see is measured together, in OUT/runs/RUN_sSEED/eval; OUT/patients.md and .json have intervals over
patients.
`--table_only` makes the tables from the result files alone; `--docs=FILE` also renews the tables in FILE, with the
results of the folders in `--docs_with` beside those of OUT.
"""
import gc
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags, logging
from absl.flags import FlagValues
from ml_collections import ConfigDict

from relnet_jax import cli, files
from relnet_jax import config as config_lib
from relnet_jax.ablation import docs, figure, folds, patients, results, side_by_side, table, work
from relnet_jax.ablation.jobs import Job, follow, pieces, with_results, workdir_of
from relnet_jax.errors import UserError
from relnet_jax.runs import checkpoint, startup

LAB, LAB_DATA = 'configs/lab.py', 'phantom'


# ---- what to run ----
def load_run(run: str, *, data: str, seed: int, overrides: Sequence[str], family: str = '') -> ConfigDict:
    """family: the config file with the runs; '' = LAB, which alone has a choice of `data`."""
    spec = f'{family}:{run}' if family else f'{LAB}:{run},data={data}'
    config = config_lib.with_overrides(config_lib.load(spec), overrides)
    with config.unlocked():
        config.seed = seed
    return config


def start_from_shared(config: ConfigDict, out: Path) -> str:
    """Sets config.train.plain_from to the run under `out` that stands for the plain phase, and returns that run's name;
    '' if there is no such phase. Of several plain phases, as they follow one another, the last counts."""
    name = next((entry['name'] for entry in reversed(config.train.phases) if entry.get('plain')), '')
    if name:
        with config.unlocked():
            config.train.plain_from = str(workdir_of(out, name, '{seed}'))
    return name


def plan(runs: list[str], *, data: str, seeds: int, out: Path, overrides: Sequence[str],
         share_plain: bool = False, family: str = '', fold_count: int = 1) -> list[Job]:
    """All runs with seed 0, then all with seed 1, so that the table is whole early. Loads every config.

    Raises ResultError, naming the difference, if a result under `out` was made under other settings than those asked,
    and with `share_plain` for a run that starts from one which is neither asked for before it nor finished.
    """
    if fold_count > 1:
        overrides = (*overrides, f'data.split.folds={fold_count}', 'data.split.hold_out=0')
    reference = load_run(results.REFERENCE, data=data, seed=0, overrides=overrides, family=family)
    stored = {(r['run'], r['seed']): r for r in results.read_all(out)}
    jobs = []
    for seed in range(seeds):
        for i, run in enumerate(runs):
            config = load_run(run, data=data, seed=seed, overrides=overrides, family=family)
            shared = start_from_shared(config, out) if share_plain else ''
            finished = (shared, seed) in stored and checkpoint.steps(workdir_of(out, shared, seed))
            if shared and shared not in runs[:i] and not finished:
                raise results.ResultError(f'--share_plain: {run} with seed {seed} starts from {shared}, which is not '
                                          f'before it in --runs and not finished with its checkpoint in {out}')
            asked = dict(run=run, seed=seed, data=data, overrides=overrides,
                         **results.describe_config(config, reference))
            if fold_count > 1:
                folds.check(config)
                asked[results.FOLDS] = fold_count
            jobs.append(Job(config, asked, stored.get((run, seed)), fold_count,
                            results.run_name(shared, seed) if shared else ''))
    results.check_comparable([*stored.values(), *(job.asked for job in jobs)])
    return jobs


# ---- running ----
def run_jobs(jobs: list[Job], *, out: Path, boxes: list[int], keep_checkpoints: bool, texts: dict,
             controls: tuple[str, ...], command: str) -> list[str]:
    """Runs what has no result yet and what no other process has; renews the tables after each run. Returns the names of
    those that did not finish here.

    A run whose loss is not finite is reported and passed over, and so is one that starts from a run without a result;
    after one that was stopped by a signal none starts.
    """
    logging.info('%d runs with their seeds, %d done before', len(jobs), sum(bool(job.result) for job in jobs))
    failed, left = [], pieces(jobs)
    while left:
        piece = next((p for p in left if not (p.job.after and side_by_side.busy(out, p.job.after))), None)
        if piece is None:
            time.sleep(side_by_side.WAIT)       # what all that is left starts from is trained by other processes
            continue
        left.remove(piece)
        if piece.job.name in failed:
            continue
        try:
            job = work.do(piece, jobs, out=out, boxes=boxes, keep_checkpoints=keep_checkpoints, command=command)
        except work.Stopped:
            waiting = {piece.job.name, *(p.job.name for p in left)}
            return [*failed, *(j.name for j in with_results(jobs, out) if not j.result and j.name in waiting)]
        if job is None:
            failed.append(piece.job.name)
        elif job.result is not None:
            write_tables(out, texts, controls)
        jax.clear_caches()      # a run's compiled programs are of no use to the next one
        gc.collect()
    return failed


# ---- tables ----
def write_tables(out: Path, texts: dict, controls: tuple[str, ...]) -> None:
    """Writes table.md, .csv, .json and .png from the result files under `out`; for cross-validated runs also
    patients.md and .json, as long as their evaluations are in OUT/runs."""
    found = results.read_all(out)
    out.mkdir(parents=True, exist_ok=True)
    for suffix, text in (('md', table.markdown), ('csv', table.csv_text), ('json', table.json_text)):
        files.write_text(out / f'table.{suffix}', text(found, texts, controls=controls))
    if found:
        rows = table.make_rows(found, texts, controls=controls)
        with files.replacing(out / 'table.png') as scratch:
            figure.draw(rows, synthetic=found[0]['about']['synthetic']).savefig(scratch, dpi=130)
    crossed = [r for r in found if results.FOLDS in r]
    if crossed and not patients.write(out, crossed, lambda run, seed: workdir_of(out, run, seed), controls=controls,
                                      by=results.run_config(crossed[0])['data.split.by']):
        logging.warning('%s: patients.md stays as it is, not all evaluations are in its runs/ folder', out)


def lab_texts(family: str = '') -> dict:
    """Run -> LabRun of every run in configs/lab.py, or in the config file `family`, whose RUNS are alike.

    Raises UserError for a config without runs.
    """
    runs = getattr(config_lib.module(family or LAB), 'RUNS', None)
    if runs is None:
        raise UserError(f"--config: '{family}' has no RUNS, a dict of runs by name as {LAB} has")
    return {name: table.LabRun(run.description, run.section, run.map50, run.map1) for name, run in runs.items()}


# ---- the command ----
def define(values: FlagValues) -> None:
    def text(name: str, default: str, meaning: str) -> None:
        flags.DEFINE_string(name, default, meaning, flag_values=values)

    text('config', '', f"config file with runs by name, as {LAB}, which '' stands for")
    text('runs', '', 'names of runs in it, separated by commas')
    text('data', '', f"data set, as in {LAB}:RUN,data=...; '' = {LAB_DATA}. Other config files have their own")
    flags.DEFINE_integer('folds', 1, 'above 1: cross-validation, with data.split.folds of this number',
                         lower_bound=1, flag_values=values)
    flags.DEFINE_integer('seeds', 3, 'seeds 0 to N - 1', lower_bound=1, flag_values=values)
    cli.define_path(values, 'out', None, 'folder for results, runs and tables', kind='folder')
    text('boxes', '', 'also evaluate at these numbers of test boxes: 512,256,...')
    flags.DEFINE_integer('processes', 1, 'runs side by side on this machine, each process with its part of the cores',
                         lower_bound=1, flag_values=values)
    flags.DEFINE_bool('keep_checkpoints', True, 'of finished runs', flag_values=values)
    text('controls', ','.join(table.CONTROLS), 'runs that others of the same neck are compared with')
    flags.DEFINE_bool('share_plain', False, 'train what runs begin with once: a plain phase is replaced by the run of '
                      'its name', flag_values=values)
    flags.DEFINE_bool('table_only', False, 'run nothing', flag_values=values)
    cli.define_path(values, 'docs', '', 'Markdown file in which the tables of all runs are renewed', kind='file')
    text('docs_with', '', 'other folders, separated by commas, whose runs join those tables')


def command(call: cli.Call) -> int:
    f, out, controls = call.flags, Path(call.flags.out), tuple(call.flags.controls.split(','))
    family, texts = f.config, lab_texts(f.config)
    if family and f.data:
        raise UserError(f'--data: only {LAB} has a choice of data sets; {family} has its own')
    if f.folds > 1 and (f.boxes or f.share_plain):
        raise UserError('--folds does not go with --boxes or --share_plain')
    if not f.table_only and not f.runs:
        raise UserError(f'--runs: expected names, or --table_only; there are {", ".join(texts)}')
    if f.share_plain and not f.keep_checkpoints:
        raise UserError('--share_plain needs the checkpoints that --no-keep_checkpoints removes')
    boxes = cli.numbers(f.boxes, 'boxes')
    startup.quiet_libraries()
    startup.use_compilation_cache()
    logging.info('working in %s, runs and tables in %s', Path.cwd(), out.absolute())
    jobs = [] if f.table_only else plan(
        f.runs.split(','), data=Path(family).stem if family else f.data or LAB_DATA, seeds=f.seeds, out=out,
        overrides=call.overrides, share_plain=f.share_plain, family=family, fold_count=f.folds)
    argv, code = side_by_side.without(call.argv, 'processes'), cli.DONE
    if jobs and f.processes > 1:
        code = side_by_side.run([sys.executable, '-m', 'relnet_jax.ablate', *argv, '--processes=1'], out, f.processes,
                                follow(jobs, out, f.processes))
        failed = [job.name for job in with_results(jobs, out) if job.result is None] if code else []
    else:
        failed = run_jobs(jobs, out=out, boxes=boxes, keep_checkpoints=f.keep_checkpoints, texts=texts,
                          controls=controls, command=f'python -m relnet_jax.ablate {shlex.join(argv)}')
    write_tables(out, texts, controls)
    if f.docs:
        docs.renew(Path(f.docs), [out, *map(Path, cli.paths([f.docs_with]))], texts, controls=controls)
    logging.info('written: %s; table.csv, .json and .png beside it%s', out / 'table.md',
                 f'; the tables in {f.docs}' if f.docs else '')
    if failed:
        logging.error('not finished: %s; the same command resumes them', ', '.join(failed))
    return cli.UNFINISHED if failed or code != cli.DONE else cli.DONE


def main(argv: list[str] | None = None) -> int:
    return cli.run('ablate', __doc__, define, command, argv)


if __name__ == '__main__':
    sys.exit(main())
