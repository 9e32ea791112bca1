"""The rules by which one annotation is read and checked: what is clipped, what is dropped, and the line that says so.

| found | rule |
|---|---|
| numbers that are written as text | read |
| box that is not four finite numbers, has a side below `MIN_SIDE`, or lies outside the image | taken from the mask; \
without one the annotation is dropped |
| box that leaves the image by more than `FRAME_TOLERANCE` | clipped |
| polygon of less than three points, with numbers that are not finite, or far longer than the image | left out |
| RLE that is malformed, empty or not of the image's size; no polygon left; mask outside its box | mask dropped |
| mask that spans something else than its box (`disagrees`) | reported, both kept |
| `iscrowd` that is not 0, 1, true or false | read as 0 |
| `area` that is not between 0 and that of the image | taken from the mask, or from the box |

Boxes of one pixel are fine. No mask at all (`segmentation` missing, null or []) is no error: a box without a mask.
"""
from typing import Any, NamedTuple

from relnet_jax.data.issues import Issue, shown
from relnet_jax.data.segmentations import NO_MASK, Segmentation, fit_segmentation, mask_box, read_segmentation
from relnet_jax.data.values import are_numbers, number

FRAME_TOLERANCE = 0.01      # px; less is rounding in the file, clipped without a word
MIN_SIDE = 0.01             # px; thinner boxes would vanish in float32
CROWD = {'0': False, '1': True, 'false': False, 'true': True}


class Reading(NamedTuple):
    """An annotation as the file means it, not yet compared with its image."""
    box: list[float] | None         # x, y, width, height; None if there is none or it cannot be read
    segmentation: Segmentation
    crowd: bool
    issues: list[Issue]


def read_annotation(annotation: dict, where: str, *, crowds: bool = True) -> Reading:
    """What the file says; crowds: False = `iscrowd` is not looked at."""
    bbox = annotation.get('bbox')
    box = bbox if are_numbers(bbox) else [number(v) for v in _listed(bbox)]
    issues = []
    if len(box) != 4 or None in box:
        box = None
    elif box is not bbox:
        issues.append(Issue(where, 'bbox is not a list of numbers', 'read', shown(bbox)))
    segmentation, found = read_segmentation(annotation.get('segmentation'), where)
    crowd, issue = read_crowd(annotation, where) if crowds else (False, None)
    return Reading(box, segmentation, crowd, issues + found + ([issue] if issue else []))


def _listed(bbox: Any) -> list:
    """The values of a box: also from a list around it, and from text such as '[1, 2, 3, 4]' or '1 2 3 4'."""
    if isinstance(bbox, list) and len(bbox) == 1:
        return _listed(bbox[0])
    if isinstance(bbox, str) and len(bbox) < 200:
        return bbox.strip('[]() ').replace(',', ' ').split()
    return list(bbox) if isinstance(bbox, (list, tuple)) else []


def read_crowd(annotation: dict, where: str) -> tuple[bool, Issue | None]:
    """Whether `iscrowd` says that a region stands for many objects."""
    value = annotation.get('iscrowd', 0)
    if value in (0, 1) and isinstance(value, (int, float)):
        return bool(value), None
    if isinstance(value, str) and value.strip().lower() in CROWD:
        return CROWD[value.strip().lower()], None
    return False, Issue(where, 'iscrowd is not 0, 1, true or false', 'read as 0', shown(value))


def fit_box(box: list[float] | None, bbox: Any, width: int, height: int,
            where: str) -> tuple[list[float] | None, Issue | None]:
    """(box xyxy inside the image or None, issue) of a box [x, y, width, height]; `bbox`: what the file says."""
    if box is None:
        return None, Issue(where, 'bbox is not four finite numbers', 'dropped', shown(bbox))
    x, y, w, h = map(float, box)
    if min(w, h) < MIN_SIDE:
        side = 'a negative' if min(w, h) < 0 else 'zero' if min(w, h) == 0 else f'less than {MIN_SIDE} px of'
        return None, Issue(where, f'bbox has {side} width or height', 'dropped', shown(bbox))
    fitted = [max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))]
    outside = min(fitted[2] - fitted[0], fitted[3] - fitted[1]) < MIN_SIDE
    if outside or max(-x, -y, x + w - width, y + h - height) > FRAME_TOLERANCE:
        problem, rule = ('lies outside the image', 'dropped') if outside else ('leaves the image', 'clipped')
        issue = Issue(where, f'bbox {problem}', rule, f'{shown(bbox)} in {width} x {height}')
        return None if outside else fitted, issue
    return fitted, None


def disagrees(spans: list[float], box: list[float]) -> bool:
    """True if a side of what a mask spans (xyxy) is further from the box than 2 px and a twentieth of the box's longer
    side together."""
    tolerance = 2 + 0.05 * max(box[2] - box[0], box[3] - box[1])
    return max(abs(a - b) for a, b in zip(spans, box)) > tolerance


def fit_annotation(annotation: dict, reading: Reading, width: int, height: int, *,
                   where: str) -> tuple[dict | None, list[Issue]]:
    """(object, issues): object is None if the annotation is dropped, for the one issue there is then; else a dict of
    `category_id` (as given), `box` (xyxy), `crowd` (bool), `segmentation` (see `segmentations`) and `area` (px^2 if a
    good one is given, else None)."""
    segmentation, found = fit_segmentation(reading.segmentation, width, height, where)
    issues = reading.issues + found
    bbox, spans = annotation.get('bbox'), None
    box, issue = fit_box(reading.box, bbox, width, height, where)
    if segmentation is not None:
        x1, y1, x2, y2 = mask_box(segmentation)
        spans = [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))]
        if min(spans[2] - spans[0], spans[3] - spans[1]) < MIN_SIDE:
            issues.append(Issue(where, 'mask without an area in the image', NO_MASK,
                                f'{_rounded([x1, y1, x2, y2])} (xyxy)'))
            segmentation = spans = None
    if box is None and spans is not None:
        box, issue = spans, Issue(where, issue.problem, 'box taken from the mask', issue.found)
    if box is None:
        return None, [issue]
    issues += [issue] if issue else []
    if spans is not None and (spans[0] >= box[2] or spans[1] >= box[3] or spans[2] <= box[0] or spans[3] <= box[1]):
        issues.append(Issue(where, 'mask lies outside its box', NO_MASK,
                            f'{_rounded(spans)} and {_rounded(box)} (xyxy)'))
        segmentation = None
    elif spans is not None and disagrees(spans, box):
        issues.append(Issue(where, 'mask and box span something else', 'both kept',
                            f'{_rounded(spans)} and {_rounded(box)} (xyxy)'))
    area = number(annotation.get('area'))
    if annotation.get('area') is not None and not (area is not None and 0 < area <= width * height):
        issues.append(Issue(where, 'area is not between 0 and that of the image', 'taken from mask or box',
                            shown(annotation['area'])))
        area = None
    return dict(category_id=annotation['category_id'], box=box, crowd=reading.crowd, segmentation=segmentation,
                area=area), issues


def _rounded(box: list[float]) -> list[float]:
    return [round(v, 1) for v in box]


def grow_box(box: list[float], side: float, width: int, height: int) -> list[float]:
    """Box xyxy with sides below `side` pixels grown to it around their middle, as far as the image goes."""
    grown = []
    for low, high, limit in zip(box[:2], box[2:], (width, height)):
        more = max(side - (high - low), 0) / 2
        grown.append((max(low - more, 0.0), min(high + more, float(limit))))
    (x1, x2), (y1, y2) = grown
    return [x1, y1, x2, y2]
