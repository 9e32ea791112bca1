"""Padded `Detections` on the canvas -> COCO result records in the pixels of the original image."""
import math
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from relnet_jax.ops.masks import paste_mask
from relnet_jax.types import Batch, Detections


def to_original(boxes, image_size, original_size) -> np.ndarray:
    """Boxes xyxy [D, 4] of the resized image in continuous pixels of the original image, clipped to it; float32.

    `image_size` and `original_size` are (height, width). x and y have a ratio each: the two sides of the resized image
    were rounded to whole pixels separately.
    """
    (h, w), (original_h, original_w) = np.float64(image_size), np.float64(original_size)
    points = np.float64(boxes).reshape(-1, 2, 2) * [original_w / w, original_h / h]
    return np.clip(points, 0, [original_w, original_h]).reshape(-1, 4).astype(np.float32)


def encode_mask(mask, *, corner=(0, 0), image_size=None) -> dict:
    """Compressed COCO RLE of a mask bool [h, w], with `counts` as str so that it goes into JSON.

    With `corner` = (y, x) and `image_size` = (height, width) the mask is a part of an otherwise empty image: only the
    part is looked at, and radiographs have many more pixels than most findings.
    """
    height, width = mask.shape if image_size is None else image_size
    edges = np.diff(np.pad(np.asarray(mask, np.int8), ((1, 1), (0, 0))), axis=0)
    columns, rows = np.nonzero(edges.T)  # by columns, as RLE runs; in each, starts and ends take turns
    positions = (columns + corner[1]) * height + rows + corner[0]
    starts, ends = positions[::2], positions[1::2]
    apart = ends[:-1] != starts[1:]  # else the run goes on at the top of the next column
    apart = np.concatenate([apart, [True]])[:len(ends)]
    bounds = np.stack([starts[np.roll(apart, 1)], ends[apart]], 1).ravel()
    counts = np.diff(bounds, prepend=0, append=height * width)
    counts = counts[:-1] if counts[-1] == 0 else counts
    encoded = coco_mask.frPyObjects(dict(size=[height, width], counts=counts.tolist()), height, width)
    return dict(size=[height, width], counts=encoded['counts'].decode('ascii'))


def paste_and_encode(mask, box, image_size, *, threshold: float) -> dict:
    """COCO RLE of a predicted mask float [m, m] of `box` xyxy in an image of `image_size` (height, width)."""
    x1, y1, x2, y2 = (float(v) for v in box)
    height, width = image_size
    # What is pasted reaches one mask cell beyond the box, and a pixel by rounding. Memory of the rest is never touched.
    margin_x, margin_y = (x2 - x1) / len(mask) + 2, (y2 - y1) / len(mask) + 2
    left, top = max(math.floor(x1 - margin_x), 0), max(math.floor(y1 - margin_y), 0)
    right, bottom = min(math.ceil(x2 + margin_x), width), min(math.ceil(y2 + margin_y), height)
    part = paste_mask(mask, box, image_size)[top:bottom, left:right] > threshold
    return encode_mask(part, corner=(top, left), image_size=image_size)


def to_coco_results(detections: Detections, batch: Batch, source, *, mask_threshold: float = 0.5,
                    lowest: Sequence[float] | None = None) -> list:
    """COCO result records of one batch, in the order of its rows and best first within an image.

    lowest: for each class the lowest score that is wanted; None = all detections.

    Each is a dict of image_id, category_id (the data set's own), bbox (x, y, width, height in original pixels), score,
    and segmentation (RLE at the full original resolution) if the detector predicts masks. Rows with `image_valid` False
    are skipped. Raises ValueError for a label outside of the source's class table.
    """
    detections, batch = Detections(*map(np.asarray, detections)), Batch(*map(np.asarray, batch))
    with_masks = detections.masks.shape[-1] > 0
    results = []
    for row in np.flatnonzero(batch.image_valid):
        index = int(batch.image_index[row])
        image_id = source.records[index]['id']
        height, width = (int(s) for s in batch.original_size[row])
        kept = np.flatnonzero(detections.valid[row])
        boxes = to_original(detections.boxes[row, kept], batch.image_size[row], (height, width))
        for d, box in zip(kept, boxes):
            label = int(detections.labels[row, d])
            if not 1 <= label <= len(source.classes):
                raise ValueError(f'{source.name}, image {index}, detection {d}: expected a label in '
                                 f'1..{len(source.classes)}, got {label}')
            if lowest is not None and detections.scores[row, d] < lowest[label - 1]:
                continue
            x1, y1, x2, y2 = (float(v) for v in box)
            result = dict(image_id=image_id, category_id=source.category_ids[label - 1],
                          bbox=[x1, y1, x2 - x1, y2 - y1], score=float(detections.scores[row, d]))
            if with_masks:
                result['segmentation'] = paste_and_encode(detections.masks[row, d], box, (height, width),
                                                          threshold=mask_threshold)
            results.append(result)
    return results
