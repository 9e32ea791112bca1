"""How long all metrics take once everything is detected: python -m benchmarks.evaluation [--films=1000]

Films, objects and detections are made by rule: ellipses of 13 classes as polygons, detections with RLE masks at full
resolution, a third of them near an object. Measured on one thread: the matching and the metrics without and with
intervals of 1,000 resamples, the curves, the files, and the page with its pictures. Synthetic: the metrics' values mean
nothing. The result is also appended to benchmarks/results/evaluation.jsonl.
"""
import argparse
import datetime
import importlib.metadata
import json
import platform
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from pycocotools import mask as coco_mask

from configs import base
from relnet_jax.evaluation import bootstrap, curve_data, html_report, report
from relnet_jax.evaluation.worst_films import worst_films
from relnet_jax.types import Example

RESULTS = Path(__file__).resolve().parent / 'results' / 'evaluation.jsonl'
CLASSES, EMPTY, PER_FILM, CORNERS = 13, 0.18, 3.9, 24        # as in ChestX-Det: 18 % of the films without a finding
ANGLES = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)


def ellipse(box: np.ndarray) -> list[float]:
    return ((box[:2] + box[2:] / 2) + CIRCLE * box[2:] / 2).ravel().tolist()


def make_set(films: int, detections: int, side: int, *, seed: int = 0) -> tuple[dict, list]:
    """(COCO dict, COCO result records)."""
    rng = np.random.default_rng(seed)

    def box() -> np.ndarray:
        size = rng.uniform(side / 32, side / 3, 2)
        return np.concatenate([rng.uniform(0, side - size), size])

    annotations, results = [], []
    for image in range(films):
        objects = [] if rng.random() < EMPTY else [(int(rng.integers(1, CLASSES + 1)), box())
                                                   for _ in range(rng.poisson(PER_FILM))]
        for category, own in objects:
            annotations.append(dict(id=len(annotations) + 1, image_id=image, category_id=category, bbox=own.tolist(),
                                    area=float(own[2] * own[3] * np.pi / 4), iscrowd=0, segmentation=[ellipse(own)]))
        for _ in range(detections):
            category, found, score = int(rng.integers(1, CLASSES + 1)), box(), rng.beta(1.2, 6)
            if objects and rng.random() < 1 / 3:
                category, own = objects[rng.integers(len(objects))]
                found, score = own + rng.normal(0, 0.1, 4) * own[[2, 3, 2, 3]], rng.beta(3, 2)
            low = np.clip(found[:2], 0, side - 8)
            found = np.concatenate([low, np.clip(found[2:], 8, side - low)])
            rle = coco_mask.frPyObjects([ellipse(found)], side, side)[0]
            results.append(dict(image_id=image, category_id=category, bbox=found.tolist(), score=float(score),
                                segmentation=dict(size=rle['size'], counts=rle['counts'].decode())))
    images = [dict(id=i, width=side, height=side, patient=i // 2) for i in range(films)]
    categories = [dict(id=c, name=f'class {c}') for c in range(1, CLASSES + 1)]
    return dict(images=images, annotations=annotations, categories=categories), results


def made_source(truth: dict, side: int) -> SimpleNamespace:
    """What `worst_films` asks of a source: films of noise."""
    def load(index: int) -> Example:
        image = np.random.default_rng(index).integers(0, 256, (side, side, 3), np.uint8)
        none, boxes = np.zeros(0, bool), np.zeros((0, 4), np.float32)
        return Example(image, index, index, boxes, np.zeros(0, np.int32), none, np.zeros((0, 28, 28), np.uint8), none,
                       boxes, none)
    return SimpleNamespace(name='made', records=truth['images'], load=load,
                           classes=tuple(c['name'] for c in truth['categories']),
                           category_ids=tuple(c['id'] for c in truth['categories']))


def measure(films: int, detections: int, side: int) -> dict:
    """Seconds of each part."""
    truth, results = make_set(films, detections, side)
    seconds = {}

    def timed(name: str, work):
        begun = time.perf_counter()
        value = work()
        seconds[name] = round(time.perf_counter() - begun, 2)
        return value
    metrics = timed('metrics', lambda: report.evaluate(truth, results))
    timed('metrics_with_intervals', lambda: report.evaluate(truth, results, resamples=bootstrap.RESAMPLES))
    curves = timed('curves', lambda: curve_data.curves(truth, results))
    with tempfile.TemporaryDirectory() as folder:
        timed('files', lambda: report.write_report(folder, metrics=metrics, results=results, about={},
                                                   ground_truth=truth, curves=curves))
        source, page = made_source(truth, side), Path(folder) / 'report.html'
        about = report.describe(source, truth, base.get_config(), checkpoint='none')
        timed('page', lambda: html_report.write(
            page, about=about, metrics=metrics, curves=curves, headline=report.HEADLINE, not_shares=report.NOT_SHARES,
            films=worst_films(source, truth, results, curves['thresholds'])))
        page_bytes = page.stat().st_size
    seconds['report'] = round(sum(seconds[name] for name in ('metrics_with_intervals', 'curves', 'files', 'page')), 2)
    return dict(films=films, detections=len(results), objects=len(truth['annotations']), side=side,
                page_bytes=page_bytes, seconds=seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--films', type=int, default=1000)
    parser.add_argument('--detections', type=int, default=100, help='per film')
    parser.add_argument('--side', type=int, default=1024, help='of a film, in pixels')
    options = parser.parse_args()
    line = measure(options.films, options.detections, options.side)
    line |= dict(machine=platform.processor() or platform.machine(), python=platform.python_version(),
                 date=datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d'),
                 versions={name: importlib.metadata.version(name) for name in ('numpy', 'scipy', 'pycocotools')})
    print(json.dumps(line))
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open('a') as file:
        file.write(json.dumps(line) + '\n')


if __name__ == '__main__':
    main()
