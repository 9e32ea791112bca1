"""What better classes alone could gain: python -m benchmarks.class_ceiling RUN [RUN ...]

A relation that leaves the boxes where they are can only mend classes. For each run's eval/detections.json this gives
every detection that overlaps an object at IoU >= 0.5 the class of that object, first among look-alikes, then among all
classes, and evaluates again. The last line of a run is what no relation can pass; its distance to the first is all that
there is to gain.
"""
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from relnet_jax.data.phantom import class_cues
from relnet_jax.evaluation import report
from relnet_jax.evaluation.coco import coco_metrics

IOU = 0.5


def overlaps(box: list, others: list) -> np.ndarray:
    """IoU [n] of a COCO box (x, y, width, height) with n others."""
    a, b = np.asarray(box, float), np.asarray(others, float).reshape(-1, 4)
    sides = np.minimum(a[:2] + a[2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:2], b[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    return shared / np.maximum(a[2] * a[3] + b[:, 2] * b[:, 3] - shared, 1e-9)


def mended(results: list, truth: dict, groups: list[set]) -> list:
    """COCO results with the class of the object that they overlap most, where a group holds both classes."""
    objects = {}
    for annotation in truth['annotations']:
        objects.setdefault(annotation['image_id'], []).append(annotation)
    out = []
    for result in results:
        here = objects.get(result['image_id'], [])
        iou = overlaps(result['bbox'], [a['bbox'] for a in here])
        if len(iou) and iou.max() >= IOU:
            right = here[int(iou.argmax())]['category_id']
            if any({right, result['category_id']} <= group for group in groups):
                result = result | dict(category_id=right)
        out.append(result)
    return out


def look_alikes(truth: dict) -> dict[str, list[set]]:
    """Name -> groups of category ids that are mended: none, the phantom's groups of look-alikes, all classes."""
    ids = {c['name']: c['id'] for c in truth['categories']}
    cues = class_cues()
    if ids.keys() != cues.keys():
        return {'as found': [], 'all classes right': [set(ids.values())]}
    told_by_company = {ids[name] for name, rule in cues.items() if rule.cue == 'co-occurrence'}
    groups = [
        {ids[n] for n, other in cues.items() if other.group == group} for group in {r.group for r in cues.values()}
    ]
    return {'as found': [], 'told by co-occurrence right': [told_by_company], 'look-alikes right': groups,
            'all classes right': [set(ids.values())]}


def by_class(metrics: dict, key: str) -> dict[str, float]:
    """'mean' of all classes and each class; `metrics` of coco_metrics or of a metrics.json, whose `key` is AP50's."""
    return {'mean': metrics[key]} | {name: values[key] for name, values in metrics['per_class'].items()}


def ceilings(run: str) -> dict[str, dict[str, float]]:
    """What is mended -> box AP50 of each class and, under 'mean', of all."""
    truth, results = report.read_evaluation(Path(run) / 'eval')
    found = {}
    for name, groups in look_alikes(truth).items():
        found[name] = by_class(coco_metrics(truth, mended(results, truth, groups), 'bbox'), 'AP50')
    return found


def main(runs: list[str]) -> None:
    if not runs:
        sys.exit(__doc__)
    for run in runs:
        rows = ceilings(run)
        table = Table('box AP50', *next(iter(rows.values())), title=run, title_justify='left')
        for name, values in rows.items():
            table.add_row(name, *(f'{100 * v:.1f}' for v in values.values()))
        Console(width=220).print(table)


if __name__ == '__main__':
    main(sys.argv[1:])
