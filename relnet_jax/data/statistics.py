"""Counts and sizes of what a data set holds."""
from collections import defaultdict

import numpy as np
from ml_collections import ConfigDict

from relnet_jax.data.anchor_fit import uncovered
from relnet_jax.data.source import Source
from relnet_jax.data.transforms import resized_size
from relnet_jax.ops.anchors import NECK_STRIDES


def anchors_of(config: ConfigDict) -> dict:
    """The anchors of a config as `anchor_fit` takes them."""
    m = config.model
    return dict(canvas=tuple(config.data.canvas), strides=NECK_STRIDES[m.neck], sizes=m.anchor_sizes,
                ratios=m.anchor_ratios)


def canvas_boxes(source: Source, config: ConfigDict) -> tuple[dict[int, list[dict]], dict[int, np.ndarray]]:
    """By category id: the annotations, and the boxes float64 [n, 4] on the canvas of those that are no crowds."""
    d, ratio = config.data, {}
    for r in source.records:
        size = resized_size(r['height'], r['width'], scale=d.scale, max_size=d.max_size, canvas=tuple(d.canvas))
        ratio[r['id']] = np.array([size[1] / r['width'], size[0] / r['height']] * 2)
    found = defaultdict(list)
    for annotation in source.ground_truth()['annotations']:
        found[annotation['category_id']].append(annotation)
    boxes = {}
    for category in source.category_ids:
        xywh = np.array([a['bbox'] * ratio[a['image_id']] for a in found[category] if not a['iscrowd']]).reshape(-1, 4)
        boxes[category] = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    return found, boxes


def class_statistics(source: Source, config: ConfigDict) -> dict[str, dict]:
    """Per class name: `instances`, `images`, `masks`, `crowds`; and of the boxes that are not crowds, 0 without any:
    `side` (median square root of the area on the canvas, px), `no_anchor` (share with a best anchor IoU below 0.5)."""
    found, boxes = canvas_boxes(source, config)
    statistics = {}
    for name, category in zip(source.classes, source.category_ids):
        rows, own = found[category], boxes[category]
        sides = np.sqrt(np.prod(own[:, 2:] - own[:, :2], axis=1))
        statistics[name] = dict(
            instances=len(rows), images=len({a['image_id'] for a in rows}), crowds=len(rows) - len(own),
            masks=sum('segmentation' in a for a in rows), side=float(np.median(sides)) if len(own) else 0.0,
            no_anchor=uncovered(own, **anchors_of(config)))
    return statistics


def images_without_objects(source: Source) -> int:
    return len(source) - len({a['image_id'] for a in source.ground_truth()['annotations']})


def class_differences(train: Source, val: Source, config: ConfigDict) -> list[str]:
    """One line for each class that has objects in one of the two sets alone."""
    counts = [class_statistics(source, config) for source in (train, val)]
    lines = []
    for name in train.classes:
        here, there = counts[0][name]['instances'], counts[1].get(name, {'instances': 0})['instances']
        if bool(here) != bool(there):
            lines.append(f"class '{name}': {here or 'no'} objects in training, {there or 'none'} in validation")
    return lines


def together(source: Source) -> np.ndarray:
    """int [C, C]: images in which two classes occur together; on the diagonal those of each class."""
    present = {category: {a['image_id'] for a in source.ground_truth()['annotations'] if a['category_id'] == category}
               for category in source.category_ids}
    sets = [present[category] for category in source.category_ids]
    return np.array([[len(a & b) for b in sets] for a in sets]).reshape(len(sets), len(sets))
