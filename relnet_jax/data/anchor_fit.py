"""How well the anchors of a config cover the boxes of a data set, and which sizes would cover them."""
from collections.abc import Sequence

import numpy as np

from relnet_jax.ops.anchors import pyramid_anchors

COVERED = 0.5           # IoU with the best anchor from which a box counts as covered
LOOKED_AT = 4000        # boxes, in the search for better sizes
SMALLEST = 4            # pixels, of a size that is suggested
SMALL, LARGE = (0, .01, .03, .1, .2, .35), (.7, .85, .95, .99, 1)   # quantiles at which a ladder starts and ends


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

    As many sizes as there are now, on as many levels, in equal steps from a smallest to a largest one; of all such
    pairs the one that leaves the fewest boxes [n, 4] (canvas pixels) uncovered, and of those the widest, or the present
    sizes if none does better. Of many boxes a sample decides.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    grid = dict(canvas=canvas, strides=strides, ratios=ratios)
    if not len(boxes):
        return tuple(sizes), 0.0
    sample = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), LOOKED_AT)).astype(int)]
    sides = np.sqrt(np.prod(sample[:, 2:] - sample[:, :2], axis=1))
    low, high = (np.unique(np.maximum(np.rint(np.quantile(sides, shares)), SMALLEST)) for shares in (SMALL, LARGE))
    counts = [np.size(level) for level in sizes]
    count = sum(counts)
    if count == 1:
        pairs = [(size, size) for size in (*low, *high)]
    else:       # boxes may all be of one size: then steps of 2 from there, as far as the canvas goes
        pairs = [(a, b) for a in low for b in (*high, min(a * 2.0 ** (count - 1), max(canvas))) if b > a]
    best, least = tuple(sizes), (uncovered(sample, sizes=sizes, **grid), -np.inf)
    for first, last in pairs:
        levels = np.split(np.rint(np.geomspace(first, last, count)).astype(int), np.cumsum(counts)[:-1])
        tried = tuple(tuple(level.tolist()) if np.ndim(old) else int(level[0]) for level, old in zip(levels, sizes))
        share = uncovered(sample, sizes=tried, **grid)
        if (share, -last / first) < least:
            best, least = tried, (share, -last / first)
    return best, uncovered(boxes, sizes=best, **grid)
