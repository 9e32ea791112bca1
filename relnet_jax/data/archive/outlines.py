"""Regions as closed polylines in the image coordinates of DICOM.

Coordinates are (column, row) with sub-pixel resolution: 0, 0 is the upper left corner of the upper left pixel, and
Columns, Rows the lower right corner of the lower right one (PS3.3, table C.18.6-1). That is also what boxes xyxy mean
in this package, so that nothing is shifted; a mask's outline runs along the edges of its pixels.
"""
from collections.abc import Sequence

import cv2
import numpy as np
from scipy.spatial import KDTree

MOST_POINTS = 8191      # Graphic Data has a length of 16 bits in explicit VR, and a point takes 2 x 4 bytes


def box_outline(box: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """float64 [5, 2], closed, of a box xyxy cut to a film of `size` (rows, columns)."""
    x1, x2 = np.clip(np.float64(box[::2]), 0, size[1])
    y1, y2 = np.clip(np.float64(box[1::2]), 0, size[0])
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])


def mask_outline(mask: np.ndarray, *, most: int = MOST_POINTS) -> np.ndarray:
    """float64 [n, 2], closed, n <= `most`, around the pixels of a mask bool [rows, columns] that is not empty.

    It encloses exactly these pixels by the even-odd rule. A document has one polyline for a region, so that holes and
    further pieces are joined to it by a cut that is run along forth and back. Only a line of too many points is made
    coarser: by half a pixel, or as much as it takes; pieces smaller than that are then left out.
    """
    rings, tolerance = edge_rings(mask), 0.5
    while sum(len(ring) + 2 for ring in rings) > most:
        coarse = [cv2.approxPolyDP(np.int32(ring[:, None]), tolerance, True)[:, 0] for ring in rings]
        rings, tolerance = [ring for ring in coarse if len(ring) > 2], 2 * tolerance
    if not rings:
        (top, *_, bottom), (left, *_, right) = (np.flatnonzero(mask.any(axis)).tolist() * 2 for axis in (1, 0))
        return box_outline((left, top, right + 1, bottom + 1), mask.shape)
    line = np.concatenate([rings[0], rings[0][:1]])
    for ring in rings[1:]:
        distance, nearest = KDTree(line).query(ring)
        j = int(distance.argmin())
        i = int(nearest[j])
        line = np.concatenate([line[:i + 1], ring[j:], ring[:j + 1], line[i:]])
    return np.float64(line)


def edge_rings(mask: np.ndarray) -> list[np.ndarray]:
    """Closed rings int [n, 2] (column, row) along the edges of pixels, of pieces and of holes, without the end point.

    OpenCV goes from centre to centre of border pixels. At twice the size each of them lies at one corner of its pixel,
    and the way goes from corner to corner.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].astype(np.uint8)
    twice = np.pad(part.repeat(2, 0).repeat(2, 1), 1)
    contours, _ = cv2.findContours(twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [_turns(contour[:, 0] // 2) + [columns[0], rows[0]] for contour in contours]


def _turns(ring: np.ndarray) -> np.ndarray:
    """A ring of steps along one axis, and of standing still, reduced to the points where it turns."""
    ring = ring[(ring != np.roll(ring, 1, 0)).any(1)]
    before, after = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0) - ring
    return ring[(before != after).any(1)]
