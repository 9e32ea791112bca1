"""Resident memory of a long training: python -m benchmarks.soak [--minutes=60] [--out=benchmarks/results/soak]

Trains the default phantom, with an evaluation every 100 steps and a checkpoint every 50, in a process of its own for
that time, and stops it by SIGTERM. Writes to OUT memory.jsonl, a line every few seconds with `seconds`, `resident_mb`
and the last logged `step`; memory.png, the curve; and summary.json. The memory counts as flat where its median over
the last quarter of the samples is at most 2 % above that over the quarter before the middle; else the exit code is 1.
The first half is left to the compiler and to what the allocator keeps.
"""
import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from relnet_jax import cli, files
from relnet_jax.runs import checkpoint, metrics

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ('train.steps=1000000', 'train.eval_every=100', 'train.checkpoint_every=50', 'data.phantom.val_images=40')
EVERY = 2.0             # seconds between samples
ALLOWED = 0.02          # growth that counts as none


def resident_mb(pid: int) -> float:
    """Of a process that runs, in millions of bytes."""
    pages = int(Path(f'/proc/{pid}/statm').read_text(encoding='utf-8').split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def sample(command: Sequence[str], workdir: Path, log: Path, *, seconds: float, every: float = EVERY) -> list[dict]:
    """Runs a training in `workdir` for so long and stops it; its memory, a dict for every sample. Raises RuntimeError
    where it ended before, or did not end as one that was stopped."""
    found, begun = [], time.monotonic()
    with open(log, 'w', encoding='utf-8') as file:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file)
    try:
        while (now := time.monotonic() - begun) < seconds:
            if child.poll() is not None:
                raise RuntimeError(f'the training ended after {now:.0f} s: {_last_line(log)}')
            last = metrics.read(workdir)[-1:]
            found.append(dict(seconds=round(now, 1), resident_mb=round(resident_mb(child.pid), 1),
                              step=last[0][1]['step'] if last else 0))
            time.sleep(every)
        child.send_signal(signal.SIGTERM)
        if (code := child.wait(timeout=600)) != cli.STOPPED:
            raise RuntimeError(f'the training ended with the code {code}: {_last_line(log)}')
    finally:
        child.kill()
        child.wait()
    return found


def _last_line(log: Path) -> str:
    return (log.read_text(encoding='utf-8').splitlines() or [''])[-1]


def summary(samples: Sequence[dict]) -> dict:
    """Medians in MB over quarters of the samples, `growth` from the second to the last as a share, and `flat`."""
    values = np.array([s['resident_mb'] for s in samples])
    quarters = [float(np.median(part)) for part in np.array_split(values, 4)]
    growth = quarters[3] / quarters[1] - 1
    return dict(minutes=round(samples[-1]['seconds'] / 60, 1), steps=samples[-1]['step'], samples=len(samples),
                median_mb_by_quarter=[round(v, 1) for v in quarters], highest_mb=float(values.max()),
                growth=round(growth, 4), flat=growth <= ALLOWED)


def draw(samples: Sequence[dict], text: str) -> Figure:
    """Resident memory over time."""
    figure = Figure(figsize=(8, 3.2), layout='constrained')
    axes = figure.subplots()
    axes.plot([s['seconds'] / 60 for s in samples], [s['resident_mb'] for s in samples], color='#1f6fb4', linewidth=0.8)
    axes.set_xlabel('minutes since the start')
    axes.set_ylabel('resident memory, MB')
    axes.set_ylim(bottom=0)
    axes.set_title(text, fontsize=9)
    axes.grid(alpha=0.3)
    return figure


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=60.0)
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'soak')
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / 'run'
        command = [sys.executable, 'train.py', f'--workdir={run}', *(f'--config.{option}' for option in OPTIONS)]
        samples = sample(command, run, Path(folder) / 'log.txt', seconds=60 * options.minutes)
        evaluations = sum(values['split'] == 'val' for _, values in metrics.read(run))
        last = checkpoint.steps(run)[-1]
    found = summary(samples) | dict(date=f'{datetime.date.today()}', steps=last, evaluations=evaluations)
    files.write_text(options.out / 'memory.jsonl', ''.join(json.dumps(line) + '\n' for line in samples))
    files.write_json(options.out / 'summary.json', found)
    text = f'{last} steps, {evaluations} evaluations, {last // 50} checkpoints of the phantom'
    with files.replacing(options.out / 'memory.png') as scratch:
        draw(samples, text).savefig(scratch, dpi=110)
    print(json.dumps(found))
    return 0 if found['flat'] else 1


if __name__ == '__main__':
    sys.exit(main())
