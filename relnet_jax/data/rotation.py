"""Rotation of one example about the middle of its image (numpy and OpenCV).

A box around a mask becomes the box around the turned mask. A box alone does not tell the object's outline: the ellipse
inside it is turned, which keeps round things, as nodules are, at their size, where the box around the turned corners
would grow (Kalra et al., "Towards Rotation Invariance in Object Detection", ICCV 2021).
"""
import cv2
import numpy as np

from relnet_jax.types import Example

COVERED = 128       # coverage from which a cell of a mask counts as the object's
SMALLEST = 1.0      # pixels that must be left of a side inside the image


def rotate(example: Example, degrees: float) -> Example:
    """The example turned clockwise, at the same size; pixels from outside are black.

    What leaves the image is cut off; objects of which less than SMALLEST pixels of a side are left are left out, parts
    become unknown.
    """
    if not degrees:
        return example
    height, width = example.image.shape[:2]
    forward = _matrix(degrees, width / 2, height / 2)
    image = cv2.warpAffine(example.image, _of_indices(forward), (width, height), flags=cv2.INTER_LINEAR)

    boxes = _turned_ellipses(example.boxes, forward)
    for i in np.flatnonzero(example.has_mask):
        boxes[i] = _turned_mask_box(example.boxes[i], example.masks[i], forward, boxes[i])
    boxes, seen = _inside(boxes, width, height)
    masks = np.zeros_like(example.masks)
    for i in np.flatnonzero(example.has_mask & seen):
        masks[i] = _turned_mask(example.boxes[i], example.masks[i], boxes[i], forward)
    part_boxes, part_seen = _inside(_turned_ellipses(example.part_boxes, forward), width, height)
    part_valid = example.part_valid & part_seen
    return example._replace(
        image=image, boxes=boxes[seen], labels=example.labels[seen], crowd=example.crowd[seen], masks=masks[seen],
        has_mask=example.has_mask[seen], part_boxes=np.where(part_valid[:, None], part_boxes, np.float32(0)),
        part_valid=part_valid)


def _matrix(degrees: float, x: float, y: float) -> np.ndarray:
    """[2, 3]: pixels, with their centres at halves, turned clockwise about (x, y)."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn, [x, y] - turn @ [x, y]])


def _of_indices(matrix: np.ndarray) -> np.ndarray:
    """The same map between indices of cells, whose centres are at whole numbers."""
    return np.column_stack([matrix[:, :2], matrix @ [0.5, 0.5, 1] - 0.5])


def _turned_ellipses(boxes: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """float32 [n, 4] boxes around the turned ellipses that touch the sides of `boxes`."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 @ forward[:, :2].T + forward[:, 2]
    half = _half_sides(boxes[:, 2:] - boxes[:, :2], forward)
    return np.concatenate([middle - half, middle + half], 1).astype(np.float32)


def _half_sides(sides: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """[..., 2] halves of the sides of the boxes around turned ellipses that filled boxes of `sides` [..., 2]."""
    return np.sqrt((sides / 2) ** 2 @ (forward[:, :2] ** 2).T)


def _turned_mask_box(box: np.ndarray, mask: np.ndarray, forward: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """[4] box around the turned covered cells, each taken as round: the corners of those at the outline are bare.
    `otherwise` where no cell is covered."""
    rows, columns = np.nonzero(mask >= COVERED)
    if not len(rows):
        return otherwise
    cell = (box[2:] - box[:2]) / mask.shape[0]
    middles = (box[:2] + (np.stack([columns, rows], 1) + 0.5) * cell) @ forward[:, :2].T + forward[:, 2]
    half = _half_sides(cell, forward)
    return np.concatenate([middles.min(0) - half, middles.max(0) + half])


def _inside(boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """(boxes cut at the image, whether at least SMALLEST of both sides is left)."""
    boxes = np.clip(boxes, 0, np.float32([width, height] * 2))
    return boxes, (boxes[:, 2:] - boxes[:, :2] >= SMALLEST).all(1)


def _turned_mask(box: np.ndarray, mask: np.ndarray, new_box: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """[M, M] coverage inside `new_box` of the turned mask, whose cells filled `box`."""
    size = mask.shape[0]
    scale, new_scale = (b[2:] - b[:2] for b in (box, new_box))
    # Cells of the new crop -> pixels -> pixels before the turn -> cells of the old crop.
    back = np.linalg.inv(forward[:, :2])
    turn = back * (new_scale / size) / (scale / size)[:, None]
    shift = (back @ (new_box[:2] - forward[:, 2]) - box[:2]) / (scale / size)
    return cv2.warpAffine(mask, _of_indices(np.column_stack([turn, shift])), (size, size),
                          flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
