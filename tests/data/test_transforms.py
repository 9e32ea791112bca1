"""Resize, flip, jitter and intensity of one example."""
import cv2
import numpy as np
import pytest

from relnet_jax.data import transforms as T
from relnet_jax.ops.masks import crop_mask
from relnet_jax.types import Example

CLASSES, PARTS = ('nodule', 'left rib', 'right rib'), ('heart', 'left lung', 'right lung')
PAIRS = (('left rib', 'right rib'), ('right lung', 'left lung'))


def make_example(height=40, width=60):
    rng = np.random.default_rng(0)
    return Example(
        image=rng.integers(0, 256, (height, width, 3), dtype=np.uint8), image_id=9, index=2,
        boxes=np.float32([[0, 0, 10, 20], [30.5, 5, 60, 40], [12, 7, 13, 8]]), labels=np.int32([1, 2, 3]),
        crowd=np.array([False, True, False]), masks=rng.integers(0, 256, (3, 8, 8), dtype=np.uint8),
        has_mask=np.array([True, False, True]),
        part_boxes=np.float32([[20, 10, 40, 30], [35, 2, 55, 38], [0, 0, 0, 0]]),
        part_valid=np.array([True, True, False]))


def assert_same(a, b):
    for name, x, y in zip(Example._fields, a, b):
        np.testing.assert_array_equal(x, y, err_msg=name)
        assert np.asarray(x).dtype == np.asarray(y).dtype, name


@pytest.mark.parametrize('height, width, options, expected', [
    (600, 800, dict(scale=300, max_size=1000, canvas=(512, 512)), (300, 400)),
    (600, 800, dict(scale=300, max_size=320, canvas=(512, 512)), (240, 320)),       # longer side binds
    (600, 800, dict(scale=900, max_size=2000, canvas=(512, 512)), (384, 512)),      # canvas binds
    (100, 100, dict(scale=50, max_size=100, canvas=(64, 64), jitter=1.2), (60, 60)),
    (100, 100, dict(scale=50, max_size=100, canvas=(64, 64), jitter=3.0), (64, 64)),
    (2, 3000, dict(scale=300, max_size=300, canvas=(300, 300)), (1, 300)),
    (333, 500, dict(scale=800, max_size=1333, canvas=(1344, 1344)), (800, 1201)),
])
def test_the_new_size_obeys_every_bound(height, width, options, expected):
    assert T.resized_size(height, width, **options) == expected


def test_boxes_follow_the_pixels_when_resized():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 30:45] = 255
    example = make_example()._replace(image=image, boxes=np.float32([[30, 10, 45, 20]]))
    for size in ((80, 120), (20, 30), (33, 71)):
        resized = T.resize(example, size)
        rows, columns = (np.flatnonzero(resized.image[:, :, 0].max(axis=a) > 127) for a in (1, 0))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(resized.boxes[0], seen, atol=0.51)
        back = np.float32([60 / size[1], 40 / size[0]] * 2)
        np.testing.assert_allclose(resized.boxes[0] * back, [30, 10, 45, 20], rtol=1e-6)
        assert resized.image.shape == (*size, 3) and resized.boxes.dtype == np.float32


def test_shrinking_averages_areas():
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    small = T.resize(make_example()._replace(image=image), (10, 15)).image
    mean = image.reshape(10, 4, 15, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - mean).max() <= 1


def test_an_image_of_the_right_size_is_left_alone():
    example = make_example()
    assert T.resize(example, (40, 60)) is example


def test_a_flip_mirrors_boxes_masks_pixels_and_exchanges_paired_names():
    example = make_example()
    flipped = T.flip(example, *T.flip_tables(CLASSES, PARTS, PAIRS))
    np.testing.assert_array_equal(flipped.image, example.image[:, ::-1])
    assert flipped.boxes.tolist() == [[50, 0, 60, 20], [0, 5, 29.5, 40], [47, 7, 48, 8]]
    assert flipped.labels.tolist() == [1, 3, 2]
    np.testing.assert_array_equal(flipped.masks, example.masks[:, :, ::-1])
    assert flipped.part_valid.tolist() == [True, False, True]
    assert flipped.part_boxes[0].tolist() == [20, 10, 40, 30] and flipped.part_boxes[2].tolist() == [5, 2, 25, 38]


def test_a_flip_shows_the_same_object_in_the_flipped_pixels():
    example = make_example()
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 15:22] = 1
    mask[10:14, 22:40] = 1
    box = np.float32([[15, 10, 40, 20]])
    example = example._replace(boxes=box, labels=np.int32([1]), masks=crop_mask(mask, box[0], 25)[None])
    flipped = T.flip(example, *T.flip_tables(CLASSES, PARTS, ()))
    expected = crop_mask(np.ascontiguousarray(mask[:, ::-1]), flipped.boxes[0], 25)
    np.testing.assert_array_equal(flipped.masks[0], expected)


def test_flipping_twice_changes_nothing():
    example, tables = make_example(), T.flip_tables(CLASSES, PARTS, PAIRS)
    assert_same(T.flip(T.flip(example, *tables), *tables), example)


def test_flip_tables_are_their_own_inverse_and_leave_the_background():
    labels, slots = T.flip_tables(CLASSES, PARTS, PAIRS)
    assert labels.tolist() == [0, 1, 3, 2] and slots.tolist() == [0, 2, 1]
    labels, slots = T.flip_tables(('left lung', 'right lung'), PARTS, PAIRS[1:])
    assert labels.tolist() == [0, 2, 1] and slots.tolist() == [0, 2, 1], 'names that are both classes and parts'


@pytest.mark.parametrize('pairs, words', [
    ((('a', 'b'),), 'neither classes'), ((('left rib',),), 'pairs of two names'),
    ((('nodule', 'nodule'),), 'two names'), ((('left rib', 'left lung'),), 'only one is among')])
def test_wrong_flip_pairs_are_errors(pairs, words):
    with pytest.raises(ValueError, match=words):
        T.flip_tables(CLASSES, PARTS, pairs)


def test_intensity_is_the_formula_rounded():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    same = T.adjust_intensity(image, brightness=0, contrast=1, gamma=1)
    np.testing.assert_array_equal(same, image)
    out = T.adjust_intensity(image, brightness=0.1, contrast=0.7, gamma=1.3)
    expected = ((image / 255) ** 1.3 - 0.5) * 0.7 + 0.6
    np.testing.assert_array_equal(out, np.clip(np.rint(expected * 255), 0, 255))


OFF = dict(original_size=(40, 60), tables=T.flip_tables(CLASSES, PARTS, PAIRS), canvas=(64, 64), scale=40, max_size=60,
           flip_probability=0.0, scale_jitter=(1.0, 1.0), brightness=0.0, contrast=0.0, gamma=0.0,
           rotation=0.0)


def test_without_options_an_augmented_example_is_the_resized_one():
    assert_same(T.augment(make_example(), np.random.default_rng(0), **OFF), make_example())


def test_jittered_images_stay_inside_the_canvas_and_use_the_range():
    rng = np.random.default_rng(0)
    heights = []
    for _ in range(60):
        view = T.augment(make_example(), rng, **OFF | dict(scale_jitter=(0.5, 2.0)))
        height, width = view.image.shape[:2]
        assert height <= 64 and width <= 64 and abs(height / 40 - width / 60) < 0.02
        assert (view.boxes[:, 2] <= width).all() and (view.boxes[:, 3] <= height).all()
        heights.append(height)
    assert min(heights) < 24 and max(heights) == 43     # 64 / 60 of the size, where the canvas stops it


def test_one_option_does_not_change_what_the_others_draw():
    flips = {jitter: [T.augment(make_example(), np.random.default_rng(seed), **OFF | dict(
        flip_probability=0.5, scale_jitter=jitter)).labels.tolist() == [1, 3, 2] for seed in range(20)]
        for jitter in ((1.0, 1.0), (0.5, 1.0))}
    assert flips[1.0, 1.0] == flips[0.5, 1.0] and 4 < sum(flips[1.0, 1.0]) < 16


def test_the_same_generator_gives_the_same_view_and_the_input_is_untouched():
    example, original = make_example(), make_example()
    options = OFF | dict(flip_probability=0.5, scale_jitter=(0.5, 1.0), brightness=0.2, contrast=0.3, gamma=0.3,
                         rotation=20.0)
    for seed in range(5):
        assert_same(*(T.augment(example, np.random.default_rng(seed), **options) for _ in range(2)))
    assert_same(example, original)


def test_intensity_options_reach_the_pixels():
    image = cv2.resize(np.uint8([[[100] * 3]]), (60, 40))
    for option in ('brightness', 'contrast', 'gamma'):
        view = T.augment(make_example()._replace(image=image), np.random.default_rng(4), **OFF | {option: 0.5})
        assert len(np.unique(view.image)) == 1 and view.image[0, 0, 0] != 100, option


@pytest.mark.parametrize('size', [(31, 47), (80, 120)])
def test_a_grey_image_is_resized_as_a_coloured_one(size):
    example = make_example()
    grey = example._replace(image=example.image[:, :, :1].repeat(3, axis=2))
    almost = grey.image.copy()
    almost[-1, -1, 2] ^= 1
    whole, nearly = T.resize(grey, size).image, T.resize(grey._replace(image=almost), size).image
    np.testing.assert_array_equal(whole[:, :, :2], nearly[:, :, :2])
    np.testing.assert_array_equal(whole, whole[:, :, :1].repeat(3, axis=2))
    assert whole.flags.c_contiguous and whole.dtype == np.uint8
