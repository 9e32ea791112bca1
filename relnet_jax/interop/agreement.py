"""How far two lists of detections of the same image agree, whatever the order they stand in. Numpy.

A list is a dict of `boxes` [n, 4] (pixels), `scores` [n], `labels` [n] and, if there are any, `masks` [n, m, m], best
first and without padding. The first list is the one to agree with.
"""
from typing import NamedTuple

import numpy as np

from relnet_jax.evaluation.matching import pairwise_iou

FIELDS = ('boxes', 'scores', 'labels', 'masks')
SAME = 0.5      # IoU from which two boxes of one label may be the same detection


class Agreement(NamedTuple):
    """Of one image, or of many by `total`. Differences are the largest of matched pairs; 0 where there is no pair."""
    expected: int           # detections to agree with
    found: int
    matched: int            # pairs
    ordered: bool           # the same labels in the same order, each detection matched with the one of its rank
    box: float              # pixels, over the four coordinates
    score: float
    mask: float | None      # probability, over all cells; None without masks
    over_90: int            # pairs whose IoU is at least 0.9

    @property
    def complete(self) -> bool:
        """Every detection of one side has its partner on the other."""
        return self.expected == self.found == self.matched


def rows(detections, image: int) -> dict[str, np.ndarray]:
    """The valid rows of one image of padded `Detections`, or of anything with its field names as attributes."""
    valid = np.asarray(detections.valid[image])
    listed = {name: np.asarray(getattr(detections, name)[image])[valid] for name in FIELDS}
    if listed['masks'].shape[-1] == 0:
        del listed['masks']
    return listed


def match(expected: dict, found: dict, *, iou: float = SAME) -> tuple[np.ndarray, np.ndarray]:
    """(partner int [n] in `found` or -1, IoU with it) for each detection of `expected`.

    One to one and of the same label: the best scored chooses first, among free ones the largest IoU, if it is at least
    `iou`; of equal ones the first.
    """
    overlaps = pairwise_iou(expected['boxes'], found['boxes'], convention='continuous')
    free = expected['labels'][:, None] == found['labels'][None]
    partner, shared = np.full(len(overlaps), -1), np.zeros(len(overlaps))
    for i, row in enumerate(overlaps):
        candidates = np.where(free[i] & (row >= iou), row, -1)
        if candidates.size and candidates.max() >= 0:
            partner[i] = candidates.argmax()
            shared[i] = row[partner[i]]
            free[:, partner[i]] = False
    return partner, shared


def compare(expected: dict, found: dict) -> Agreement:
    """Agreement of one image. Raises ValueError where one side has masks and the other has not, or of another size."""
    masked = [lines['masks'].shape[1:] if 'masks' in lines else None for lines in (expected, found)]
    if masked[0] != masked[1]:
        raise ValueError(f'masks: expected {masked[0]}, got {masked[1]}')
    partner, shared = match(expected, found)
    ours = np.flatnonzero(partner >= 0)
    theirs = partner[ours]

    def largest(name: str) -> float | None:
        if name not in expected:
            return None
        return float(np.abs(np.float64(expected[name][ours]) - np.float64(found[name][theirs])).max(initial=0))

    n = len(expected['labels'])
    ordered = n == len(found['labels']) and bool((partner == np.arange(n)).all())
    return Agreement(n, len(found['labels']), len(ours), ordered, largest('boxes'), largest('scores'),
                     largest('masks'), int((shared >= 0.9).sum()))


def total(parts: list[Agreement]) -> Agreement:
    """Of several images: counts added, the largest differences, ordered where all are."""
    if not parts:
        return Agreement(0, 0, 0, True, 0.0, 0.0, None, 0)

    def joined(name: str, values: tuple):
        if name == 'ordered':
            return all(values)
        if name in ('box', 'score', 'mask'):
            return max((value for value in values if value is not None), default=None)
        return sum(values)

    return Agreement(**{name: joined(name, values) for name, values in zip(Agreement._fields, zip(*parts))})
