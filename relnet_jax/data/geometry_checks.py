"""Boxes, polygons and sizes that look like something else than what COCO says they are, told by those of a whole file.

One box of [0.2, 0.1, 0.3, 0.2] may be any; if all of a file are like that, they are shares of the image. Each check
gives one line that says what it looks like and what to do, or '' if nothing does.
"""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from relnet_jax.data.document import Candidate
from relnet_jax.data.issues import A_FEW
from relnet_jax.data.segmentations import fit_segmentation, mask_box
from relnet_jax.errors import UserError

LOOKED_AT = 2000        # annotations, spread over the file
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


def check_whole_file(file: Path, found: Sequence[Candidate]) -> None:
    """Raises UserError if the annotations of a file show that all mean something else; warns if it may be so."""
    rles, boxes, frames, mask_boxes = [], [], [], []
    for i in np.unique(np.linspace(0, len(found) - 1, min(len(found), LOOKED_AT)).astype(int)):
        _, record, _, reading, where = found[i]
        height, width = record['height'], record['width']
        if isinstance(reading.segmentation, dict):
            rles.append((reading.segmentation['size'], height, width))
        mask, _ = fit_segmentation(reading.segmentation, width, height, where)
        boxes.append(reading.box or [np.nan] * 4)
        frames.append([width, height])
        mask_boxes.append([np.nan] * 4 if mask is None else mask_box(mask))
    boxes, mask_boxes = (np.array(a, np.float64).reshape(-1, 4) for a in (boxes, mask_boxes))
    frames = np.array(frames, np.float64).reshape(-1, 2)
    masked, boxed = np.isfinite(mask_boxes[:, 0]), np.isfinite(boxes[:, 0])
    doubts = [exchanged_rle_sizes(rles), doubtful_polygons(mask_boxes[masked]),
              doubtful_boxes(boxes[boxed], frames[boxed], mask_boxes[boxed])]
    if any(doubts):
        raise UserError(f'{file}: {"; ".join(doubt for doubt in doubts if doubt)}')
    if remark := doubtful_reach(boxes[boxed], frames[boxed]):
        logging.warning('%s: %s', file, remark)


def doubtful_boxes(boxes: np.ndarray, sizes: np.ndarray, mask_boxes: np.ndarray) -> str:
    """What the boxes [n, 4] of a file (as they are written) look like in images of `sizes` [n, 2] (width, height).

    mask_boxes: xyxy [n, 4] of the masks, NaN where there is none.
    """
    good = (boxes[:, 2:] > 0).all(1)
    boxes, sizes, mask_boxes = boxes[good], sizes[good], mask_boxes[good]
    if not len(boxes):
        return ''
    if _share(np.abs(boxes).max(1) <= 1.02) >= CLEAR and ((boxes % 1).any() or len(boxes) >= A_FEW):
        return ('boxes look normalised, all their numbers lie in 0..1: multiply x and width by the width of the image, '
                f'y and height by its height; {GO_ON}')
    corners = {name: np.stack(read(*boxes.T), 1) for name, read in READINGS.items()}
    masked = np.isfinite(mask_boxes[:, 0])
    per_cent = np.tile(sizes / 100, 2)
    if masked.sum() >= A_FEW:
        read = corners | {f'{name} in per cent': box * per_cent for name, box in corners.items()}
        agree = {name: _share(_near(box[masked], mask_boxes[masked])) for name, box in read.items()}
        best = max(agree, key=agree.get)
        if agree[COCO] < OWN and agree[best] >= CLEAR:
            turned = ', or the points of polygons like [y, x]' if best == '[y, x, height, width]' else ''
            return (f'boxes look like {best}, not {COCO}{turned}: so read, {agree[best]:.0%} of them lie around their '
                    f'masks, else {agree[COCO]:.0%}; {GO_ON}')
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
