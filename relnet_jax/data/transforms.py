"""Transforms of one `Example` (numpy): resize, left-right flip, scale jitter, brightness, contrast, gamma; `rotation`.

Boxes follow the pixels exactly: they are scaled by the ratio of the true sizes per axis, so that multiplying by
original size / new size maps detections back.
"""
import math
from collections.abc import Sequence

import cv2
import numpy as np

from relnet_jax.data.rotation import rotate
from relnet_jax.errors import UserError
from relnet_jax.types import Example


def resized_size(height: int, width: int, *, scale: float, max_size: float, canvas: tuple[int, int],
                 jitter: float = 1.0) -> tuple[int, int]:
    """(height, width) with the shorter side at `scale` and the longer at most `max_size`, both times `jitter`; whatever
    they say, the image stays inside `canvas` and has at least one pixel per side."""
    factor = min(scale / min(height, width), max_size / max(height, width)) * jitter
    factor = min(factor, canvas[0] / height, canvas[1] / width)
    return tuple(max(1, min(limit, math.floor(side * factor + 0.5)))
                 for side, limit in zip((height, width), canvas))


def resize(example: Example, size: tuple[int, int]) -> Example:
    """The example at `size` = (height, width): area averaging when smaller, bilinear when larger. Mask crops stay."""
    height, width = example.image.shape[:2]
    if (height, width) == tuple(size):
        return example
    method = cv2.INTER_AREA if size[0] * size[1] < height * width else cv2.INTER_LINEAR
    ratio = np.float32([size[1] / width, size[0] / height] * 2)
    return example._replace(image=_resized(example.image, (size[1], size[0]), method),
                            boxes=example.boxes * ratio, part_boxes=example.part_boxes * ratio)


def _resized(image: np.ndarray, size: tuple[int, int], method: int) -> np.ndarray:
    """`cv2.resize` to (width, height); grey images, as films are, in a third of the time."""
    grey = image[:, :, 0]
    if np.array_equal(grey, image[:, :, 1]) and np.array_equal(grey, image[:, :, 2]):
        return cv2.cvtColor(cv2.resize(grey, size, interpolation=method), cv2.COLOR_GRAY2RGB)
    return cv2.resize(image, size, interpolation=method)


def flip_tables(classes: Sequence[str], parts: Sequence[str],
                pairs: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """What a left-right flip does to names: `labels` int32 [K] (label -> label, 0 = background) and `parts` int32 [P]
    (slot -> the slot its box comes from). Both exchange the two members of every pair and are their own inverse.

    Raises ValueError for a pair that is not two names, that names nothing, or of which only one half is known.
    """
    labels, slots = np.arange(len(classes) + 1, dtype=np.int32), np.arange(len(parts), dtype=np.int32)
    for pair in pairs:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise UserError(f'data.flip_pairs: expected pairs of two names, got {pair!r}')
        found = False
        for names, table, first in ((list(classes), labels, 1), (list(parts), slots, 0)):
            present = [name in names for name in pair]
            if any(present) and not all(present):
                raise UserError(f'data.flip_pairs: of {tuple(pair)} only one is among {names}: a flip would mislabel')
            if all(present):
                i, j = (names.index(name) + first for name in pair)
                table[i], table[j] = j, i
                found = True
        if not found:
            raise UserError(
                f'data.flip_pairs: {tuple(pair)} are neither classes {list(classes)} nor parts {list(parts)}')
    return labels, slots


def flip_boxes(boxes: np.ndarray, width: int) -> np.ndarray:
    """[n, 4] boxes mirrored in an image of that width: x1' = width - x2, x2' = width - x1."""
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
    return np.stack([width - x2, y1, width - x1, y2], axis=-1).astype(np.float32)


def flip(example: Example, labels: np.ndarray, slots: np.ndarray) -> Example:
    """The example mirrored left-right, with the name tables of `flip_tables`."""
    width = example.image.shape[1]
    return example._replace(
        image=cv2.flip(example.image, 1), boxes=flip_boxes(example.boxes, width),
        labels=labels[example.labels], masks=np.ascontiguousarray(example.masks[:, :, ::-1]),
        part_boxes=flip_boxes(example.part_boxes, width)[slots], part_valid=example.part_valid[slots])


def adjust_intensity(image: np.ndarray, *, brightness: float, contrast: float, gamma: float) -> np.ndarray:
    """uint8 -> uint8, by one table: x in 0..1 becomes (x ** gamma - 1/2) * contrast + 1/2 + brightness."""
    x = np.linspace(0, 1, 256)
    y = (x ** gamma - 0.5) * contrast + 0.5 + brightness
    return cv2.LUT(image, np.clip(np.rint(y * 255), 0, 255).astype(np.uint8))


def augment(example: Example, rng: np.random.Generator, *, original_size: tuple[int, int],
            tables: tuple[np.ndarray, np.ndarray], canvas: tuple[int, int], scale: float, max_size: float,
            flip_probability: float, scale_jitter: tuple[float, float], brightness: float, contrast: float,
            gamma: float, rotation: float) -> Example:
    """A random view of the example that fits `canvas`: jittered resize, flip, turn, intensity (options as in
    `config.data`).

    The size is reckoned from `original_size` (height, width), so that the example may be resized beforehand. Six
    numbers are always drawn, in the same order: switching one option on or off leaves the others' choices alone.
    """
    jitter = rng.uniform(*scale_jitter)
    flipped = rng.random() < flip_probability
    shift, factor, exponent, degrees = (rng.uniform(-limit, limit) for limit in (brightness, contrast, gamma, rotation))
    size = resized_size(*original_size, scale=scale, max_size=max_size, canvas=canvas, jitter=jitter)
    example = resize(example, size)
    if flipped:
        example = flip(example, *tables)
    example = rotate(example, degrees)
    if shift or factor or exponent:
        example = example._replace(image=adjust_intensity(
            example.image, brightness=shift, contrast=1 + factor, gamma=math.exp(exponent)))
    return example
