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

from relnet_jax.data.rle import decode_runs

FRAME_TOLERANCE = 0.01      # px; less is rounding in the file, clipped without a word


def clean_box(bbox: Any, width: int, height: int) -> tuple[list[float] | None, str]:
    """(box, problem) of a COCO `bbox` [x, y, w, h]: box is xyxy inside the image or None, problem is '' if none."""
    if (not isinstance(bbox, (list, tuple)) or len(bbox) != 4
            or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in bbox)):
        return None, f'bbox {bbox!r} is not four finite numbers: dropped'
    x, y, w, h = map(float, bbox)
    if w <= 0 or h <= 0:
        return None, f'bbox {bbox!r} has {"a negative" if min(w, h) < 0 else "zero"} width or height: dropped'
    box = [max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))]
    if box[0] >= box[2] or box[1] >= box[3]:
        return None, f'bbox {bbox!r} lies outside the {width} x {height} image: dropped'
    if max(-x, -y, x + w - width, y + h - height) > FRAME_TOLERANCE:
        return box, f'bbox {bbox!r} leaves the {width} x {height} image: clipped to {[round(v, 2) for v in box]} (xyxy)'
    return box, ''


def clean_segmentation(segmentation: Any, width: int, height: int) -> tuple[list | dict | None, str]:
    """(segmentation, problem): a list of flat polygons, an RLE dict with `counts` as bytes, or None without a mask."""
    if segmentation is None or segmentation == []:
        return None, ''
    if isinstance(segmentation, dict):
        return _clean_rle(segmentation, width, height)
    if not isinstance(segmentation, list):
        kind = type(segmentation).__name__
        return None, f'segmentation of type {kind} is neither polygons nor RLE: box kept without mask'
    good = [polygon for polygon in segmentation if _is_polygon(polygon)]
    if not good:
        return None, 'no polygon has three points of finite numbers: box kept without mask'
    bad = len(segmentation) - len(good)
    return good, f'{bad} of {len(segmentation)} polygons lack three points of finite numbers: left out' if bad else ''


def _is_polygon(polygon: Any) -> bool:
    return (isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
            and all(isinstance(v, (int, float)) and math.isfinite(v) for v in polygon))


def _clean_rle(rle: dict, width: int, height: int) -> tuple[dict | None, str]:
    size, counts = rle.get('size'), rle.get('counts')
    if size != [height, width]:
        return None, f'RLE of size {size} (height, width) in an image of {[height, width]}: box kept without mask'
    runs = counts if isinstance(counts, list) else decode_runs(counts)
    if runs is None or not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != height * width:
        return None, 'RLE is malformed, its runs do not add up to the image: box kept without mask'
    if sum(runs[1::2]) == 0:
        return None, 'RLE mask is empty: box kept without mask'
    if isinstance(counts, list):
        return rle_tools.frPyObjects(rle, height, width), ''
    return {'size': [height, width], 'counts': counts.encode() if isinstance(counts, str) else counts}, ''


def extent(segmentation: list | dict) -> list[float]:
    """xyxy of a cleaned segmentation."""
    if isinstance(segmentation, dict):
        x, y, w, h = rle_tools.toBbox(segmentation).tolist()
        return [x, y, x + w, y + h]
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in segmentation])
    return [*points.min(0).tolist(), *points.max(0).tolist()]


def disagrees(segmentation: list | dict, box: list[float], width: int, height: int) -> bool:
    """True if a side of the mask's extent, as far as it is inside the image, is further from the box than 2 px and a
    twentieth of the box's longer side together."""
    limits = [width, height, width, height]
    inside = [min(max(v, 0.0), limit) for v, limit in zip(extent(segmentation), limits)]
    tolerance = 2 + 0.05 * max(box[2] - box[0], box[3] - box[1])
    return max(abs(a - b) for a, b in zip(inside, box)) > tolerance


def clean_annotation(annotation: dict, width: int, height: int) -> tuple[dict | None, list[str]]:
    """(object, problems): object is None if the annotation is dropped, else a dict of `category_id`, `box` (xyxy),
    `crowd` (bool), `segmentation` (see `clean_segmentation`) and `area` (px^2 as given, else None)."""
    box, problem = clean_box(annotation.get('bbox'), width, height)
    if box is None:
        return None, [problem]
    problems = [problem] if problem else []
    segmentation, problem = clean_segmentation(annotation.get('segmentation'), width, height)
    problems += [problem] if problem else []
    if segmentation is not None and disagrees(segmentation, box, width, height):
        mask_box = [round(v, 1) for v in extent(segmentation)]
        problems.append(f'mask spans {mask_box} but the box {[round(v, 1) for v in box]} (xyxy): both kept')
    area = annotation.get('area')
    area = float(area) if isinstance(area, (int, float)) and area > 0 else None
    crowd = bool(annotation.get('iscrowd', 0))
    found = dict(category_id=annotation['category_id'], box=box, crowd=crowd, segmentation=segmentation, area=area)
    return found, problems
