"""The detector as its users see it: each class above a score threshold of its own, chosen for false positives per film.

A box that was predicted for several classes keeps only its best class. An object is hit when any kept detection of its
class overlaps it; a detection is a false positive when it overlaps no object of its class.
"""
from typing import NamedTuple

import numpy as np

from relnet_jax.evaluation.calibration import fit_temperature, judged
from relnet_jax.evaluation.matching import (
    boxes_of,
    by_class,
    by_overlap,
    image_order,
    is_difficult,
    pairs,
    pairwise_iou,
    ranked,
)
from relnet_jax.evaluation.ranking import Ranked, share
from relnet_jax.runs.operating_points import OperatingPoints

SAME_BOX = 0.9      # IoU from which two boxes are one that was predicted for two classes


class AtThreshold(NamedTuple):
    sensitivity: np.ndarray     # float64 [R]; NaN without objects
    fp_per_film: np.ndarray     # float64 [R]


def best_classes(ground_truth: dict, results: list, *, convention: str = 'pixel_inclusive') -> list:
    """The results without those whose box is, by SAME_BOX, that of a better one of another class that stays."""
    order = image_order(ground_truth, results)
    boxes = boxes_of(results, range(len(results)), order)
    labels, scores = (np.array([r[key] for r in results]) for key in ('category_id', 'score'))
    stays = np.ones(len(results), bool)
    for rows, _ in pairs(boxes, boxes):
        rows = rows[np.argsort(-scores[rows], kind='stable')]
        same = pairwise_iou(boxes.boxes[rows], boxes.boxes[rows], convention=convention) >= SAME_BOX
        same &= labels[rows][:, None] != labels[rows]
        for i in np.flatnonzero(same.any(1)):
            if stays[rows[i]]:
                stays[rows[i + 1:][same[i, i + 1:]]] = False
    return [r for r, kept in zip(results, stays) if kept]


def hits(ground_truth: dict, results: list, *, iou: float = 0.0,
         convention: str = 'pixel_inclusive') -> dict[str, Ranked]:
    """Class name -> a ranking whose right entries are objects, at the score of the best detection that overlaps them,
    and whose wrong ones are false positives. iou: the overlap from which it counts; 0 = any.

    Objects that are `difficult` or crowds count neither way. Raises as `matching.by_overlap`.
    """
    results = best_classes(ground_truth, results, convention=convention)
    order, annotations = image_order(ground_truth, results), ground_truth['annotations']
    truth_of, found_of = by_class(annotations, order), by_class(results, order)
    rankings = {}
    for category in ground_truth['categories']:
        truth, found = truth_of(category['id']), found_of(category['id'])
        score = np.array([results[row]['score'] for row in found.row], float)
        best, alone = np.full(len(truth.row), -np.inf), np.ones(len(found.row), bool)
        for here, there in pairs(found, truth):
            overlap = pairwise_iou(found.boxes[here], truth.boxes[there], convention=convention)
            hit = overlap >= iou if iou > 0 else overlap > 0
            alone[here] = ~hit.any(1)
            best[there] = np.where(hit, score[here][:, None], -np.inf).max(0)
        counts = np.array([not is_difficult(annotations[row]) for row in truth.row], bool)
        found_objects = counts & np.isfinite(best)
        image = np.concatenate([truth.image[found_objects], found.image[alone]])
        score = np.concatenate([best[found_objects], score[alone]])
        right = np.arange(len(image)) < found_objects.sum()
        order_by = np.argsort(-score, kind='stable')
        rankings[category['name']] = Ranked(
            image[order_by], score[order_by], right[order_by], ~right[order_by],
            np.bincount(truth.image[counts], minlength=len(order)).astype(float))
    return rankings


def threshold(ranking: Ranked, fp_per_film: float) -> float:
    """The lowest score from which on a class has at most `fp_per_film` false positives per film; 0 if it always has.

    It lies halfway between the false positive that would be too many and what ranks above it.
    """
    wrong, films = ranking.score[ranking.wrong], len(ranking.objects)
    allowed = int(np.floor(fp_per_film * films + 1e-9))
    if len(wrong) <= allowed:
        return 0.0
    too_many = wrong[allowed]
    above = ranking.score[ranking.score > too_many]
    return float((too_many + (above[-1] if len(above) else 1.0)) / 2)


def at_threshold(ranking: Ranked, score: float, weights: np.ndarray) -> AtThreshold:
    """`weights` float64 [R, I], by image."""
    shown = ranking.score >= score
    found, wrong = (weights[:, ranking.image[shown & kind]].sum(1) for kind in (ranking.right, ranking.wrong))
    return AtThreshold(share(found, weights @ ranking.objects), share(wrong, weights.sum(1)))


def choose(ground_truth: dict, results: list, *, fp_per_film: float, data_set: str,
           convention: str = 'pixel_inclusive') -> OperatingPoints:
    """Thresholds for `fp_per_film` false positives of each class per film, and the temperature by the detections that
    are right at IoU 0.5, on validation data with this name."""
    thresholds = {name: threshold(ranking, fp_per_film)
                  for name, ranking in hits(ground_truth, results, convention=convention).items()}
    looks = by_overlap(ground_truth, results, convention=convention)
    temperature = fit_temperature(judged([ranked(of_class, 0.5) for of_class in looks.values()]))
    return OperatingPoints(thresholds, temperature, fp_per_film, data_set)


def table(ground_truth: dict, results: list, points: OperatingPoints, *, convention: str = 'pixel_inclusive') -> dict:
    """Class name -> dict(threshold, sensitivity, fp_per_film, objects); sensitivity is NaN without objects."""
    rows, once = {}, np.ones((1, len(ground_truth['images'])))
    for name, ranking in hits(ground_truth, results, convention=convention).items():
        score = points.thresholds.get(name, 0.0)
        at = at_threshold(ranking, score, once)
        rows[name] = dict(threshold=score, sensitivity=float(at.sensitivity[0]), fp_per_film=float(at.fp_per_film[0]),
                          objects=int(ranking.objects.sum()))
    return rows
