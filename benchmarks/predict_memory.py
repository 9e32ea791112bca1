"""Peak memory of `predict` by the number of films: python -m benchmarks.predict_memory [--counts=100,1000]

Writes phantom films of 256 px and a checkpoint of the tiny detector with random weights, which finds 20 things in every
film, and predicts on so many films in a process of its own each. A line of JSON for each is printed and appended to
benchmarks/results/predict_memory.jsonl: peak resident memory, time, and the size of what was written.
"""
import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from relnet_jax.config import load
from relnet_jax.data import pipeline
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import checkpoint
from relnet_jax.runs.state import abstract_params, batch_shapes
from relnet_jax.visualize import write_image

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results' / 'predict_memory.jsonl'


def prepare(folder: Path, count: int) -> None:
    """run/ and films/ in `folder`."""
    config = load('phantom')
    with config.unlocked():
        config.data.phantom.train_images = count
        config.test.update(score_threshold=0.0, detections=20)
    source, _ = pipeline.open_sources(config)
    model = mask_rcnn.build(config, num_classes=len(source.classes) + 1)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(0, 0.05, s.shape).astype(s.dtype),
                          abstract_params(model, batch_shapes(config, 1, len(source.parts))))
    table = {key: getattr(source, key) for key in checkpoint.CLASS_TABLE}
    checkpoint.save_model(folder / 'run', params, config=config, class_table=table)
    (folder / 'films').mkdir()
    for i in range(count):
        write_image(folder / 'films' / f'{i:05d}.png', source.load(i).image)


def measure(folder: Path, count: int, *, overlays: bool) -> dict:
    films = sorted((folder / 'films').iterdir())[:count]
    out = folder / f'out{count}'
    arguments = [f'--ckpt={folder / "run"}', f'--out={out}', '--score=0', f'--{"" if overlays else "no"}overlays',
                 *(f'--images={film}' for film in films)]
    started = time.monotonic()
    with subprocess.Popen([sys.executable, '-m', 'relnet_jax.predict', *arguments], cwd=ROOT,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, child.returncode
    lines = (out / 'predictions.jsonl').read_text().count('\n')
    assert lines == count, lines
    return dict(date=f'{datetime.date.today()}', films=count, overlays=overlays, peak_mib=round(usage.ru_maxrss / 1024),
                seconds=round(time.monotonic() - started, 1), cpu_s=round(usage.ru_utime + usage.ru_stime, 1),
                written_mb=round(sum(p.stat().st_size for p in out.iterdir()) / 1e6, 1))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--counts', default='100,1000', help='numbers of films')
    parser.add_argument('--overlays', action='store_true', help='write pictures too')
    options = parser.parse_args(argv)
    counts = [int(text) for text in options.counts.split(',')]
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), max(counts))
        for count in counts:
            line = json.dumps(measure(Path(folder), count, overlays=options.overlays))
            print(line, flush=True)
            with open(RESULTS, 'a', encoding='utf-8') as file:
                file.write(line + '\n')


if __name__ == '__main__':
    main()
