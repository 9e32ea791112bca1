"""Where what is taken for a nodule lies: python -m benchmarks.false_nodules ANNOTATIONS EVAL [EVAL ...]

Share of the false positives, up to RATE per film, whose centre lies in the mask of each structure of the COCO file
ANNOTATIONS (in two at once: in both), and in none. EVAL: evaluation folders of one detector's seeds; the last column is
their mean.
"""
import json
import sys
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from benchmarks.nodules_by import RATE
from relnet_jax.data.rle import decode_mask
from relnet_jax.evaluation.matching import by_distance, ranked
from relnet_jax.evaluation.nodules import USUAL_MM
from relnet_jax.evaluation.structures import rles

NONE = 'none'


def false_positives(truth: dict, results: list) -> list[tuple[int, float, float]]:
    """(image id, x, y of the centre) of the best-scoring ones, in the rule of `nodules.ranking`."""
    looks = by_distance(truth, results, mm=USUAL_MM)['Nodule']
    wrong = np.flatnonzero(ranked(looks, 1.0, duplicates='ignored').wrong)[:int(RATE * len(truth['images']))]
    ids = [image['id'] for image in truth['images']]
    return [(ids[looks.found.image[i]], *looks.found.boxes[i].reshape(2, 2).mean(0)) for i in wrong]


def shares(points: list[tuple[int, float, float]], structures: dict) -> dict[str, float]:
    """Class of the document `structures` that has masks -> share of the points in one of its masks; NONE -> in none."""
    names = {c['id']: c['name'] for c in structures['categories']}
    sizes = {image['id']: (image['height'], image['width']) for image in structures['images']}
    inside = {name: np.zeros(len(points), bool) for name in names.values()}
    with_masks = set()
    for annotation in structures['annotations']:
        if not annotation.get('segmentation'):
            continue
        image, name = annotation['image_id'], names[annotation['category_id']]
        with_masks.add(name)
        here = [i for i, point in enumerate(points) if point[0] == image]
        if here:
            mask = decode_mask(coco_mask.merge(rles(annotation['segmentation'], *sizes[image])))
            for i in here:
                x, y = (int(np.clip(v, 0, side - 1)) for v, side in zip(points[i][1:], mask.shape[::-1], strict=True))
                inside[name][i] |= bool(mask[y, x])
    found = {name: inside[name].mean() for name in inside if name in with_masks}
    return found | {NONE: 1 - np.any(list(inside.values()), axis=0).mean()}


def main(argv: list[str]) -> None:
    if len(argv) < 2:
        sys.exit(__doc__)
    structures, rows = json.loads(Path(argv[0]).read_text(encoding='utf-8')), []
    for folder in argv[1:]:
        truth, results = (json.loads((Path(folder) / name).read_text(encoding='utf-8'))
                          for name in ('ground_truth.json', 'detections.json'))
        rows.append(shares(false_positives(truth, results), structures))
    table = Table('centre in', *argv[1:], 'mean')
    for name in rows[0]:
        values = [row[name] for row in rows]
        table.add_row(name, *(f'{value:.2f}' for value in [*values, np.mean(values)]))
    Console(width=160).print(table)


if __name__ == '__main__':
    main(sys.argv[1:])
