"""Boxes, polygons and sizes that look like something else than what COCO says they are, told by those of a whole file.

One box of [0.2, 0.1, 0.3, 0.2] may be any; if all of a file are like that, they are shares of the image. Each check
gives one line that says what it looks like and what to do, or '' if nothing does.
"""
from collections.abc import Sequence

import numpy as np

A_FEW = 3               # boxes that must agree
CLEAR = 0.95            # share of boxes that speak for a reading
OWN = 0.5               # at least so many agree with their masks if boxes are what they should be
LEAVE = 0.1             # share of boxes that leave the image if they are not
GO_ON = 'if they are right as they are, set data.check_geometry=False'
READINGS = {            # what the four numbers may be -> how they become corners (xyxy)
    '[x, y, width, height]': lambda a, b, c, d: (a, b, a + c, b + d),
    '[x1, y1, x2, y2]': lambda a, b, c, d: (a, b, c, d),
    '[center x, center y, width, height]': lambda a, b, c, d: (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
    '[y, x, height, width]': lambda a, b, c, d: (b, a, b + d, a + c),
    '[y1, x1, y2, x2]': lambda a, b, c, d: (b, a, d, c),
}
COCO = '[x, y, width, height]'
TOLD_BY_FRAME = ('[x1, y1, x2, y2]', '[y, x, height, width]', '[y1, x1, y2, x2]')   # without masks


def doubtful_boxes(boxes: np.ndarray, sizes: np.ndarray, mask_boxes: np.ndarray) -> str:
    """What the boxes [n, 4] of a file (as they are written) look like in images of `sizes` [n, 2] (width, height).

    mask_boxes: xyxy [n, 4] of the masks, NaN where there is none.
    """
    if not len(boxes):
        return ''
    if _share(np.abs(boxes).max(1) <= 1.02) >= CLEAR and (boxes % 1).any():
        return ('boxes look normalised, all their numbers lie in 0..1: multiply x and width by the width of the image, '
                f'y and height by its height; {GO_ON}')
    corners = {name: np.stack(read(*boxes.T), 1) for name, read in READINGS.items()}
    masked = np.isfinite(mask_boxes[:, 0])
    if masked.sum() >= A_FEW:
        agree = {name: _share(_near(box[masked], mask_boxes[masked])) for name, box in corners.items()}
        best = max(agree, key=agree.get)
        if agree[COCO] < OWN and agree[best] >= CLEAR:
            return (f'boxes look like {best}, not {COCO}: so read, {agree[best]:.0%} of them lie around their masks, '
                    f'else {agree[COCO]:.0%}; {GO_ON}')
    edges = sizes * 1.01 + 1
    leave = (corners[COCO][:, 2:] > edges).any(1)
    if leave.sum() >= A_FEW and _share(leave) >= LEAVE:
        for name in TOLD_BY_FRAME:
            low, high = corners[name][:, :2], corners[name][:, 2:]
            fit = _share(((low > -1) & (high > low) & (high < edges)).all(1))
            if fit >= CLEAR:
                return (f'boxes look like {name}, not {COCO}: so read, {fit:.0%} of them lie in their images, else '
                        f'{1 - _share(leave):.0%}; {GO_ON}')
    return ''


def doubtful_reach(boxes: np.ndarray, sizes: np.ndarray) -> str:
    """A remark if all boxes [n, 4] (xywh) lie in the upper left part of their images, which is seldom so."""
    if len(boxes) < 10 or sizes.min() < 200:
        return ''
    x, y = (boxes[:, :2] + boxes[:, 2:]).max(0)
    if ((boxes[:, :2] + boxes[:, 2:]) / sizes).max() > 0.55:
        return ''
    kind = 'per cent' if 50 < max(x, y) <= 101 else 'of smaller copies'
    return (f'all {len(boxes)} boxes lie in the upper left {x:.0f} x {y:.0f} pixels of their images: if they are '
            f'{kind}, they must be scaled; `width` and `height` of an image record are those that its boxes refer to')


def doubtful_polygons(mask_boxes: np.ndarray) -> str:
    """What polygons look like whose boxes xyxy [n, 4] are these."""
    if _share(np.abs(mask_boxes).max(1, initial=0) <= 1.02) < CLEAR:
        return ''
    return f'polygons look normalised, all their numbers lie in 0..1: multiply them by the size of the image; {GO_ON}'


def exchanged_rle_sizes(sizes: Sequence[tuple[list[int], int, int]]) -> str:
    """What RLE sizes look like beside (height, width) of their images: triples (size, height, width)."""
    uneven = [(size, height, width) for size, height, width in sizes if height != width]
    if not uneven or _share(np.array([size == [width, height] for size, height, width in uneven])) < CLEAR:
        return ''
    size, height, width = uneven[0]
    return (f'RLE sizes look like [width, height]: {size} in an image {width} px wide and {height} px high; COCO has '
            '[height, width], and runs down the columns')


def _share(found: np.ndarray) -> float:
    return float(np.mean(found)) if len(found) else 0.0


def _near(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether every side is within 2 px and a twentieth of the longer side, as `annotations.disagrees` has it."""
    tolerance = 2 + 0.05 * (others[:, 2:] - others[:, :2]).max(1, keepdims=True)
    return (np.abs(boxes - others) <= tolerance).all(1)
