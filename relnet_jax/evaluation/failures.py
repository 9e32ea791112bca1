"""Why detections are wrong and objects were not found, one reason each; and which findings are taken for which.

The reasons are those of TIDE (Bolya et al., "TIDE: A general toolbox for identifying object detection errors", ECCV
2020, sec. 2.2), with its overlaps: a box is right from HIT on, and touches nothing up to BACKGROUND.
"""
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from relnet_jax.evaluation.matching import boxes_of, image_order, is_difficult, pairs, pairwise_iou

HIT, BACKGROUND = 0.5, 0.1
HIT_REASON, MISSED = 'hit', 'missed'
WRONG_CLASS, POOR_BOX, DUPLICATE, BOTH = 'wrong class', 'poor box', 'duplicate', 'wrong class, poor box'
BACKGROUND_REASON, IGNORED = 'background', 'not counted'
OF_DETECTIONS = (HIT_REASON, WRONG_CLASS, POOR_BOX, DUPLICATE, BOTH, BACKGROUND_REASON, IGNORED)
OF_TRUTH = (HIT_REASON, WRONG_CLASS, POOR_BOX, MISSED, IGNORED)


class Failures(NamedTuple):
    """One reason for each annotation and for each detection that reaches its threshold.

    * hit: the first detection, best score first, with an overlap of HIT or more with an object of its class.
    * poor box: else, an overlap above BACKGROUND but below HIT with an object of its class is its largest of the class.
    * wrong class: else, an overlap of HIT or more with an object of another class.
    * duplicate: else, an overlap of HIT or more with an object of its class that is hit by a better one.
    * background: else, no overlap above BACKGROUND; 'wrong class, poor box': what remains.
    * not counted: `difficult` or a crowd, or a detection that would be none of the above but for overlapping one.
    An object that is not hit is what a detection of it was, wrong class before poor box, or missed.
    """
    truth: list[str]                # of each annotation, in its order
    detections: dict[int, str]      # position in the results -> reason
    objects: dict[int, int]         # position in the results -> that of the annotation the reason is about, if any
    taken_for: list[int | None]     # of each annotation: position of the result it is matched with, of any class

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """'truth' and 'detections' -> reason -> number, all reasons in their order."""
        truth, detections = Counter(self.truth), Counter(self.detections.values())
        return dict(truth={reason: truth[reason] for reason in OF_TRUTH},
                    detections={reason: detections[reason] for reason in OF_DETECTIONS})


def failures(ground_truth: dict, results: list, thresholds: float | Mapping[str, float], *,
             convention: str = 'pixel_inclusive') -> Failures:
    """`thresholds`: lowest score of a detection that is looked at, for all classes or by class name (0 where absent).

    Raises ValueError for a result of an unknown image.
    """
    order, annotations = image_order(ground_truth, results), ground_truth['annotations']
    names = {c['id']: c['name'] for c in ground_truth['categories']}

    def lowest(result: dict) -> float:
        by_name = isinstance(thresholds, Mapping)
        return thresholds.get(names.get(result['category_id']), 0.0) if by_name else thresholds
    shown = [row for row, r in enumerate(results) if r['score'] >= lowest(r)]
    shown.sort(key=lambda row: -results[row]['score'])
    found, truth = boxes_of(results, shown, order), boxes_of(annotations, range(len(annotations)), order)
    label, own = (np.array([records[row]['category_id'] for row in of.row]) for records, of in
                  ((results, found), (annotations, truth)))
    difficult = np.array([is_difficult(a) for a in annotations], bool)
    out = Failures([IGNORED if d else MISSED for d in difficult], dict.fromkeys(shown, BACKGROUND_REASON), {},
                   [None] * len(annotations))
    for here, there in pairs(found, truth):
        overlap = pairwise_iou(found.boxes[here], truth.boxes[there], convention=convention)
        _judge(out, found.row[here].tolist(), there.tolist(), overlap, label[here][:, None] == own[there],
               difficult[there])
    return out


def _judge(out: Failures, rows: list, objects: list, overlap: np.ndarray, same: np.ndarray,
           difficult: np.ndarray) -> None:
    """The detections `rows`, best first, of an image with `objects`; overlap and same (class): [rows, objects]."""
    own, other = np.where(same, overlap, 0), np.where(same | difficult, 0, overlap)
    hit_by = {}
    for d, row in enumerate(rows):      # all hits first: a reason of another detection depends on what is hit
        best = own[d].argmax()
        if own[d, best] >= HIT and not difficult[best] and best not in hit_by:
            hit_by[best] = d
            out.detections[row], out.objects[row] = HIT_REASON, objects[best]
            out.truth[objects[best]], out.taken_for[objects[best]] = HIT_REASON, row
    for d, row in enumerate(rows):
        best, wrong, any_best = own[d].argmax(), other[d].argmax(), overlap[d].argmax()
        if hit_by.get(best) == d:
            continue
        if own[d, best] > BACKGROUND and difficult[best]:
            reason, target = IGNORED, best
        elif BACKGROUND < own[d, best] < HIT:
            reason, target = POOR_BOX, best
        elif other[d, wrong] >= HIT:
            reason, target = WRONG_CLASS, wrong
        elif own[d, best] >= HIT:
            reason, target = DUPLICATE, best
        elif overlap[d, any_best] > BACKGROUND:
            reason, target = IGNORED if difficult[any_best] else BOTH, any_best
        else:
            continue
        out.detections[row], out.objects[row] = reason, objects[target]
        mine = objects[target]
        if reason == WRONG_CLASS and out.truth[mine] in (MISSED, POOR_BOX):
            out.truth[mine], out.taken_for[mine] = WRONG_CLASS, row
        elif reason == POOR_BOX and out.truth[mine] == MISSED:
            out.truth[mine] = POOR_BOX


def confusion(ground_truth: dict, results: list, found: Failures) -> tuple[list[str], np.ndarray]:
    """(names, int [K + 1, K + 1]): rows what is there, columns what was said, the last of each nothing.

    An object counts once: as the class of its hit, else of the best detection of another class that is wrong about it,
    else as not found. Detections that no object is counted as are said where nothing is, without duplicates and those
    not counted.
    """
    place = {c['id']: i for i, c in enumerate(ground_truth['categories'])}
    nothing, used = len(place), {row for row in found.taken_for if row is not None}
    matrix = np.zeros((nothing + 1, nothing + 1), int)
    for annotation, reason, row in zip(ground_truth['annotations'], found.truth, found.taken_for):
        if reason != IGNORED:
            said = nothing if row is None else place[results[row]['category_id']]
            matrix[place[annotation['category_id']], said] += 1
    for row, reason in found.detections.items():
        if row not in used and reason not in (DUPLICATE, IGNORED):
            matrix[nothing, place[results[row]['category_id']]] += 1
    return [c['name'] for c in ground_truth['categories']], matrix
