"""How well the anchors of a config cover the boxes of a data set, and which sizes would cover them."""
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from relnet_jax.ops.anchors import pyramid_anchors

COVERED = 0.5           # IoU with the best anchor from which a box counts as covered
LOOKED_AT = 4000        # boxes, in the search for better sizes
SMALLEST = 4            # pixels, of a size that is suggested
SMALL, LARGE = (0, .01, .03, .1, .2, .35), (.7, .85, .95, .99, 1)   # quantiles at which a ladder starts and ends
CHANGES = (0.6, 0.7, 0.8, 0.9, 1.1, 1.25, 1.4, 1.6)     # factors on one size, in search of a better one


def best_anchor_iou(boxes: np.ndarray, *, canvas: tuple[int, int], strides: Sequence[int], sizes: Sequence,
                    ratios: Sequence[float]) -> np.ndarray:
    """float32 [n]: the highest IoU of each box [n, 4] (canvas pixels) with any anchor.

    Anchors of one shape differ by their place alone, and overlap falls with the distance of the centres along either
    axis; so only the nearest anchor of each shape has to be looked at, and the result is that of the full IoU matrix.
    """
    best = np.zeros(len(boxes), np.float32)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    centers, area = (boxes[:, :2] + boxes[:, 2:]) / 2, np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for stride, anchors in zip(strides, pyramid_anchors(canvas, strides=strides, sizes=sizes, ratios=ratios)):
        rows, columns = (-(-side // stride) for side in canvas)
        grid = anchors.reshape(rows, columns, -1, 4)
        for shape in grid[0, 0]:
            origin = (shape[:2] + shape[2:]) / 2
            step = np.array([canvas[1] // columns, canvas[0] // rows])
            cell = np.clip(np.rint((centers - origin) / step), 0, [columns - 1, rows - 1])
            anchor = shape + np.tile(cell * step, 2)
            sides = np.minimum(boxes[:, 2:], anchor[:, 2:]) - np.maximum(boxes[:, :2], anchor[:, :2])
            shared = np.prod(np.maximum(sides, 0), axis=1)
            best = np.maximum(best, shared / (area + np.prod(shape[2:] - shape[:2]) - shared))
    return best


def uncovered(boxes: np.ndarray, **anchors) -> float:
    """Share of the boxes that no anchor (see `best_anchor_iou`) overlaps enough; 0 without boxes."""
    return float(np.mean(best_anchor_iou(boxes, **anchors) < COVERED)) if len(boxes) else 0.0


def suggest_sizes(boxes: np.ndarray, *, canvas: tuple[int, int], strides: Sequence[int], sizes: Sequence,
                  ratios: Sequence[float]) -> tuple[tuple, float]:
    """(anchor sizes as config.model.anchor_sizes has them, share of `boxes` they leave uncovered).

    As many sizes as there are now, on as many levels. The search starts from the present sizes or from a ladder, sizes
    in equal steps between two quantiles of those of the boxes [n, 4] (canvas pixels), whichever leaves the fewest boxes
    uncovered, and of such ladders the widest; then it changes one size after the other as long as that helps, and keeps
    them in order. Of many boxes a sample decides.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not len(boxes):
        return tuple(sizes), 0.0
    sample = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), LOOKED_AT)).astype(int)]
    counts = [np.size(level) for level in sizes]
    stride_of = np.repeat(strides, counts).tolist()

    @functools.cache
    def covers(stride: int, size: float) -> np.ndarray:
        return best_anchor_iou(sample, canvas=canvas, strides=(stride,), sizes=(size,), ratios=ratios) >= COVERED

    def share(ladder: Sequence[float]) -> float:
        return 1 - float(np.mean(np.any([covers(*pair) for pair in zip(stride_of, ladder)], axis=0)))

    present = np.concatenate([np.atleast_1d(level) for level in sizes]).tolist()
    best = min(_ladders(sample, len(present), max(canvas)), key=lambda tried: (share(tried), -tried[-1] / tried[0]),
               default=present)
    best = best if share(best) < share(present) else present
    while (better := min(_neighbours(best), key=share, default=best)) and share(better) < share(best):
        best = better
    levels = [best[end - count:end] for count, end in zip(counts, np.cumsum(counts))]
    found = tuple(tuple(level) if np.ndim(old) else level[0] for level, old in zip(levels, sizes))
    return found, uncovered(boxes, canvas=canvas, strides=strides, sizes=found, ratios=ratios)


def _ladders(boxes: np.ndarray, count: int, longest: int) -> Iterator[list[int]]:
    """`count` sizes in equal steps from one quantile of the boxes' sizes to another; or, as they may all be alike, in
    steps of 2 from there, as far as the canvas goes."""
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    low, high = (np.unique(np.maximum(np.rint(np.quantile(sides, shares)), SMALLEST)) for shares in (SMALL, LARGE))
    if count == 1:
        yield from ([int(size)] for size in (*low, *high))
        return
    for first in low:
        for last in (*high, min(first * 2.0 ** (count - 1), longest)):
            if last > first:
                yield np.rint(np.geomspace(first, last, count)).astype(int).tolist()


def _neighbours(ladder: list[float]) -> Iterator[list[float]]:
    """The ladder with one size changed, in order still."""
    for i, size in enumerate(ladder):
        for factor in CHANGES:
            changed = [*ladder[:i], max(round(size * factor), SMALLEST), *ladder[i + 1:]]
            if changed == sorted(changed):
                yield changed
