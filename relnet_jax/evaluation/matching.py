"""Which object each detection looks at, class by class, and which detections are right, by the rule of PASCAL VOC.

A detection looks at the object of its class and image that it fits best, used or not; the first one to hit an object is
right, so that a second detection of the same object never is (Everingham et al., "The PASCAL VOC challenge", IJCV
2010). Fit is overlap, or the distance of centres.
"""
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from relnet_jax.errors import UserError
from relnet_jax.evaluation.ranking import Ranked

CONVENTIONS = {'pixel_inclusive': 1.0, 'continuous': 0.0}  # what is added to x2 - x1 to give a width


class Boxes(NamedTuple):
    """Records of one class as arrays."""
    row: np.ndarray         # int [n] position in the list of all records
    image: np.ndarray       # int [n] position of the image
    boxes: np.ndarray       # float64 [n, 4] xyxy


class Looks(NamedTuple):
    """Detections of one class over all images, best first, and the object that each looks at."""
    found: Boxes            # of D detections
    score: np.ndarray       # float64 [D], falling
    index: np.ndarray       # int [D] into the objects; 0 where the image has none
    fit: np.ndarray         # float64 [D] IoU, or the allowed distance / the distance; 0 where the image has none
    truth: Boxes            # of G objects
    difficult: np.ndarray   # bool [G] counts neither way
    images: int             # of the data set


# ---- overlap and distance ----
def pairwise_iou(a, b, *, convention: str) -> np.ndarray:
    """IoU [N, M] of boxes xyxy [N, 4] and [M, 4], float64; 0 for boxes that do not touch or have no area."""
    extra = CONVENTIONS[convention]
    a, b = np.float64(a), np.float64(b)
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(high - low + extra, 0, None).prod(-1)
    areas = [np.clip(x[:, 2:] - x[:, :2] + extra, 0, None).prod(-1) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def by_overlap(ground_truth: dict, results: list, *, convention: str = 'pixel_inclusive') -> dict[str, Looks]:
    """Class name -> `Looks` whose fit is the IoU of boxes; `ground_truth` is a COCO dict, `results` result records.

    x2 is x + width, and `convention` says whether that pixel column belongs to the box ('pixel_inclusive', VOC's and
    the lab's: w = x2 - x1 + 1) or not ('continuous': w = x2 - x1). Equal scores keep the order of the images, then that
    of the results. Annotations with a true `difficult` or `iscrowd` are difficult.
    Raises ValueError for an unknown convention, or a result of an unknown image.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f'convention: expected one of {sorted(CONVENTIONS)}, got {convention!r}')
    return _look(ground_truth, results, lambda found, truth: pairwise_iou(found, truth[:, :4], convention=convention))


def by_distance(ground_truth: dict, results: list, *, mm: float = 0, pixels: float = 0) -> dict[str, Looks]:
    """Class name -> `Looks` by the distance between the centres of boxes; a fit of 1 or more is a hit.

    Allowed are `mm`, which needs `mm_per_pixel` in every image record, or `pixels`; without either the radius of the
    object, a quarter of its box's width + height. Raises UserError for an image without `mm_per_pixel`, ValueError for
    a result of an unknown image.
    """
    scale = {}
    if mm:
        lacking = [image['id'] for image in ground_truth['images'] if not image.get('mm_per_pixel')]
        if lacking:
            raise UserError(f'image {lacking[0]!r}: no mm_per_pixel in its record, which distances in mm need')
        scale = {image['id']: mm / image['mm_per_pixel'] for image in ground_truth['images']}

    def allowed(annotation: dict) -> float:
        _, _, w, h = annotation['bbox']
        return scale.get(annotation['image_id']) or pixels or (w + h) / 4

    def nearness(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
        (ours, theirs), radius = (x[:, :2] + x[:, 2:4] for x in (found, truth)), truth[:, 4]
        return radius / np.maximum(np.linalg.norm(ours[:, None] - theirs[None], axis=-1) / 2, 1e-9)
    return _look(ground_truth, results, nearness, allowed)


# ---- right and wrong ----
def true_positives(index, fit, difficult, *, threshold: float) -> tuple:
    """(true positive bool [D], counts bool [D]) of detections in the order of decreasing score.

    `index` and `fit` as in `Looks`. A detection that hits a difficult object counts neither way; the first one of any
    other object is right; repeated and missed ones are wrong.
    """
    hit = fit >= threshold
    counts = np.ones(len(index), bool)
    counts[hit] = ~difficult[index[hit]]
    candidates = np.flatnonzero(hit & counts)
    _, first = np.unique(index[candidates], return_index=True)
    right = np.zeros(len(index), bool)
    right[candidates[first]] = True
    return right, counts


def ranked(looks: Looks, threshold: float, *, duplicates: str = 'wrong') -> Ranked:
    """Detections that fit by `threshold` hit; those of an object that was hit before are 'wrong', or 'ignored'."""
    right, counts = true_positives(looks.index, looks.fit, looks.difficult, threshold=threshold)
    wrong = counts & ~right if duplicates == 'wrong' else looks.fit < threshold
    objects = np.bincount(looks.truth.image[~looks.difficult], minlength=looks.images).astype(float)
    return Ranked(looks.found.image, looks.score, right, wrong, objects)


# ---- records as arrays ----
def image_order(ground_truth: dict, results: list) -> dict:
    """Image id -> position. Raises ValueError for a result of an unknown image."""
    order = {image['id']: i for i, image in enumerate(ground_truth['images'])}
    for i, r in enumerate(results):
        if r['image_id'] not in order:
            raise ValueError(f'result {i}: image_id {r["image_id"]!r} is not in the ground truth ({len(order)} images)')
    return order


def is_difficult(annotation: dict) -> bool:
    return bool(annotation.get('difficult') or annotation.get('iscrowd'))


def by_class(records: list, order: dict) -> Callable[[int], Boxes]:
    """Function from a category id to its records, in their order."""
    rows = defaultdict(list)
    for row, record in enumerate(records):
        rows[record['category_id']].append(row)
    return lambda category: boxes_of(records, rows[category], order)


def boxes_of(records: list, rows: Sequence[int], order: dict) -> Boxes:
    boxes = np.array([records[row]['bbox'] for row in rows], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Boxes(np.array(rows, int), np.array([order[records[row]['image_id']] for row in rows], int), boxes)


def pairs(found: Boxes, truth: Boxes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows of found, rows of truth), int [n] and [m] ascending, of each image that both have."""
    def by_image(boxes: Boxes) -> dict:
        order = np.argsort(boxes.image, kind='stable')
        images, starts = np.unique(boxes.image[order], return_index=True)
        return dict(zip(images.tolist(), np.split(order, starts[1:])))
    here, there = by_image(found), by_image(truth)
    return ((here[image], there[image]) for image in here.keys() & there.keys())


def _look(ground_truth: dict, results: list, fit: Callable, allowed: Callable = lambda annotation: 0) -> dict:
    """fit(boxes [N, 4], boxes [M, 4] with `allowed` of their annotations as a fifth column) -> [N, M], in one image."""
    order, annotations = image_order(ground_truth, results), ground_truth['annotations']
    truth_of, found_of = by_class(annotations, order), by_class(results, order)
    looks = {}
    for category in ground_truth['categories']:
        truth, found = truth_of(category['id']), found_of(category['id'])
        score = np.array([results[row]['score'] for row in found.row], np.float64)
        best_first = np.lexsort((found.image, -score))
        found = Boxes(*(field[best_first] for field in found))
        index, best = np.zeros(len(found.row), int), np.zeros(len(found.row))
        objects = np.column_stack([truth.boxes, [allowed(annotations[row]) for row in truth.row]])
        for here, there in pairs(found, truth):
            fits = fit(found.boxes[here], objects[there])
            first_best = fits.argmax(1)
            index[here], best[here] = there[first_best], fits[np.arange(len(fits)), first_best]
        difficult = np.array([is_difficult(annotations[row]) for row in truth.row], bool)
        looks[category['name']] = Looks(found, score[best_first], index, best, truth, difficult, len(order))
    return looks
