"""Masks as box-aligned crops: made from files, resampled as training targets, pasted back at full resolution.

`crop_targets` runs on the device inside the training step; the other functions are numpy and belong to the data and the
results side. A crop [M, M] holds, for cell (i, j), the covered share of row i..i+1 and column j..j+1 M-ths of its box.
"""
from collections.abc import Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax.types import Array

SUBROWS = 8  # scan lines for each row of a polygon crop; along x the coverage is exact


# ---- training targets ----

def _sample_weights(roi_low, roi_high, box_low, box_high, *, size, cells, aligned):
    """Weights [B, S, size, cells] of a box's `cells` source cells in each of the RoI's `size` output cells, one axis.

    RoIAlign takes n = ceil(side / size) samples in an output cell; interpolating linearly between pixel centres at a
    point is averaging over the pixel-wide window around it. So an output cell weighs the source with the mean of n
    pixel-wide windows `step` apart, and a source cell gets the part of that weight which lies between its edges.
    """
    side = roi_high - roi_low if aligned else jnp.maximum(roi_high - roi_low, 1.0)
    bin_side = (side / size)[..., None, None]
    n = jnp.maximum(jnp.ceil(bin_side), 1.0)
    step = bin_side / n
    first = roi_low[..., None, None] + jnp.arange(size)[:, None] * bin_side + 0.5 * step
    left = first - 0.5 if aligned else first          # aligned=False takes pixel i to be at i, half a pixel early
    edges = box_low[..., None, None] + (box_high - box_low)[..., None, None] * (jnp.arange(cells + 1) / cells)

    def ramps(u):                                     # sum over k < n of max(u - k * step, 0)
        k = jnp.clip(jnp.floor(u / jnp.maximum(step, 1e-6)) + 1.0, 0.0, n)
        return k * u - step * k * (k - 1.0) / 2

    u = jnp.clip(edges - left, 0.0, (n - 1.0) * step + 1.0)
    below = (ramps(u) - ramps(u - 1.0)) / n           # weight to the left of each edge, 0..1
    return jnp.diff(below, axis=-1)


def crop_targets(gt_masks: Array, gt_boxes: Array, rois: Array, matched: Array, *, size: int,
                 aligned: bool = False) -> Array:
    """The matched object's mask seen through each RoI's grid: what RoIAlign of its full-size mask would give.

    Args:
        gt_masks: uint8 [B, G, M, M] coverage 0..255 inside the ground truth's box.
        gt_boxes: float32 [B, G, 4]; rois: float32 [B, S, 4], same pixels.
        matched: int32 [B, S], index of each RoI's ground truth.
        size: side of the target grid.
        aligned: the same switch as `roi_align`'s: False repeats its half-pixel shift, as torchvision does for masks.

    Returns:
        float32 [B, S, size, size] in [0, 1], 0 outside the ground truth's box. Separable, hence two matrix products.
        At the image's right and lower edge RoIAlign repeats the last pixel; here the outside is empty.
    """
    image = jnp.arange(matched.shape[0])[:, None]
    masks = gt_masks[image, matched].astype(jnp.float32) / 255.0
    boxes = gt_boxes[image, matched]
    across, down = (_sample_weights(rois[..., i], rois[..., i + 2], boxes[..., i], boxes[..., i + 2], size=size,
                                    cells=gt_masks.shape[-1], aligned=aligned) for i in (0, 1))
    half = jnp.einsum('bsim,bsmn->bsin', down, masks, precision=jax.lax.Precision.HIGHEST)
    out = jnp.einsum('bsin,bsjn->bsij', half, across, precision=jax.lax.Precision.HIGHEST)
    return jnp.clip(out, 0.0, 1.0)


# ---- crops from full-size masks and polygons ----

def _checked_box(box):
    box = np.asarray(box, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError('mask crop: expected a finite box (x1, y1, x2, y2) with x2 > x1 and y2 > y1, '
                         f'got {box.tolist()}')
    return box


def _cell_sums(values, low, high, cells):
    """float64 [cells, ...]: sums of `values` [n, ...] over equal parts of low..high on axis 0, pixels by exact shares.

    By running sums, and not as a matrix product: BLAS would start threads of its own beside the reader threads.
    """
    n = len(values)
    sums = np.zeros((n + 1, *values.shape[1:]), np.int32 if values.dtype.kind in 'bu' else np.float64)
    np.cumsum(values, axis=0, out=sums[1:])
    edges = np.clip(low + (high - low) * np.arange(cells + 1) / cells, 0, n)
    whole = np.minimum(edges.astype(np.int64), max(n - 1, 0))
    share = (edges - whole).reshape(-1, *[1] * (values.ndim - 1))
    return np.diff(sums[whole] + share * (sums[np.minimum(whole + 1, n)] - sums[whole]), axis=0)


def crop_mask(mask: np.ndarray, box: Sequence[float] | np.ndarray, size: int) -> np.ndarray:
    """Coverage uint8 [size, size] (0..255) of a full-size mask inside its box, by exact areas.

    Args:
        mask: [h, w], uint8 0/1 or bool; everything outside the array is empty.
        box: (x1, y1, x2, y2) in the mask's pixels, fractions allowed.

    Raises:
        ValueError: for an empty, inverted or non-finite box.
    """
    x1, y1, x2, y2 = _checked_box(box)
    height, width = mask.shape
    left, top = int(np.clip(np.floor(x1), 0, width)), int(np.clip(np.floor(y1), 0, height))
    right, bottom = int(np.clip(np.ceil(x2), left, width)), int(np.clip(np.ceil(y2), top, height))
    rows = _cell_sums(mask[top:bottom, left:right], y1 - top, y2 - top, size)
    covered = _cell_sums(rows.T, x1 - left, x2 - left, size).T
    return np.rint(255 * np.clip(covered * (size * size / ((y2 - y1) * (x2 - x1))), 0, 1)).astype(np.uint8)


def _polygon_coverage(x, y, size):
    """float64 [size * SUBROWS, size]: share of each cell of each scan line inside a closed polygon, even-odd rule.

    x, y are vertices in cells. Each crossing of an edge and a scan line adds +-1 to everything on its right, split by
    area in the cell it falls in; running sums along x then give the (fractional) winding number.
    """
    y = y * SUBROWS - 0.5                             # scan line r runs through the middle of its strip
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    lowest = np.clip(np.ceil(np.minimum(y, y_next)), 0, size * SUBROWS).astype(np.int64)
    highest = np.clip(np.ceil(np.maximum(y, y_next)), 0, size * SUBROWS).astype(np.int64)
    count = highest - lowest                          # lines in [min, max): a shared vertex counts once
    edge = np.repeat(np.arange(len(x)), count)
    line = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + lowest[edge]
    slope = (x_next - x)[edge] / (y_next - y)[edge]
    crossing = np.clip(x[edge] + (line - y[edge]) * slope, 0, size)
    cell = np.floor(crossing).astype(np.int64)
    inside_cell = cell + 1 - crossing
    sign = np.where(y_next > y, 1.0, -1.0)[edge]
    winding = np.zeros((size * SUBROWS, size + 2))
    np.add.at(winding, (line, cell), sign * inside_cell)
    np.add.at(winding, (line, cell + 1), sign * (1 - inside_cell))
    winding = np.cumsum(winding, 1)[:, :size]
    return np.abs(winding - 2 * np.round(winding / 2))


def crop_polygons(polygons: Sequence[Sequence[float]], box: Sequence[float] | np.ndarray, size: int) -> np.ndarray:
    """Coverage uint8 [size, size] (0..255) of the union of polygons inside a box, anti-aliased.

    Args:
        polygons: flat lists (x0, y0, x1, y1, ...) in the box's pixels; fewer than three points enclose nothing.
        box: (x1, y1, x2, y2).

    Raises:
        ValueError: for a polygon with an odd number of coordinates, or a box that `crop_mask` would refuse.
    """
    x1, y1, x2, y2 = _checked_box(box)
    covered = np.zeros((size * SUBROWS, size))
    for i, polygon in enumerate(polygons):
        points = np.asarray(polygon, np.float64).ravel()
        if points.size % 2:
            raise ValueError(f'polygon {i}: expected pairs of coordinates, got {points.size} numbers')
        if points.size >= 6:
            x, y = (points[0::2] - x1) * (size / (x2 - x1)), (points[1::2] - y1) * (size / (y2 - y1))
            covered = np.maximum(covered, _polygon_coverage(x, y, size))
    return np.rint(255 * covered.reshape(size, SUBROWS, size).mean(1)).astype(np.uint8)


# ---- back to full size ----

def paste_mask(mask: Array, box: Array, image_size: Sequence[float], *,
               threshold: float | None = None) -> np.ndarray:
    """A mask prediction at full resolution, as torchvision pastes it.

    The mask gets a border of one empty cell, its box grows accordingly and is cut to whole pixels, both ends included;
    the cells are interpolated linearly onto these pixels. The rounding can add a pixel on either side, which shows on
    objects of few pixels.

    Args:
        mask: float [m, m], probabilities inside the box.
        box: (x1, y1, x2, y2) in the image's pixels.
        image_size: (h, w).
        threshold: probability above which a pixel belongs to the object.

    Returns:
        float32 [h, w], or bool [h, w] with a threshold.
    """
    height, width = (int(side) for side in image_size)
    cells = mask.shape[0]
    x1, y1, x2, y2 = np.asarray(box, np.float32)
    grow, half = np.float32((cells + 2) / cells), np.float32(0.5)
    half_w, half_h = (x2 - x1) * half * grow, (y2 - y1) * half * grow
    centre_x, centre_y = (x2 + x1) * half, (y2 + y1) * half
    left, top = int(centre_x - half_w), int(centre_y - half_h)
    right, bottom = int(centre_x + half_w), int(centre_y + half_h)
    columns, rows = max(right - left + 1, 1), max(bottom - top + 1, 1)
    padded = np.pad(np.asarray(mask, np.float32), 1)
    patch = cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_LINEAR)
    full = np.zeros((height, width), np.float32)
    x, y = max(left, 0), max(top, 0)
    x_end, y_end = min(left + columns, width), min(top + rows, height)
    if x < x_end and y < y_end:
        full[y:y_end, x:x_end] = patch[y - top:y_end - top, x - left:x_end - left]
    return full if threshold is None else full > threshold
