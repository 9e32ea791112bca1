"""Anatomical structures as people measure them: the Jaccard index of masks at full resolution, film by film.

The structures of SCR: van Ginneken et al., "Segmentation of anatomical structures in chest radiographs using supervised
methods: a comparative study on a public database", Medical Image Analysis 10, 2006.
"""
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from relnet_jax.evaluation.bootstrap import Measure
from relnet_jax.evaluation.matching import image_order
from relnet_jax.evaluation.ranking import share

SCR = {'Lungs': ('Left Lung', 'Right Lung'), 'Heart': ('Heart',), 'Clavicles': ('Left Clavicle', 'Right Clavicle')}


def jaccard(ground_truth: dict, results: list, structures: Mapping[str, Sequence[str]] | None = None) -> dict:
    """Structure -> float64 [I]: intersection over union of its pixels in each film, NaN where it is not annotated.

    structures: name -> the classes whose pixels are one structure (both sides, say), by default each class by itself.
    Of each class the best-scoring detection of the film counts; without one its part of the structure is empty, and so
    a structure that was not found has 0. Annotations and results need a `segmentation`, images width and height.
    Raises ValueError for a result of an unknown image or without segmentation.
    """
    order = image_order(ground_truth, results)
    names = {c['id']: c['name'] for c in ground_truth['categories']}
    sizes = {image['id']: (image['height'], image['width']) for image in ground_truth['images']}
    truth, best = defaultdict(list), {}
    for a in ground_truth['annotations']:
        if a.get('segmentation'):
            truth[a['image_id'], names[a['category_id']]] += rles(a['segmentation'], *sizes[a['image_id']])
    for i, r in enumerate(results):
        if not r.get('segmentation'):
            raise ValueError(f'result {i}: has no segmentation, which the Jaccard index needs')
        key = r['image_id'], names.get(r['category_id'])
        if key not in best or r['score'] > best[key]['score']:
            best[key] = r
    values = {}
    for structure, classes in (structures or {name: (name,) for name in names.values()}).items():
        values[structure] = np.full(len(order), np.nan)
        for image_id, i in order.items():
            there = [rle for name in classes for rle in truth.get((image_id, name), ())]
            found = [best[image_id, name]['segmentation'] for name in classes if (image_id, name) in best]
            if there:
                values[structure][i] = _overlap(there, found) if found else 0.0
    return values


def rles(segmentation: list | dict, height: int, width: int) -> list[dict]:
    """COCO's compressed RLEs, one a part, of a `segmentation` as annotations and results have it."""
    if isinstance(segmentation, list):
        return coco_mask.frPyObjects(segmentation, height, width)
    if isinstance(segmentation['counts'], list):
        return [coco_mask.frPyObjects(segmentation, height, width)]
    return [segmentation]


def _overlap(a: list[dict], b: list[dict]) -> float:
    a, b = coco_mask.merge(a), coco_mask.merge(b)
    union = float(coco_mask.area(coco_mask.merge([a, b])))
    return float(coco_mask.area(coco_mask.merge([a, b], intersect=True))) / union if union else 0.0


def summary(values: Mapping[str, np.ndarray]) -> dict:
    """Structure -> dict(images, mean, std) over the films that show it; NaN where none does."""
    defined = {name: v[~np.isnan(v)] for name, v in values.items()}
    return {name: dict(images=len(v), mean=float(v.mean()) if len(v) else float('nan'),
                       std=float(v.std()) if len(v) else float('nan')) for name, v in defined.items()}


def measure_of(values: Mapping[str, np.ndarray]) -> Measure:
    """The mean of each structure under weights of the films, for `bootstrap.draws`."""
    return lambda weights: {name: share(weights @ np.nan_to_num(v), weights @ (~np.isnan(v)).astype(float))
                            for name, v in values.items()}
