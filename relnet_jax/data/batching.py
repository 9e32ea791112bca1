"""From examples of any size to a `Batch` of fixed shapes: images top-left on a canvas, objects padded to G rows."""
import functools
from collections.abc import Sequence

import numpy as np
from absl import logging

from relnet_jax.types import Batch, Example


@functools.cache      # once per image, not once per epoch
def _warn_left_out(image_id: int, count: int, max_objects: int):
    logging.warning('image %s has %d objects; the largest %d are used (data.max_objects)', image_id, count, max_objects)


def largest_objects(example: Example, max_objects: int) -> Example:
    """At most `max_objects` objects: the largest boxes, single objects before crowds; the order among them stays."""
    count = len(example.boxes)
    if count <= max_objects:
        return example
    _warn_left_out(example.image_id, count, max_objects)
    area = (example.boxes[:, 2] - example.boxes[:, 0]) * (example.boxes[:, 3] - example.boxes[:, 1])
    kept = np.sort(np.lexsort((-area, example.crowd))[:max_objects])
    return example._replace(boxes=example.boxes[kept], labels=example.labels[kept], crowd=example.crowd[kept],
                            masks=example.masks[kept], has_mask=example.has_mask[kept])


def pad_example(example: Example, *, canvas: tuple[int, int], max_objects: int,
                original_size: tuple[int, int]) -> Batch:
    """One row of a batch: `Batch` fields without the leading B. The resized image must fit the canvas (ValueError).

    original_size: (height, width) of the picture that annotations and results refer to.
    """
    height, width = example.image.shape[:2]
    if height > canvas[0] or width > canvas[1]:
        raise ValueError(
            f'image {example.image_id}: {height} x {width} pixels do not fit the canvas {canvas[0]} x {canvas[1]}')
    example = largest_objects(example, max_objects)
    count = len(example.boxes)

    def padded(rows: np.ndarray, dtype) -> np.ndarray:
        out = np.zeros((max_objects, *rows.shape[1:]), dtype)
        out[:count] = rows
        return out

    image = np.zeros((*canvas, 3), np.uint8)
    image[:height, :width] = example.image
    return Batch(
        image=image, image_size=np.float32([height, width]), image_valid=np.bool_(True),
        image_index=np.int32(example.index), original_size=np.float32(original_size),
        gt_boxes=padded(example.boxes, np.float32), gt_labels=padded(example.labels, np.int32),
        gt_valid=np.arange(max_objects) < count,
        gt_crowd=padded(example.crowd, bool), gt_masks=padded(example.masks, np.uint8),
        gt_has_mask=padded(example.has_mask, bool), part_boxes=np.asarray(example.part_boxes, np.float32),
        part_valid=np.asarray(example.part_valid, bool))


def empty_row(index: int, *, canvas: tuple[int, int], max_objects: int, mask_size: int, parts: int) -> Batch:
    """A row that is no image: black, without objects, `image_valid` False, of the canvas' size."""
    return Batch(
        image=np.zeros((*canvas, 3), np.uint8), image_size=np.float32(canvas), image_valid=np.bool_(False),
        image_index=np.int32(index), original_size=np.float32(canvas),
        gt_boxes=np.zeros((max_objects, 4), np.float32), gt_labels=np.zeros(max_objects, np.int32),
        gt_valid=np.zeros(max_objects, bool), gt_crowd=np.zeros(max_objects, bool),
        gt_masks=np.zeros((max_objects, mask_size, mask_size), np.uint8), gt_has_mask=np.zeros(max_objects, bool),
        part_boxes=np.zeros((parts, 4), np.float32), part_valid=np.zeros(parts, bool))


def stack(rows: Sequence[Batch]) -> Batch:
    """B rows as one `Batch`."""
    return Batch(*(np.stack(values) for values in zip(*rows)))
