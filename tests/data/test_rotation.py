"""Rotation of an example: pixels, masks, boxes and parts turn together."""
import numpy as np
import pytest

from relnet_jax.data.rotation import rotate
from relnet_jax.ops.masks import crop_mask
from relnet_jax.types import Example


def ellipse(height, width, x, y, a, b, degrees=0.0):
    """bool [height, width]: cells whose centre lies in an ellipse."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    angle = np.deg2rad(degrees)
    along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    return (along / a) ** 2 + (across / b) ** 2 <= 1


def extent(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.float32([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def make_example(mask, *, with_mask=True, parts=()):
    box = extent(mask)
    return Example(
        image=np.uint8(mask[:, :, None] * np.uint8([255, 255, 255])), image_id=3, index=1, boxes=box[None],
        labels=np.int32([2]), crowd=np.array([False]),
        masks=(crop_mask(mask.astype(np.uint8), box, 56) if with_mask else np.zeros((56, 56), np.uint8))[None],
        has_mask=np.array([with_mask]), part_boxes=np.float32(parts).reshape(-1, 4),
        part_valid=np.ones(len(parts), bool))


@pytest.mark.parametrize('degrees', [-30.0, 7.0, 10.0, 90.0])
def test_the_turned_box_and_mask_lie_on_the_turned_pixels(degrees):
    turned = rotate(make_example(ellipse(200, 240, 130, 80, 50, 25, degrees=20)), degrees)
    seen = turned.image[:, :, 0] > 127
    np.testing.assert_allclose(turned.boxes[0], extent(seen), atol=2)
    expected = crop_mask(seen.astype(np.uint8), turned.boxes[0], 56)
    assert np.abs(turned.masks[0].astype(int) - expected).mean() < 4
    assert turned.labels.tolist() == [2] and turned.has_mask.tolist() == [True]


def test_a_positive_angle_turns_clockwise_about_the_middle():
    mask = np.zeros((100, 100), bool)
    mask[10:20, 45:55] = True       # above the middle
    turned = rotate(make_example(mask), 90.0)
    np.testing.assert_allclose(turned.boxes[0], [80, 45, 90, 55], atol=1e-3)
    np.testing.assert_array_equal(turned.image[45:55, 80:90], 255)
    assert (turned.masks[0] >= 254).all()


def test_a_box_without_a_mask_holds_the_turned_ellipse():
    plain = make_example(ellipse(200, 200, 120, 90, 60, 20), with_mask=False)
    turned = rotate(plain, 25.0)
    np.testing.assert_allclose(turned.boxes[0], extent(turned.image[:, :, 0] > 127), atol=1.5)
    assert not turned.masks.any()
    round_box = make_example(ellipse(200, 200, 120, 90, 15, 15), with_mask=False)
    sides = np.diff(rotate(round_box, 33.0).boxes.reshape(2, 2), axis=0)
    np.testing.assert_allclose(sides, [[30, 30]], atol=1e-3)


def test_turning_back_gives_the_example_again():
    example = make_example(ellipse(160, 160, 85, 70, 40, 25), parts=[[40, 40, 80, 100]])
    back = rotate(rotate(example, 8.0), -8.0)
    np.testing.assert_allclose(back.boxes, example.boxes, atol=2)
    assert np.abs(back.masks.astype(int) - example.masks).mean() < 8
    assert rotate(example, 0.0) is example


def test_what_leaves_the_image_is_cut_off_or_left_out():
    mask = np.zeros((100, 200), bool)
    mask[0:10, 0:10] = True         # a corner, outside after a quarter
    gone = rotate(make_example(mask, parts=[[0, 0, 10, 10], [95, 45, 105, 55], [0, 40, 100, 60]]), 90.0)
    assert gone.boxes.shape == (0, 4) and gone.masks.shape == (0, 56, 56)
    assert gone.labels.dtype == np.int32 and gone.part_valid.tolist() == [False, True, True]
    assert gone.part_boxes[0].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(gone.part_boxes[2], [90, 0, 110, 50], atol=1e-3)


def test_an_example_without_objects_turns():
    example = make_example(ellipse(50, 50, 20, 20, 9, 9))
    empty = example._replace(boxes=example.boxes[:0], labels=example.labels[:0], crowd=example.crowd[:0],
                             masks=example.masks[:0], has_mask=example.has_mask[:0])
    turned = rotate(empty, 5.0)
    assert turned.boxes.shape == (0, 4) and turned.boxes.dtype == np.float32 and turned.part_boxes.shape == (0, 4)
