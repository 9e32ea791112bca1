import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from relnet_jax.data import batching, transforms
from relnet_jax.data.rle import decode_mask
from relnet_jax.data.source import Source
from relnet_jax.detector.results import encode_mask, paste_and_encode, to_coco_results, to_original
from relnet_jax.ops.masks import paste_mask
from relnet_jax.types import Detections, Example


def example(height, width, boxes, *, index=0, image_id=7):
    n = len(boxes)
    return Example(
        image=np.zeros((height, width, 3), np.uint8), image_id=image_id, index=index,
        boxes=np.float32(boxes).reshape(-1, 4), labels=np.ones(n, np.int32), crowd=np.zeros(n, bool),
        masks=np.zeros((n, 8, 8), np.uint8), has_mask=np.zeros(n, bool), part_boxes=np.zeros((0, 4), np.float32),
        part_valid=np.zeros(0, bool))


def make_batch(examples, *, canvas=(64, 64), scale=48, max_size=64):
    rows = []
    for e in examples:
        size = e.image.shape[:2]
        small = transforms.resize(e, transforms.resized_size(*size, scale=scale, max_size=max_size, canvas=canvas))
        rows.append(batching.pad_example(small, canvas=canvas, max_objects=4, original_size=size))
    return batching.stack(rows)


def make_source(image_ids=(7, 9)):
    return Source(name='toy', classes=('a', 'b'), category_ids=(30, 10), parts=(),
                  records=[dict(id=i) for i in image_ids], load=None, ground_truth=None)


def detections_of(batch, *, mask=None, labels=1):
    """The batch's own boxes as detections, the first with score 0.9, the next with 0.8, ..."""
    b, d = batch.gt_boxes.shape[:2]
    masks = np.zeros((b, d, 0, 0), np.float32) if mask is None else np.broadcast_to(mask, (b, d, *mask.shape))
    scores = np.broadcast_to(np.float32(0.9) - np.arange(d, dtype=np.float32) / 10, (b, d))
    return Detections(boxes=batch.gt_boxes, scores=scores,
                      labels=np.full((b, d), labels, np.int32), valid=batch.gt_valid, masks=masks)


@pytest.mark.parametrize('height, width', [(97, 61), (40, 33), (301, 1024), (64, 64)])
def test_boxes_come_back_through_the_resize(height, width):
    boxes = [[0, 0, width, height], [3.5, 7.25, 20, 31], [width - 1, height - 1, width, height]]
    batch = make_batch([example(height, width, boxes)])
    got = to_original(batch.gt_boxes[0, :3], batch.image_size[0], batch.original_size[0])
    np.testing.assert_allclose(got, boxes, atol=width * 1e-6)


def test_boxes_are_clipped_to_the_original_image():
    got = to_original([[-5, -5, 50, 500], [60, 0, 70, 3]], (50, 25), (100, 100))
    np.testing.assert_array_equal(got, [[0, 0, 100, 100], [100, 0, 100, 6]])


def test_records_carry_the_data_sets_own_ids_and_survive_json():
    batch = make_batch([example(97, 61, [[2, 3, 30, 40], [5, 5, 9, 9]]),
                        example(40, 33, [[1, 1, 8, 8]], index=1)])
    results = to_coco_results(detections_of(batch, labels=2), batch, make_source())
    assert [(r['image_id'], r['category_id']) for r in results] == [(7, 10), (7, 10), (9, 10)]
    assert results[0]['bbox'] == pytest.approx([2, 3, 28, 37], abs=1e-4)
    assert [r['score'] for r in results] == pytest.approx([0.9, 0.8, 0.9])
    assert 'segmentation' not in results[0]
    assert json.loads(json.dumps(results)) == results


def test_rows_that_are_no_images_are_skipped():
    batch = make_batch([example(40, 33, [[1, 1, 8, 8]]), example(40, 33, [[2, 2, 9, 9]], index=1)])
    batch = batch._replace(image_valid=np.array([False, True]))
    assert [r['image_id'] for r in to_coco_results(detections_of(batch), batch, make_source())] == [9]


def test_masks_are_pasted_at_full_resolution_into_their_box():
    batch = make_batch([example(194, 122, [[20, 30, 80, 130]])])
    mask = np.ones((28, 28), np.float32)
    mask[:, 14:] = 0.1  # the left half of the box
    result, = to_coco_results(detections_of(batch, mask=mask), batch, make_source())
    assert result['segmentation']['size'] == [194, 122]
    decoded = decode_mask(result['segmentation'])
    want = np.zeros((194, 122), bool)
    want[30:130, 20:50] = True
    assert (decoded & want).sum() / (decoded | want).sum() > 0.95
    assert decoded[:, 54:].sum() == 0
    everything, = to_coco_results(detections_of(batch, mask=mask), batch, make_source(), mask_threshold=0.05)
    assert decode_mask(everything['segmentation'])[:, 54:79].any()


@pytest.mark.parametrize('mask', [
    np.random.default_rng(0).random((13, 17)) > 0.6, np.zeros((3, 5), bool), np.ones((3, 5), bool),
    np.eye(4, dtype=bool), np.arange(12).reshape(3, 4) % 4 < 2, np.arange(12).reshape(3, 4) % 4 > 1])
def test_encoding_is_that_of_pycocotools(mask):
    want = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    assert encode_mask(mask) == dict(size=list(mask.shape), counts=want['counts'].decode())


def test_a_part_is_encoded_as_if_in_the_whole_image():
    rng = np.random.default_rng(1)
    for top, left, h, w in ((0, 0, 6, 5), (3, 2, 4, 3), (0, 4, 9, 3), (5, 0, 4, 8), (2, 3, 0, 4), (9, 8, 0, 0)):
        whole = np.zeros((9, 8), bool)
        whole[top:top + h, left:left + w] = part = rng.random((h, w)) > 0.3
        assert encode_mask(part, corner=(top, left), image_size=(9, 8)) == encode_mask(whole)


def test_pasting_the_part_around_the_box_loses_no_pixel():
    rng = np.random.default_rng(2)
    for _ in range(60):
        size = tuple(int(v) for v in rng.integers(8, 90, 2))
        x1, x2 = sorted(rng.uniform(0, size[1], 2))
        y1, y2 = sorted(rng.uniform(0, size[0], 2))
        box = np.float32([x1, y1, x2, y2])
        mask = rng.random((int(rng.choice([2, 5, 28])),) * 2).astype(np.float32)
        want = encode_mask(paste_mask(mask, box, size, threshold=0.02))
        assert paste_and_encode(mask, box, size, threshold=0.02) == want


def test_encoded_masks_decode_to_themselves():
    mask = np.random.default_rng(0).random((13, 17)) > 0.6
    encoded = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(encoded), mask)
    for constant in (np.zeros((3, 5), bool), np.ones((3, 5), bool)):
        np.testing.assert_array_equal(decode_mask(encode_mask(constant)), constant)


def test_a_label_outside_the_class_table_is_an_error():
    batch = make_batch([example(40, 33, [[1, 1, 8, 8]])])
    with pytest.raises(ValueError, match=r'toy, image 0, detection 0: expected a label in 1..2, got 3'):
        to_coco_results(detections_of(batch, labels=3), batch, make_source())
