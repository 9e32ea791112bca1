"""Masks as files give them, brought into the two forms of COCO: flat polygons, or run lengths (RLE)."""
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pycocotools.mask as rle_tools

from relnet_jax.data.issues import Issue, shown
from relnet_jax.data.rle import decode_runs
from relnet_jax.data.values import are_numbers, number, whole

DEEPEST = 6             # lists within lists
LONGEST_OUTLINE = 200   # times width + height of the image; the mask library's memory grows with the outline's length
REPR_OF_BYTES = re.compile("""b'.*'|b".*\"""", re.DOTALL)     # what str() makes of pycocotools' counts
NO_MASK = 'box kept without mask'

Segmentation = list[list[float]] | dict | None


def read_segmentation(value: Any, where: str) -> tuple[Segmentation, list[Issue]]:
    """(flat polygons, an RLE dict with `size` and `counts`, or None without a mask; what was read in another way).

    Besides these forms are read: one polygon without the list around it, points as [x, y] pairs, lists nested too deep,
    numbers in text, and a list with one RLE in it. Empty lists are no mask.
    """
    if isinstance(value, list) and value and all(map(_is_flat, value)):
        return value, []
    if value is None or value == '' or value == {} or _is_empty(value):
        return None, []
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        rle, issues = _read_rle(value[0], where)
        return rle, [Issue(where, 'RLE stands in a list', 'read'), *issues]
    if isinstance(value, dict):
        return _read_rle(value, where)
    if not isinstance(value, list):
        return None, [Issue(where, 'segmentation is neither polygons nor RLE', NO_MASK, type(value).__name__)]
    found = list(_polygons(value, 0))
    good = [polygon for polygon, _ in found if polygon]
    if not good:
        return None, [Issue(where, 'no polygon has three points of finite numbers', NO_MASK)]
    issues = [Issue(where, how, 'read') for how in dict.fromkeys(how for polygon, how in found if polygon and how)]
    if len(good) < len(found):
        issues.append(Issue(where, 'polygons without three points of finite numbers', 'left out',
                            f'{len(found) - len(good)} of {len(found)}'))
    return good, issues


def _is_empty(lists: Any, depth: int = 0) -> bool:
    """Whether there is nothing in lists within lists."""
    return isinstance(lists, list) and depth < DEEPEST and all(_is_empty(v, depth + 1) for v in lists)


def _is_flat(polygon: Any) -> bool:
    return are_numbers(polygon) and len(polygon) >= 6 and len(polygon) % 2 == 0


def _polygons(value: Any, depth: int) -> Iterator[tuple[list[float] | None, str]]:
    """(flat polygon, what was unusual about it) for each in nested lists; None for one that cannot be read."""
    if not isinstance(value, list) or depth > DEEPEST:
        yield None, ''
    elif not any(isinstance(v, (list, dict)) for v in value):
        polygon = value if are_numbers(value) else [number(v) for v in value]
        how = '' if are_numbers(value) else 'numbers of polygons are text'
        if depth != 1:
            how = f'segmentation is nested one level too {"shallow" if depth == 0 else "deep"}'
        yield (polygon if _is_flat(polygon) else None), how
    elif len(value) >= 3 and all(isinstance(v, list) and len(v) == 2 for v in value):
        polygon = [number(v) for point in value for v in point]
        yield (polygon if _is_flat(polygon) else None), 'points of polygons are [x, y] pairs'
    else:
        for v in value:
            yield from _polygons(v, depth + 1)


def _read_rle(rle: dict, where: str) -> tuple[dict | None, list[Issue]]:
    size, counts, issues = rle.get('size'), rle.get('counts'), []
    size = [whole(side) for side in size] if isinstance(size, list) else [None]
    if isinstance(counts, list):
        runs = [whole(run) for run in counts]
        if None not in runs and not set(map(type, counts)) <= {int}:
            issues.append(Issue(where, 'RLE counts are not written as whole numbers', 'read'))
        counts = runs
    if len(size) != 2 or None in size or not counts or not (
            isinstance(counts, (str, bytes)) or (isinstance(counts, list) and None not in counts)):
        return None, [Issue(where, 'RLE without a size and run lengths', NO_MASK,
                            f'size {shown(rle.get("size"))}, counts {shown(rle.get("counts"))}')]
    if isinstance(counts, str) and REPR_OF_BYTES.fullmatch(counts):
        issues.append(Issue(where, "RLE counts are written as b'...'", 'read'))
        counts = counts[2:-1].replace('\\\\', '\\')
    return dict(size=size, counts=counts), issues


def fit_segmentation(segmentation: Segmentation, width: int, height: int,
                     where: str) -> tuple[Segmentation, list[Issue]]:
    """(segmentation, issues) of what `read_segmentation` gave in an image of this size; RLE `counts` become bytes."""
    if segmentation is None:
        return None, []
    if isinstance(segmentation, dict):
        rle, issue = _fit_rle(segmentation, width, height, where)
        return rle, [issue] if issue else []
    good = [polygon for polygon in segmentation if _is_near(polygon, width, height)]
    if len(good) == len(segmentation):
        return good, []
    found = f'{len(segmentation) - len(good)} of {len(segmentation)}'
    rule = 'left out' if good else NO_MASK
    return good or None, [Issue(where, f'polygons that go on for over {LONGEST_OUTLINE} times the sides of the image',
                                rule, found)]


def _is_near(polygon: list[float], width: int, height: int) -> bool:
    limit, x, y = LONGEST_OUTLINE * (width + height), polygon[::2], polygon[1::2]
    left, right, top, bottom = min(x), max(x), min(y), max(y)
    if min(left, top) < -limit or max(right, bottom) > limit:
        return False
    if len(x) * (right - left + bottom - top) <= limit:
        return True
    x, y = np.float64(x), np.float64(y)
    return bool(np.hypot(x - np.roll(x, 1), y - np.roll(y, 1)).sum() <= limit)


def _fit_rle(rle: dict, width: int, height: int, where: str) -> tuple[dict | None, Issue | None]:
    size, counts = rle['size'], rle['counts']
    if size != [height, width]:
        return None, Issue(where, "RLE is not of the image's size", NO_MASK,
                           f'{shown(size)} (height, width) instead of {[height, width]}')
    runs = counts if isinstance(counts, list) else decode_runs(counts)
    if runs is None or min(runs) < 0 or sum(runs) != height * width:
        return None, Issue(where, 'RLE is malformed, its runs do not add up to the image', NO_MASK)
    if sum(runs[1::2]) == 0:
        return None, Issue(where, 'RLE mask is empty', NO_MASK)
    if isinstance(counts, list):
        return rle_tools.frPyObjects(rle, height, width), None
    return dict(size=size, counts=counts.encode() if isinstance(counts, str) else counts), None


def mask_box(segmentation: list | dict) -> list[float]:
    """xyxy around a fitted segmentation."""
    if isinstance(segmentation, dict):
        x, y, w, h = rle_tools.toBbox(segmentation).tolist()
        return [x, y, x + w, y + h]
    x, y = ([polygon[i::2] for polygon in segmentation] for i in (0, 1))
    return [float(edge(map(edge, values))) for edge, values in ((min, x), (min, y), (max, x), (max, y))]
