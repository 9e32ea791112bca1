"""The records that cross room borders. Shape letters and units: see the package docstring."""
from typing import Any, NamedTuple

Array = Any  # np.ndarray on the host, jax.Array on a device


class Example(NamedTuple):
    """One image as read, boxes in its own pixels (numpy). n = number of objects, P = number of parts."""
    image: Array        # uint8 [h, w, 3]
    image_id: int | str   # the data set's own id
    index: int          # position in the source  # pyright: ignore[reportIncompatibleMethodOverride]
    boxes: Array        # float32 [n, 4]
    labels: Array       # int32 [n]
    crowd: Array        # bool [n]
    masks: Array        # uint8 [n, M, M] coverage 0..255 inside the box; zeros where has_mask is False
    has_mask: Array     # bool [n]
    part_boxes: Array   # float32 [P, 4]
    part_valid: Array   # bool [P]


class Batch(NamedTuple):
    """Fixed-shape input of the detector. Boxes in canvas pixels."""
    image: Array        # uint8 [B, H, W, 3]
    image_size: Array   # float32 [B, 2] true (height, width) on the canvas
    image_valid: Array  # bool [B]; False for images that only fill up the last evaluation batch
    image_index: Array  # int32 [B] position in the source
    original_size: Array  # float32 [B, 2] (height, width) that annotations refer to, for mapping detections back
    gt_boxes: Array     # float32 [B, G, 4]
    gt_labels: Array    # int32 [B, G]
    gt_valid: Array     # bool [B, G]
    gt_crowd: Array     # bool [B, G]
    gt_masks: Array     # uint8 [B, G, M, M] coverage inside the box
    gt_has_mask: Array  # bool [B, G]
    part_boxes: Array   # float32 [B, P, 4]
    part_valid: Array   # bool [B, P]


class Proposals(NamedTuple):
    """Boxes of the first stage, best first."""
    boxes: Array        # float32 [B, R, 4] canvas pixels, clipped to the true image
    scores: Array       # float32 [B, R] objectness logits
    valid: Array        # bool [B, R]


class Parts(NamedTuple):
    """Anatomical parts. Boxes in canvas pixels."""
    boxes: Array        # float32 [B, P, 4]
    valid: Array        # bool [B, P]


class Detections(NamedTuple):
    """Final detections, best first. Boxes in canvas pixels."""
    boxes: Array        # float32 [B, D, 4]
    scores: Array       # float32 [B, D]
    labels: Array       # int32 [B, D]
    valid: Array        # bool [B, D]
    masks: Array        # float32 [B, D, m, m] probabilities inside the box; m = 0 without a mask head, else 14
                        # with C4 and 2 config.model.mask_pool with FPN
