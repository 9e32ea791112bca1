"""Runs over the same films with intervals over patients: what `table` cannot say, whose intervals are over seeds.

A metric of a run is the mean over its seeds. All runs and seeds are measured on the same resamples of the patients, so
that differences to the control are paired twice, by patient and by seed.
"""
from pathlib import Path

import numpy as np

from relnet_jax import files
from relnet_jax.ablation.statistics import Interval
from relnet_jax.ablation.table import difference_text, pipe_table
from relnet_jax.evaluation import bootstrap, measures
from relnet_jax.evaluation.report import DETECTIONS, HEADLINE, NOT_SHARES, read_evaluation

Drawn = dict[str, tuple[float, np.ndarray]]     # metric -> (measured, [resamples] in resamples of patients)


def draw(folders: list[Path], *, by: str, count: int = bootstrap.RESAMPLES) -> tuple[dict, Drawn]:
    """(ground truth, headline metrics) of a run from the evaluations of its seeds, which measured the same films."""
    seeds, truth = [], {}
    for folder in folders:
        truth, results = read_evaluation(folder)
        _, measure = measures.everything(truth, results)
        group, _ = bootstrap.patients(truth['images'], by)
        once = bootstrap.means(measure(np.ones((1, len(group)))))
        drawn = bootstrap.draws(measure, group, count=count)
        seeds.append({name: (once[name][0], drawn[name]) for name in once
                      if name in HEADLINE and name not in NOT_SHARES})
    return truth, {name: (float(np.mean([s[name][0] for s in seeds])), np.mean([s[name][1] for s in seeds], 0))
                   for name in seeds[0]}


def _interval(measured: float, drawn: np.ndarray, patients: int) -> Interval:
    return Interval(measured, *bootstrap.interval(drawn, measured), patients)


def measure(runs: dict[str, list[Path]], *, by: str, controls: tuple[str, ...],
            count: int = bootstrap.RESAMPLES) -> dict:
    """run -> dict(seeds, films, patients, control, metrics: name -> `Interval`, differences: name -> `Interval` of the
    run - its control). `runs`: name -> the evaluation folders of its seeds. A run is compared with the first of
    `controls` that is there and has as many seeds, the same classes and the same films."""
    drawn = {run: draw(folders, by=by, count=count) for run, folders in runs.items()}
    rows = {}
    for run, (truth, found) in drawn.items():
        def comparable(other: str, run: str = run, truth: dict = truth) -> bool:
            return (other in drawn and other != run and len(runs[other]) == len(runs[run])
                    and all(drawn[other][0][key] == truth[key] for key in ('images', 'categories')))
        control = '' if run in controls else next(filter(comparable, controls), '')
        beside = drawn[control][1] if control else {}
        group, _ = bootstrap.patients(truth['images'], by)
        patients = int(group.max()) + 1
        rows[run] = dict(
            seeds=len(runs[run]), films=len(group), patients=patients, control=control,
            metrics={name: _interval(*value, patients) for name, value in found.items()},
            differences={name: _interval(value - beside[name][0], draws - beside[name][1], patients)
                         for name, (value, draws) in found.items() if name in beside})
    return rows


def markdown(rows: dict) -> str:
    """patients.md: a metric a line, a run a column; below, the differences to the control."""
    names = [name for name in HEADLINE if any(name in row['metrics'] for row in rows.values())]
    names = [name for name in names if any(row['metrics'][name].mean == row['metrics'][name].mean
                                           for row in rows.values() if name in row['metrics'])]
    size = ', '.join(f"`{run}` {row['seeds']} seed{'s' * (row['seeds'] > 1)}" for run, row in rows.items())
    first = next(iter(rows.values()))
    parts = ['# Intervals over patients', f"{first['films']} films of {first['patients']} patients; {size}. Per cent, "
             'mean over seeds, with the 95 % interval of a bootstrap over patients (bold: a difference whose interval '
             'excludes 0).']
    parts.append(pipe_table(['metric', *(f'`{run}`' for run in rows)], [
        [f'`{name}`', *(_text(row['metrics'].get(name)) for row in rows.values())] for name in names]))
    if compared := {run: row for run, row in rows.items() if row['control']}:
        parts += ['## Differences', pipe_table(
            ['metric', *(f"`{run}` - `{row['control']}`" for run, row in compared.items())],
            [[f'`{name}`', *(difference_text(row['differences'][name]) for row in compared.values())]
             for name in names if all(name in row['differences'] for row in compared.values())])]
    return '\n\n'.join(part.rstrip('\n') for part in parts) + '\n'


def _text(i: Interval | None) -> str:
    """'81.2 [75.0, 86.1]'; '-' for what the run does not have."""
    return '-' if i is None or i.mean != i.mean else f'{100 * i.mean:.1f} [{100 * i.low:.1f}, {100 * i.high:.1f}]'


def write(out: Path, found: list[dict], workdir_of, *, controls: tuple[str, ...], by: str) -> bool:
    """Writes OUT/patients.md and .json for the cross-validated results `found`, from the evaluations that lie in
    workdir_of(run, seed)/eval. False, and nothing is written, if one is missing there."""
    runs: dict[str, list[Path]] = {}
    for r in found:
        runs.setdefault(r['run'], []).append(workdir_of(r['run'], r['seed']) / 'eval')
    if not runs or any(not (folder / DETECTIONS).exists() for folders in runs.values() for folder in folders):
        return False
    rows = measure(runs, by=by, controls=controls)
    files.write_text(out / 'patients.md', markdown(rows))
    plain = {run: row | {key: {name: i._asdict() for name, i in row[key].items()} for key in ('metrics', 'differences')}
             for run, row in rows.items()}
    files.write_json(out / 'patients.json', plain)
    return True
