"""Padded `Detections` on the canvas -> COCO result records in the pixels of the original image."""
import numpy as np
from pycocotools import mask as coco_mask

from relnet_jax.data.annotations import decode_runs
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


def encode_mask(mask) -> dict:
    """Compressed COCO RLE of a mask [h, w], with `counts` as str so that it goes into JSON."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(size=[int(s) for s in encoded['size']], counts=encoded['counts'].decode('ascii'))


def decode_mask(rle: dict) -> np.ndarray:
    """Inverse of `encode_mask`, bool [h, w] (pycocotools' own decoder warns under numpy 2)."""
    h, w = rle['size']
    runs = decode_runs(rle['counts'])
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(w, h).T


def to_coco_results(detections: Detections, batch: Batch, source, *, mask_threshold: float = 0.5) -> list:
    """COCO result records of one batch, in the order of its rows and best first within an image.

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
            x1, y1, x2, y2 = (float(v) for v in box)
            result = dict(image_id=image_id, category_id=source.category_ids[label - 1],
                          bbox=[x1, y1, x2 - x1, y2 - y1], score=float(detections.scores[row, d]))
            if with_masks:
                mask = paste_mask(detections.masks[row, d], box, (height, width), threshold=mask_threshold)
                result['segmentation'] = encode_mask(mask)
            results.append(result)
    return results
