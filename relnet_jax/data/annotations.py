"""The rules by which annotations of one image are checked: what is clipped, what is dropped, and the line that says so.

| found | rule |
|---|---|
| box that is not four finite numbers, or has a zero or negative side | annotation dropped |
| box that leaves the image by more than `FRAME_TOLERANCE` | clipped; dropped if nothing is left |
| same image, category and box as an earlier annotation | annotation dropped |
| polygon of less than three points or with numbers that are not finite | polygon left out |
| RLE that is malformed, empty or not of the image's size; no polygon left | mask dropped, box kept |
| mask whose extent differs from its box (`disagrees`) | reported, both kept |

Boxes of one pixel are fine. No mask at all (`segmentation` missing, null or []) is no error: a box without a mask.
"""
import math
from typing import Any

import numpy as np
import pycocotools.mask as rle_tools

from relnet_jax.data.issues import Issue
from relnet_jax.data.rle import decode_runs

FRAME_TOLERANCE = 0.01      # px; less is rounding in the file, clipped without a word
NO_MASK = 'box kept without mask'


def clean_box(bbox: Any, width: int, height: int, where: str) -> tuple[list[float] | None, Issue | None]:
    """(box, issue) of a COCO `bbox` [x, y, w, h]: box is xyxy inside the image or None."""
    if (not isinstance(bbox, (list, tuple)) or len(bbox) != 4
            or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in bbox)):
        return None, Issue(where, 'bbox is not four finite numbers', 'dropped', repr(bbox))
    x, y, w, h = map(float, bbox)
    if w <= 0 or h <= 0:
        kind = 'a negative' if min(w, h) < 0 else 'zero'
        return None, Issue(where, f'bbox has {kind} width or height', 'dropped', repr(bbox))
    box = [max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))]
    if box[0] >= box[2] or box[1] >= box[3]:
        return None, Issue(where, 'bbox lies outside the image', 'dropped', f'{bbox!r} in {width} x {height}')
    if max(-x, -y, x + w - width, y + h - height) > FRAME_TOLERANCE:
        return box, Issue(where, 'bbox leaves the image', 'clipped', f'{bbox!r} in {width} x {height}')
    return box, None


def clean_segmentation(segmentation: Any, width: int, height: int,
                       where: str) -> tuple[list | dict | None, Issue | None]:
    """(segmentation, issue): a list of flat polygons, an RLE dict with `counts` as bytes, or None without a mask."""
    if segmentation is None or segmentation == []:
        return None, None
    if isinstance(segmentation, dict):
        return _clean_rle(segmentation, width, height, where)
    if not isinstance(segmentation, list):
        return None, Issue(where, 'segmentation is neither polygons nor RLE', NO_MASK, type(segmentation).__name__)
    good = [polygon for polygon in segmentation if _is_polygon(polygon)]
    if not good:
        return None, Issue(where, 'no polygon has three points of finite numbers', NO_MASK)
    bad = len(segmentation) - len(good)
    found = f'{bad} of {len(segmentation)}'
    return good, Issue(where, 'polygons without three points of finite numbers', 'left out', found) if bad else None


def _is_polygon(polygon: Any) -> bool:
    return (isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
            and all(isinstance(v, (int, float)) and math.isfinite(v) for v in polygon))


def _clean_rle(rle: dict, width: int, height: int, where: str) -> tuple[dict | None, Issue | None]:
    size, counts = rle.get('size'), rle.get('counts')
    if size != [height, width]:
        return None, Issue(where, "RLE is not of the image's size", NO_MASK,
                           f'{size} (height, width) instead of {[height, width]}')
    runs = counts if isinstance(counts, list) else decode_runs(counts)
    if runs is None or not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != height * width:
        return None, Issue(where, 'RLE is malformed, its runs do not add up to the image', NO_MASK)
    if sum(runs[1::2]) == 0:
        return None, Issue(where, 'RLE mask is empty', NO_MASK)
    if isinstance(counts, list):
        return rle_tools.frPyObjects(rle, height, width), None
    return {'size': [height, width], 'counts': counts.encode() if isinstance(counts, str) else counts}, None


def mask_box(segmentation: list | dict) -> list[float]:
    """xyxy of a cleaned segmentation."""
    if isinstance(segmentation, dict):
        x, y, w, h = rle_tools.toBbox(segmentation).tolist()
        return [x, y, x + w, y + h]
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in segmentation])
    return [*points.min(0).tolist(), *points.max(0).tolist()]


def disagrees(segmentation: list | dict, box: list[float], width: int, height: int) -> bool:
    """True if a side of the mask's own box, as far as it is inside the image, is further from the box than 2 px and a
    twentieth of the box's longer side together."""
    limits = [width, height, width, height]
    inside = [min(max(v, 0.0), limit) for v, limit in zip(mask_box(segmentation), limits)]
    tolerance = 2 + 0.05 * max(box[2] - box[0], box[3] - box[1])
    return max(abs(a - b) for a, b in zip(inside, box)) > tolerance


def clean_annotation(annotation: dict, width: int, height: int, *, where: str) -> tuple[dict | None, list[Issue]]:
    """(object, issues): object is None if the annotation is dropped, else a dict of `category_id`, `box` (xyxy),
    `crowd` (bool), `segmentation` (see `clean_segmentation`) and `area` (px^2 as given, else None)."""
    box, issue = clean_box(annotation.get('bbox'), width, height, where)
    issues = [issue] if issue else []
    if box is None:
        return None, issues
    segmentation, issue = clean_segmentation(annotation.get('segmentation'), width, height, where)
    issues += [issue] if issue else []
    if segmentation is not None and disagrees(segmentation, box, width, height):
        spans = [round(v, 1) for v in mask_box(segmentation)]
        issues.append(Issue(where, 'mask and box span something else', 'both kept',
                            f'{spans} and {[round(v, 1) for v in box]} (xyxy)'))
    area = annotation.get('area')
    area = float(area) if isinstance(area, (int, float)) and area > 0 else None
    crowd = bool(annotation.get('iscrowd', 0))
    found = dict(category_id=annotation['category_id'], box=box, crowd=crowd, segmentation=segmentation, area=area)
    return found, issues
