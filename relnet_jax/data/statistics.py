"""Counts and sizes of what a data set holds."""
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from relnet_jax.data.anchor_fit import uncovered
from relnet_jax.data.source import Source
from relnet_jax.data.transforms import resized_size
from relnet_jax.ops.anchors import NECK_STRIDES


class Contents(NamedTuple):
    """What a source holds, by class name: its annotations (as ground truth has them), and the boxes xyxy on the canvas,
    float64 [n, 4], of those that are no crowds."""
    source: Source
    annotations: dict[str, list[dict]]
    boxes: dict[str, np.ndarray]


def anchors_of(config: ConfigDict) -> dict:
    """The anchors of a config as `anchor_fit` takes them."""
    m = config.model
    return dict(canvas=tuple(config.data.canvas), strides=NECK_STRIDES[m.neck], sizes=m.anchor_sizes,
                ratios=m.anchor_ratios)


def contents(source: Source, config: ConfigDict) -> Contents:
    d, ratio = config.data, {}
    for r in source.records:
        size = resized_size(r['height'], r['width'], scale=d.scale, max_size=d.max_size, canvas=tuple(d.canvas))
        ratio[r['id']] = np.array([size[1] / r['width'], size[0] / r['height']] * 2)
    names = dict(zip(source.category_ids, source.classes))
    annotations = {name: [] for name in source.classes}
    for annotation in source.ground_truth()['annotations']:
        annotations[names[annotation['category_id']]].append(annotation)
    boxes = {}
    for name, found in annotations.items():
        xywh = np.array([a['bbox'] * ratio[a['image_id']] for a in found if not a['iscrowd']]).reshape(-1, 4)
        boxes[name] = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    return Contents(source, annotations, boxes)


def class_statistics(held: Contents, config: ConfigDict) -> dict[str, dict]:
    """Per class name: `instances`, `images`, `masks`, `crowds`; and of the boxes that are not crowds, 0 without any:
    `side` (median square root of the area on the canvas, px), `no_anchor` (share with a best anchor IoU below 0.5)."""
    statistics = {}
    for name, rows in held.annotations.items():
        own = held.boxes[name]
        sides = np.sqrt(np.prod(own[:, 2:] - own[:, :2], axis=1))
        statistics[name] = dict(
            instances=len(rows), images=len({a['image_id'] for a in rows}), crowds=len(rows) - len(own),
            masks=sum('segmentation' in a for a in rows), side=float(np.median(sides)) if len(own) else 0.0,
            no_anchor=uncovered(own, **anchors_of(config)))
    return statistics


def images_without_objects(held: Contents) -> int:
    return len(held.source) - len({a['image_id'] for rows in held.annotations.values() for a in rows})


def class_differences(train: Contents, val: Contents) -> list[str]:
    """One line for each class that has objects in one of the two sets alone, also for one that training has no name
    for."""
    lines = []
    for name, rows in train.annotations.items():
        here, there = len(rows), len(val.annotations.get(name, ()))
        if bool(here) != bool(there):
            lines.append(f"class '{name}': {here or 'no'} objects in training, {there or 'none'} in validation")
    known = {*train.source.classes, *train.source.parts, *train.source.unwanted}
    return lines + [f"class '{name}': unknown to training, {count} objects in validation, left out"
                    for name, count in val.source.unwanted.items() if name not in known]


def together(held: Contents) -> np.ndarray:
    """int [C, C]: images in which two classes occur together; on the diagonal those of each class."""
    sets = [{a['image_id'] for a in rows} for rows in held.annotations.values()]
    return np.array([[len(a & b) for b in sets] for a in sets]).reshape(len(sets), len(sets))
