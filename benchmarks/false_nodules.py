"""Where what is taken for a nodule lies: python -m benchmarks.false_nodules ANNOTATIONS EVAL [EVAL ...]

Share of the false positives, up to RATE per film, whose centre lies in the mask of each structure of the COCO file
ANNOTATIONS (in two at once: in both), and in none. EVAL: evaluation folders of one detector's seeds; the last column is
their mean.
"""
import sys
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from benchmarks.nodules_by import RATE
from relnet_jax import files
from relnet_jax.data.rle import decode_mask
from relnet_jax.evaluation.matching import by_distance
from relnet_jax.evaluation.nodules import USUAL_MM
from relnet_jax.evaluation.report import read_evaluation
from relnet_jax.evaluation.structures import rles

NONE = 'none'


def false_positives(truth: dict, results: list) -> list[tuple[int, float, float]]:
    """(image id, x, y of the centre) of the best-scoring ones: as in `nodules.ranking`, all that hit no nodule."""
    looks = by_distance(truth, results, mm=USUAL_MM)['Nodule']
    wrong = np.flatnonzero(looks.fit < 1)[:int(RATE * len(truth['images']))]
    ids = [image['id'] for image in truth['images']]
    return [(ids[looks.found.image[i]], *looks.found.boxes[i].reshape(2, 2).mean(0)) for i in wrong]


def shares(points: list[tuple[int, float, float]], structures: dict) -> dict[str, float]:
    """Class of the document `structures` that has masks -> share of the points in one of its masks; NONE -> in none."""
    names = {c['id']: c['name'] for c in structures['categories']}
    sizes = {image['id']: (image['height'], image['width']) for image in structures['images']}
    masked = [a for a in structures['annotations'] if a.get('segmentation')]
    inside = {names[k]: np.zeros(len(points), bool) for k in names if any(a['category_id'] == k for a in masked)}
    for annotation in masked:
        image, name = annotation['image_id'], names[annotation['category_id']]
        here = [i for i, point in enumerate(points) if point[0] == image]
        if here:
            mask = decode_mask(coco_mask.merge(rles(annotation['segmentation'], *sizes[image])))
            for i in here:
                x, y = (int(np.clip(v, 0, side - 1)) for v, side in zip(points[i][1:], mask.shape[::-1], strict=True))
                inside[name][i] |= bool(mask[y, x])
    return {name: there.mean() for name, there in inside.items()} | {
        NONE: 1 - np.any(list(inside.values()), axis=0).mean()}


def main(argv: list[str]) -> None:
    if len(argv) < 2:
        sys.exit(__doc__)
    structures, folders = files.read_json(Path(argv[0])), argv[1:]
    rows = [shares(false_positives(*read_evaluation(folder)), structures) for folder in folders]
    table = Table('centre in', *folders, 'mean')
    for name in rows[0]:
        values = [row[name] for row in rows]
        table.add_row(name, *(f'{value:.2f}' for value in [*values, np.mean(values)]))
    Console(width=160).print(table)


if __name__ == '__main__':
    main(sys.argv[1:])
