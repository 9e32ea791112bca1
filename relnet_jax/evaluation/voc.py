"""VOC-style average precision at any IoU threshold: the lab's mAP1 (IoU 0.01) and mAP50 (IoU 0.50).

Everingham et al., "The PASCAL VOC challenge", IJCV 2010, with the area under all points of the precision envelope
(the form of VOC 2010 and later). It differs from COCO's AP in the matching: a detection looks only at the ground truth
with the largest IoU, used or not, so that a second detection of the same object is always wrong.
"""
from collections import defaultdict

import numpy as np

CONVENTIONS = {'pixel_inclusive': 1.0, 'continuous': 0.0}  # what is added to x2 - x1 to give a width


def pairwise_iou(a, b, *, convention: str) -> np.ndarray:
    """IoU [N, M] of boxes xyxy [N, 4] and [M, 4], float64; 0 for boxes that do not touch or have no area."""
    extra = CONVENTIONS[convention]
    a, b = np.float64(a), np.float64(b)
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(high - low + extra, 0, None).prod(-1)
    areas = [np.clip(x[:, 2:] - x[:, :2] + extra, 0, None).prod(-1) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def best_match(boxes, images, gt_boxes, gt_images, *, convention: str) -> tuple:
    """For every detection the ground truth of its image with the largest IoU.

    `boxes` [D, 4], `images` [D] (any integer key of the image), `gt_boxes` [G, 4], `gt_images` [G].
    Returns (index into the ground truths int [D], IoU float64 [D]); IoU 0 where the image has none. Ties: lower index.
    """
    index, iou = np.zeros(len(boxes), int), np.zeros(len(boxes))
    rows, gt_rows = _rows_by_image(images), _rows_by_image(gt_images)
    for image in rows.keys() & gt_rows.keys():
        here, gt_here = rows[image], gt_rows[image]
        overlaps = pairwise_iou(boxes[here], gt_boxes[gt_here], convention=convention)
        best = overlaps.argmax(1)
        index[here], iou[here] = gt_here[best], overlaps[np.arange(len(here)), best]
    return index, iou


def _rows_by_image(images) -> dict:
    rows = defaultdict(list)
    for row, image in enumerate(images):
        rows[image].append(row)
    return {image: np.array(r) for image, r in rows.items()}


def true_positives(index, iou, difficult, *, iou_threshold: float) -> tuple:
    """(true positive bool [D], counts bool [D]) of detections in the order of decreasing score.

    `index` and `iou` come from `best_match`, `difficult` bool [G]. A detection of a difficult object counts neither
    way; the first one of any other object is right; repeated and missed ones are wrong.
    """
    hit = iou >= iou_threshold
    counts = np.ones(len(index), bool)
    counts[hit] = ~difficult[index[hit]]
    candidates = np.flatnonzero(hit & counts)
    _, first = np.unique(index[candidates], return_index=True)
    right = np.zeros(len(index), bool)
    right[candidates[first]] = True
    return right, counts


def average_precision(right, num_truth: int) -> float:
    """Area under the precision envelope. `right` bool [D] in the order of decreasing score, without rows that do not
    count; `num_truth` > 0 objects. 0 without detections."""
    hits = np.cumsum(right)
    recall = np.concatenate([[0.0], hits / num_truth])
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))


def voc_metrics(ground_truth: dict, results: list, *, iou_thresholds, convention: str = 'pixel_inclusive') -> dict:
    """Threshold -> dict(mAP, per_class: name -> AP, true_positives: name -> int), in 0..1.

    `ground_truth` is a COCO dict and `results` are COCO result records (image_id, category_id, bbox, score); x2 is
    x + width, and `convention` says whether that pixel column belongs to the box ('pixel_inclusive', VOC's and the
    lab's: w = x2 - x1 + 1) or not ('continuous': w = x2 - x1). Annotations with a true `difficult` or `iscrowd` are
    difficult. Equal scores keep the order of the images, then that of the results. mAP is the mean over the classes
    with ground truth that is not difficult; classes without have AP NaN, as has mAP if there are none.
    Raises ValueError for an unknown convention, a threshold outside (0, 1], or a result of an unknown image.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f'convention: expected one of {sorted(CONVENTIONS)}, got {convention!r}')
    if not all(0 < t <= 1 for t in iou_thresholds):
        raise ValueError(f'IoU thresholds: expected values in (0, 1], got {tuple(iou_thresholds)}')
    order = {image['id']: i for i, image in enumerate(ground_truth['images'])}
    for i, r in enumerate(results):
        if r['image_id'] not in order:
            raise ValueError(f'result {i}: image_id {r["image_id"]!r} is not in the ground truth ({len(order)} images)')
    truth_of, results_of = _by_class(ground_truth['annotations']), _by_class(results)

    metrics = {t: dict(mAP=float('nan'), per_class={}, true_positives={}) for t in iou_thresholds}
    for category in ground_truth['categories']:
        truth, found = truth_of[category['id']], results_of[category['id']]
        images = np.array([order[r['image_id']] for r in found], int)
        ranked = np.lexsort((images, -np.array([r['score'] for r in found])))
        difficult = np.array([bool(a.get('difficult') or a.get('iscrowd')) for a in truth], bool)
        index, iou = best_match(_corners(found)[ranked], images[ranked], _corners(truth),
                                np.array([order[a['image_id']] for a in truth], int), convention=convention)
        num_truth = int((~difficult).sum())
        for t in iou_thresholds:
            right, counts = true_positives(index, iou, difficult, iou_threshold=t)
            ap = average_precision(right[counts], num_truth) if num_truth else float('nan')
            metrics[t]['per_class'][category['name']] = ap
            metrics[t]['true_positives'][category['name']] = int(right.sum())
    for at in metrics.values():
        defined = [ap for ap in at['per_class'].values() if not np.isnan(ap)]
        at['mAP'] = float(np.mean(defined)) if defined else float('nan')
    return metrics


def _by_class(records: list) -> dict:
    groups = defaultdict(list)
    for record in records:
        groups[record['category_id']].append(record)
    return groups


def _corners(records: list) -> np.ndarray:
    """xywh of COCO records -> xyxy [n, 4], float64."""
    boxes = np.array([r['bbox'] for r in records], np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
