"""VOC-style average precision at any IoU threshold: the lab's mAP1 (IoU 0.01) and mAP50 (IoU 0.50).

Everingham et al., "The PASCAL VOC challenge", IJCV 2010, with the area under all points of the precision envelope
(the form of VOC 2010 and later). It differs from COCO's AP in the matching: a detection looks only at the ground truth
with the largest IoU, used or not, so that a second detection of the same object is always wrong.
"""
import numpy as np

from relnet_jax.evaluation.matching import by_overlap, ranked
from relnet_jax.evaluation.ranking import average_precision, counts


def voc_metrics(ground_truth: dict, results: list, *, iou_thresholds, convention: str = 'pixel_inclusive') -> dict:
    """Threshold -> dict(mAP, per_class: name -> AP, true_positives: name -> int), in 0..1.

    `ground_truth` is a COCO dict and `results` are COCO result records (image_id, category_id, bbox, score), matched as
    `matching.by_overlap` says. mAP is the mean over the classes with ground truth that is not difficult; classes
    without have AP NaN, as has mAP if there are none.
    Raises ValueError for an unknown convention, a threshold outside (0, 1], or a result of an unknown image.
    """
    if not all(0 < t <= 1 for t in iou_thresholds):
        raise ValueError(f'IoU thresholds: expected values in (0, 1], got {tuple(iou_thresholds)}')
    looks = by_overlap(ground_truth, results, convention=convention)
    once = np.ones((1, len(ground_truth['images'])))
    metrics = {}
    for t in iou_thresholds:
        found = {name: ranked(of_class, t) for name, of_class in looks.items()}
        per_class = {name: float(average_precision(counts(r, once))[0]) for name, r in found.items()}
        defined = [ap for ap in per_class.values() if not np.isnan(ap)]
        metrics[t] = dict(mAP=float(np.mean(defined)) if defined else float('nan'), per_class=per_class,
                          true_positives={name: int(r.right.sum()) for name, r in found.items()})
    return metrics
