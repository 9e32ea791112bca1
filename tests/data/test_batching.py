"""Padding examples to fixed shapes and stacking them."""
import logging

import numpy as np
import pytest

from relnet_jax.data import batching
from relnet_jax.types import Batch, Example


def make_example(count, image_id=4, height=20, width=30, parts=2):
    side = 1 + np.arange(count, dtype=np.float32)[::-1]     # the first is the largest
    start = np.zeros(count, np.float32)
    return Example(
        image=np.full((height, width, 3), 200, np.uint8), image_id=image_id, index=7,
        boxes=np.stack([start, start, side, side], axis=1), labels=1 + np.arange(count, dtype=np.int32),
        crowd=np.zeros(count, bool), masks=np.ones((count, 5, 5), np.uint8), has_mask=np.ones(count, bool),
        part_boxes=np.ones((parts, 4), np.float32), part_valid=np.array([True] * parts, bool))


OPTIONS = dict(canvas=(32, 48), max_objects=4, original_size=(40, 60))
EXPECTED = dict(image=('uint8', (32, 48, 3)), image_size=('float32', (2,)), image_valid=('bool', ()),
                image_index=('int32', ()), original_size=('float32', (2,)), gt_boxes=('float32', (4, 4)),
                gt_labels=('int32', (4,)), gt_valid=('bool', (4,)), gt_crowd=('bool', (4,)),
                gt_masks=('uint8', (4, 5, 5)), gt_has_mask=('bool', (4,)),
                part_boxes=('float32', (2, 4)), part_valid=('bool', (2,)))


@pytest.mark.parametrize('count', [0, 3, 4, 9])
def test_rows_have_the_shapes_and_types_of_the_contract(count):
    rows = [batching.pad_example(make_example(count), **OPTIONS),
            batching.empty_row(3, canvas=(32, 48), max_objects=4, mask_size=5, parts=2)]
    for row in rows:
        assert {n: (v.dtype.name, v.shape) for n, v in row._asdict().items()} == EXPECTED
    batch = batching.stack(rows)
    assert isinstance(batch, Batch)
    assert {n: (v.dtype.name, v.shape) for n, v in batch._asdict().items()} == {
        n: (dtype, (2, *shape)) for n, (dtype, shape) in EXPECTED.items()}
    assert batch.image_valid.tolist() == [True, False] and batch.image_index.tolist() == [7, 3]


def test_the_image_lies_top_left_on_black_and_objects_come_first():
    row = batching.pad_example(make_example(2), **OPTIONS)
    assert (row.image[:20, :30] == 200).all() and not row.image[20:].any() and not row.image[:, 30:].any()
    assert row.image_size.tolist() == [20, 30] and row.original_size.tolist() == [40, 60]
    assert row.gt_valid.tolist() == [True, True, False, False] and row.gt_labels.tolist() == [1, 2, 0, 0]
    assert row.gt_has_mask.tolist() == [True, True, False, False] and row.gt_boxes[0].tolist() == [0, 0, 2, 2]


def test_of_too_many_objects_the_largest_are_kept_in_order_with_crowds_last():
    example = make_example(6)._replace(crowd=np.array([True, False, False, False, False, True]))
    example = example._replace(boxes=example.boxes[[0, 4, 2, 3, 1, 5]])     # sides 6 (crowd), 2, 4, 3, 5, 1 (crowd)
    assert batching.largest_objects(example, 3).labels.tolist() == [3, 4, 5]
    assert batching.largest_objects(example, 5).labels.tolist() == [1, 2, 3, 4, 5]
    assert batching.largest_objects(example, 6) is example


def test_objects_left_out_are_reported_once_per_image(caplog):
    with caplog.at_level(logging.WARNING, logger='absl'):
        for _ in range(3):
            batching.pad_example(make_example(7, image_id=1234), **OPTIONS)
            batching.pad_example(make_example(9, image_id=1235), **OPTIONS)
    messages = [r.getMessage() for r in caplog.records]
    assert messages == ['image 1234 has 7 objects; the largest 4 are used (data.max_objects)',
                        'image 1235 has 9 objects; the largest 4 are used (data.max_objects)']


def test_an_image_larger_than_the_canvas_is_an_error():
    with pytest.raises(ValueError, match='image 4: 33 x 30 pixels do not fit the canvas 32 x 48'):
        batching.pad_example(make_example(1, height=33), **OPTIONS)
