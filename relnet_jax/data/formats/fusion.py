"""The boxes of several readers of one film as one set: weighted box fusion (Solovyev et al. 2021), in numpy.

The package ensemble-boxes of the paper's authors is the reference; a test holds its answers.
"""
from typing import NamedTuple

import numpy as np

from relnet_jax.errors import UserError

FUSIONS = ('none', 'majority', 'wbf')


class Fused(NamedTuple):
    """n fused boxes, the best first."""
    boxes: np.ndarray       # float64 [n, 4], xyxy
    scores: np.ndarray      # float64 [n]
    labels: np.ndarray      # int [n]
    members: list[list[int]]    # rows of the input that each was made of


def overlaps(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """IoU [n] of boxes [n, 4] with one box [4]."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    union = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2]) - shared
    return shared / np.maximum(union, 1e-12)


def weighted_box_fusion(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, *, models: int,
                        iou: float) -> Fused:
    """Fuse boxes [n, 4] of positive area with scores [n] and labels [n] that `models` detectors, or readers, drew.

    By falling score (of equal ones the last first, as the package does) each box joins the fused box of its label that
    it overlaps most, if with an IoU above `iou`, or else starts one. A fused box is the mean of its members weighted by
    their scores; its score is their mean score times min(members, models) / models.
    """
    out = []
    for label in dict.fromkeys(labels.tolist()):
        rows = np.flatnonzero(labels == label)
        clusters, centers = [], np.zeros((0, 4))
        for row in rows[np.argsort(scores[rows], kind='stable')[::-1]]:
            shared = overlaps(centers, boxes[row])
            best = int(shared.argmax()) if len(shared) else -1
            if best >= 0 and shared[best] > iou:
                clusters[best].append(int(row))
                centers[best] = np.average(boxes[clusters[best]], axis=0, weights=scores[clusters[best]])
            else:
                clusters.append([int(row)])
                centers = np.concatenate([centers, boxes[row][None]])
        out += [(center, scores[members].mean() * min(models, len(members)) / models, label, members)
                for center, members in zip(centers, clusters)]
    out.sort(key=lambda fused: -fused[1])
    return Fused(np.array([o[0] for o in out]).reshape(-1, 4), np.array([o[1] for o in out]),
                 np.array([o[2] for o in out], int), [o[3] for o in out])


def fuse_readers(boxes: np.ndarray, labels: np.ndarray, drawn_by: list[str], *, readers: int, fusion: str,
                 iou: float) -> Fused:
    """The boxes [n, 4] of a film that `readers` people looked at, `drawn_by` whom each: the share who drew it is its
    score. 'none': every box as it is; 'wbf': fused; 'majority': those fused boxes that more than half of them drew."""
    if fusion not in FUSIONS:
        raise UserError(f'data.fusion: expected one of {FUSIONS}, got {fusion!r}')
    if fusion == 'none':
        return Fused(boxes, np.full(len(boxes), 1 / readers), labels, [[i] for i in range(len(boxes))])
    fused = weighted_box_fusion(boxes, np.ones(len(boxes)), labels, models=readers, iou=iou)
    if fusion == 'wbf':
        return fused
    votes = np.array([len({drawn_by[i] for i in members}) for members in fused.members])
    kept = np.flatnonzero(2 * votes > readers)
    return Fused(fused.boxes[kept], fused.scores[kept], fused.labels[kept], [fused.members[i] for i in kept])
