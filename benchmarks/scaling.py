"""Time and memory of R50-FPN against the sizes of the work: python -m benchmarks.scaling [--only=large,remat]

One size at a time is changed, each point in a process of its own: processor seconds (the better of two), what the
compiled program needs beside its inputs and outputs, and the peak memory of the process. A point is a line of JSON in
benchmarks/results/scaling.jsonl; what stands there is not measured again, unless `--only` names its series.
docs/scaling_curves.png shows the series on logarithmic axes. `large` is one training step on many of everything,
`remat` the effect of config.model.remat.
"""
import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

import jax
from matplotlib.figure import Figure
from rich.progress import track

from benchmarks.detector import CLASSES, RESULTS, ROOT, write_weights
from benchmarks.turns import Worker, in_turns

FILE, FIGURE = RESULTS.with_name('scaling.jsonl'), ROOT / 'docs' / 'scaling_curves.png'
BASE = dict(size=512, batch=1, objects=10, classes=CLASSES, proposals=1000, parts=False)
SIDES, PROPOSALS = (256, 512, 1024), (250, 1000, 4000)
SERIES = {      # name -> (kind of work, key of the job, its values)
    'proposals': ('train', 'proposals', PROPOSALS), 'ground truths': ('train', 'objects', (1, 10, 100)),
    'classes': ('train', 'classes', (2, 14, 100, 400)), 'image side': ('train', 'size', SIDES),
    'boxes': ('inference', 'proposals', PROPOSALS), 'detections': ('inference', 'detections', (10, 100, 300)),
    'image side of inference': ('inference', 'size', SIDES)}
LARGE = dict(BASE, kind='train', size=1024, objects=100, classes=101, proposals=4000)
REMAT = [dict(BASE, kind='train', batch=2, objects=20, size=size, proposals=2000, remat=remat)
         for size in (512, 1024) for remat in (False, True)]


def jobs() -> dict[str, list[dict]]:
    """series -> what each of its points works on."""
    found = {name: [BASE | {'kind': kind, key: value} for value in values]
             for name, (kind, key, values) in SERIES.items()}
    return found | {'large': [LARGE], 'remat': REMAT}


def measure(job: dict, folder: Path) -> dict:
    weights = folder / f"{job['classes']}.npz"
    if not weights.exists():
        write_weights(weights, job['classes'])
    worker = Worker([sys.executable, '-m', 'benchmarks.detector_ours'], job | {'weights': str(weights)})
    try:
        found = in_turns({'ours': worker}, ['whole'], rounds=2)['ours']['whole']
    finally:
        worker.stop()
    return dict(cpu_s=round(found['cpu'], 3), program_gib=round(worker.about['program_gib'], 3),
                peak_gib=round(found['peak_gib'], 2))


def draw(points: list[dict]) -> Figure:
    """Above processor seconds, below the program's memory, a column for each series."""
    figure = Figure(figsize=(2.1 * len(SERIES), 5.4), layout='constrained')
    panels = figure.subplots(2, len(SERIES), sharey='row')
    for column, (name, (kind, key, _)) in enumerate(SERIES.items()):
        mine = sorted((p['job'][key], p) for p in points if p['series'] == name)
        values = [value for value, _ in mine]
        for row, what in enumerate(('cpu_s', 'program_gib')):
            axes = panels[row][column]
            axes.loglog(values, [p[what] for _, p in mine], 'o-', color='#1f6fb4' if kind == 'train' else '#c23b22')
            axes.set_xticks(values, [str(value) for value in values], rotation=60)
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        panels[0][column].set_title('training step' if kind == 'train' else 'inference', fontsize=10)
        panels[1][column].set_xlabel(name.removesuffix(' of inference'))
    panels[0][0].set_ylabel('processor seconds')
    panels[1][0].set_ylabel('memory of the program, GiB')
    return figure


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', help=f'some of the series, with commas: {", ".join(jobs())}')
    options = parser.parse_args(argv)
    again = options.only.split(',') if options.only else []
    if unknown := set(again) - set(jobs()):
        parser.error(f'no series {sorted(unknown)}')
    stored = [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.exists() else []
    points = [point for point in stored if point['series'] not in again]
    done = {(point['series'], json.dumps(point['job'])) for point in points}
    todo = [(name, job) for name in again or jobs() for job in jobs()[name] if (name, json.dumps(job)) not in done]
    about = dict(date=f'{datetime.date.today()}', cores=os.cpu_count(), machine=platform.machine(),
                 jax=jax.__version__, python=platform.python_version())
    with tempfile.TemporaryDirectory() as folder:
        for name, job in track(todo, 'points'):
            same = next((point for point in points if point['job'] == job), None)     # where series cross
            points.append(same | {'series': name} if same else
                          dict(series=name, job=job, **measure(job, Path(folder)), **about))
            print(json.dumps(points[-1]), flush=True)
            FILE.write_text(''.join(json.dumps(point) + '\n' for point in points))
    draw(points).savefig(FIGURE, dpi=110)


if __name__ == '__main__':
    main()
