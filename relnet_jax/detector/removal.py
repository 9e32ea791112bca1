"""How a detection's score changes when one input of one relation is left out: a class, a part or a region.

The second pass says it itself, run again without that input (`second_pass`). A relation has classes or regions to lose
if it sows weights of them, and parts if it needs them.
"""
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from relnet_jax.detector.relation_weights import Observation, part_names, roi_of
from relnet_jax.detector.second_pass import Kept
from relnet_jax.types import Array

TITLES = {'classes': 'change of the score without a class', 'parts': 'change of the score without a part',
          'rois': 'change of the score without a region'}
SOWN = {'class_attention': {'classes'}, 'class_to_class': {'classes'}, 'presence': {'classes', 'rois'},
        'box_to_box': {'rois'}}         # weights -> what a relation with such weights can lose
REGIONS = 10        # places in the image at most, those of the best detections
SAME_PLACE = 0.3    # IoU from which a RoI belongs to a region
SMALLEST = 5e-4     # change that is told


class Change(NamedTuple):
    """What leaving out did to the score of one detection, largest first; only what changed it."""
    relation: str       # path of the module
    title: str
    names: tuple[str, ...]
    changes: Array      # float [n], the score without it minus the score with everything


class Input(NamedTuple):
    """Something that one relation can do without."""
    relation: str       # path of the module
    kind: str           # a field of `Kept`
    name: str
    rows: Array         # int, its entries there


def overlaps(a: Array, b: Array) -> Array:
    """IoU float64 [n, m] of boxes [n, 4] and [m, 4], both at least one; XLA would compile it for every n."""
    a, b = (np.concatenate([x[:, :2], x[:, 2:] - x[:, :2]], axis=1).astype(np.float64) for x in (a, b))
    return coco_mask.iou(a, b, [False] * len(b))


def regions(seen: Observation, detection: int, roi: int) -> dict[int, Array]:
    """Detection -> RoIs of its region: at most REGIONS, best first, at other places than `detection` and each other."""
    found: dict[int, Array] = {}
    boxes, rois = seen.detections.boxes, seen.contexts[seen.head].boxes[0]
    among, near = (overlaps(boxes, others) >= SAME_PLACE for others in (boxes, rois))
    for other in range(len(boxes)):
        apart = not (among[other, detection] or near[other, roi] or among[other, list(found)].any())
        if apart and near[other].any() and len(found) < REGIONS:
            found[other] = np.flatnonzero(near[other])
    return found


def relations_of(seen: Observation) -> dict[str, set[str]]:
    """Path of each relation of the second pass -> the kinds of inputs, fields of `Kept`, that it can do without."""
    found = {}
    for path in seen.contexts:
        head, _, name = path.partition('/')
        if head == seen.head and name and '/' not in name:
            sown = [kind for where, kind in seen.weights if f'{where}/'.startswith(f'{path}/')]
            found[path] = set().union(*(SOWN.get(kind, set()) for kind in sown))
            found[path] |= {'parts'} if 'parts' in seen.options[path]['needs'] else set()
    return found


def inputs(seen: Observation, places: dict[int, Array]) -> Iterator[Input]:
    """All that the relations of the second pass can do without, one by one; places: as of `regions`."""
    for path, kinds in relations_of(seen).items():
        if 'classes' in kinds:
            yield from (Input(path, 'classes', name, np.array([k])) for k, name in enumerate(seen.classes, 1))
        if 'parts' in kinds:
            rows, names = part_names(seen, path)
            yield from (Input(path, 'parts', name, np.array([row])) for row, name in zip(rows, names))
        if 'rois' in kinds:
            for other, rows in places.items():
                label, score = seen.detections.labels[other], seen.detections.scores[other]
                yield Input(path, 'rois', f'{seen.classes[label - 1]} {score:.2f}', rows)


def kept_without(seen: Observation, left_out: list[Input]) -> dict[str, Kept]:
    """`Kept` of each relation, by its name in the head: everything in the first variant, then without one input each.

    There are as many variants for every detection of a detector, so that one compilation does for all: where there are
    fewer than REGIONS regions, the last variants have everything.
    """
    kinds = relations_of(seen)
    regions_left = sum(REGIONS for kind in kinds.values() if 'rois' in kind)
    variants = 1 + regions_left + sum(one.kind != 'rois' for one in left_out)
    kept = {}
    for path in kinds:
        own = seen.contexts[path]
        sizes = own.class_logits.shape[-1], own.part_valid.shape[1], own.roi_valid.shape[1]
        kept[path] = Kept(*(np.ones((variants, 1, size), bool) for size in sizes))
    for variant, one in enumerate(left_out, 1):
        getattr(kept[one.relation], one.kind)[variant, 0, one.rows] = False
    return {path.partition('/')[2]: value for path, value in kept.items()}


def changes(seen: Observation, detection: int, *, top: int = 5) -> list[Change]:
    """Of every relation and kind of input, the `top` whose loss changes the score of a detection most; empty for a
    detector without a second pass."""
    if seen.second_pass is None:
        return []
    roi, label = roi_of(seen, detection), seen.detections.labels[detection]
    left_out = list(inputs(seen, regions(seen, detection, roi)))
    scores = np.asarray(seen.second_pass(kept_without(seen, left_out), roi))[:, label]
    groups: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for one, score in zip(left_out, scores[1:]):
        groups.setdefault((one.relation, one.kind), []).append((one.name, float(score - scores[0])))
    found = []
    for (path, kind), group in groups.items():
        largest = sorted((item for item in group if abs(item[1]) >= SMALLEST), key=lambda item: -abs(item[1]))[:top]
        found.append(Change(path, TITLES[kind], tuple(name for name, _ in largest),
                            np.array([change for _, change in largest])))
    return found
