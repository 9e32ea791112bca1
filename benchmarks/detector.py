"""Time, memory and FLOP/s of R50-FPN, whole and by parts: python -m benchmarks.detector [--torch-python=PATH]

Every kind of work runs in a process of its own, so that its peak memory is its own. Given a Python that has torch, the
same work runs in torchvision, with the same weights (by rule), images and boxes, in turns, and the table shows the
ratio: below 1 this project is faster. Wall and processor seconds are the best of `--rounds`; the peak that the FLOP
are a share of is that of a matrix product in the same run. Each table is a line of JSON in
benchmarks/results/detector.jsonl.
"""
import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.turns import Worker, in_turns
from benchmarks.weight_rule import SEED, draw_weight
from relnet_jax.config import load
from relnet_jax.interop.torchvision_out import to_state_dict
from relnet_jax.models.mask_rcnn import build
from relnet_jax.runs import state

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results' / 'detector.jsonl'
CLASSES = 14
HERE = ('detector_ours', 'detector_torchvision')


def write_weights(path: Path, classes: int = CLASSES) -> None:
    """A torchvision state dict by rule; classification of RoIs strong enough for many to pass its threshold."""
    config = load(str(ROOT / 'configs' / 'base.py'))
    template = state.abstract_params(build(config, classes), state.batch_shapes(config, 1, 0))
    names = to_state_dict(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template))
    np.savez(path, **{name: draw_weight(name, value.shape, SEED) for name, value in names.items()})


def measure(job: dict, options: argparse.Namespace) -> dict[str, dict]:
    """side -> what its worker said of itself, with `times` by name of work."""
    workers = {'ours': Worker([sys.executable, '-m', f'benchmarks.{HERE[0]}'], job)}
    if options.torch_python:
        workers['torchvision'] = Worker([options.torch_python, str(ROOT / 'benchmarks' / f'{HERE[1]}.py')], job)
    times = in_turns(workers, workers['ours'].about['work'], options.rounds)
    for worker in workers.values():
        worker.stop()
    return {side: dict(worker.about, times=times[side], ready_s=worker.ready_s) for side, worker in workers.items()}


def show(job: dict, found: dict[str, dict]) -> None:
    title = f"{job['kind']}, {job['size']} px, batch {job['batch']}" + (
        f", {job['objects']} objects an image" if job['kind'] == 'train' else '')
    theirs = found.get('torchvision', {}).get('times', {})
    gflop = found['ours'].get('gflop', {})
    peak = max((gflop[n] / t['cpu'] for n, t in found['ours']['times'].items() if n.startswith('matrix')), default=0)
    table = Table('work', 'ours, s', 'torchvision, s', 'ratio', 'processor s', 'torchvision', 'ratio', 'peak GiB',
                  'torchvision', 'GFLOP per processor s', '% of peak', title=title, title_justify='left')
    for name, ours in found['ours']['times'].items():
        other = theirs.get(name)
        rate = gflop[name] / ours['cpu'] if name in gflop else None
        cells = [f"{ours['wall']:.3f}", f"{other['wall']:.3f}" if other else '',
                 f"{ours['wall'] / other['wall']:.2f}" if other else '',
                 f"{ours['cpu']:.3f}", f"{other['cpu']:.3f}" if other else '',
                 f"{ours['cpu'] / other['cpu']:.2f}" if other else '',
                 *(('', '') if job['parts'] else
                   (f"{ours['peak_gib']:.2f}", f"{other['peak_gib']:.2f}" if other else '')),
                 f'{rate:.0f}' if rate else '', f'{100 * rate / peak:.0f}' if rate and peak else '']
        table.add_row(name, *cells)
    console = Console(width=150)
    console.print(table)
    for side, about in found.items():
        more = f", {about['detections']} detections" if about.get('detections') is not None else ''
        console.print(f"{side}: {about['version']}, ready after {about['ready_s']:.0f} s{more}", highlight=False)


def record(job: dict, found: dict[str, dict]) -> dict:
    kept = {side: {key: value for key, value in about.items() if key not in ('work', 'gflop')}
            for side, about in found.items()}
    return dict({key: value for key, value in job.items() if key != 'weights'}, **kept,
                gflop=found['ours'].get('gflop'), device=f'{jax.devices()[0].device_kind}, {platform.machine()}',
                cores=os.cpu_count(), python=platform.python_version(), date=datetime.date.today().isoformat(),
                commit=subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True,
                                      text=True).stdout.strip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kind', nargs='+', choices=('inference', 'train'), default=['inference', 'train'])
    parser.add_argument('--parts', action='store_true', help='the parts of the work, not the whole')
    parser.add_argument('--size', nargs='+', type=int, default=[512], help='sides in pixels, multiples of 64')
    parser.add_argument('--batch', type=int, help='images; default: 1 in inference, 2 in training')
    parser.add_argument('--objects', nargs='+', type=int, default=[3], help='per image, for training')
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'), help='of this project')
    parser.add_argument('--remat', action='store_true', help='with config.model.remat')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--torch-python', help='a Python that has torch and torchvision')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / 'weights.npz'
        write_weights(weights)
        for kind in options.kind:
            for size in options.size:
                for objects in options.objects if kind == 'train' else [3]:
                    job = dict(kind=kind, size=size, objects=objects, classes=CLASSES, weights=str(weights),
                               batch=options.batch or {'inference': 1, 'train': 2}[kind], dtype=options.dtype,
                               parts=options.parts, remat=options.remat, threads=os.cpu_count())
                    found = measure(job, options)
                    show(job, found)
                    RESULTS.parent.mkdir(exist_ok=True)
                    with RESULTS.open('a') as file:
                        file.write(json.dumps(record(job, found)) + '\n')


if __name__ == '__main__':
    main()
