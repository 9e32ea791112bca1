import itertools

import cv2
import numpy as np
import pytest

from relnet_jax.visualize import PALETTE, _draw_plate, color, draw_detections, draw_side_by_side, write_image

NAMES = ['Mass', 'Pleural Thickening']
KEEP_SIZE = dict(longer_side=(1, 4096))


def test_the_given_image_is_not_drawn_on():
    image = np.full((300, 300, 3), 80, np.uint8)
    mask = np.ones((300, 300), bool)
    draw_detections(image, [[10, 10, 90, 90]], [1], [0.5], [mask], NAMES, **KEEP_SIZE)
    assert (image == 80).all()


def test_without_objects_the_picture_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    np.testing.assert_array_equal(draw_detections(image, [], [], [], [], NAMES, **KEEP_SIZE), image)
    np.testing.assert_array_equal(draw_detections(image, [], [], None, None, NAMES, **KEEP_SIZE), image)


def test_masks_are_tinted_inside_and_nothing_changes_far_outside():
    image = np.full((400, 400, 3), 100, np.uint8)
    mask = np.zeros((400, 400), bool)
    mask[100:300, 100:300] = True
    picture = draw_detections(image, [[100, 100, 300, 300]], [1], None, [mask], NAMES, **KEEP_SIZE)
    np.testing.assert_allclose(picture[200, 200], 0.65 * 100 + 0.35 * np.array(color(1)), atol=1)
    assert (picture[320:] == 100).all() and (picture[:, 320:] == 100).all()


def test_a_box_stands_on_its_own_pixels():
    image = np.zeros((900, 900, 3), np.uint8)
    picture = draw_detections(image, [[300, 400, 600, 700]], [1], None, None, [''], **KEEP_SIZE)
    x, y, w, h = cv2.boundingRect((picture[401:] > 60).any(-1).astype(np.uint8))
    assert abs(x - 300) <= 2 and abs(x + w - 600) <= 2 and abs(401 + y + h - 700) <= 2


@pytest.mark.parametrize('box', [[0, 0, 40, 40], [860, 0, 900, 40], [0, 860, 40, 900], [860, 860, 900, 900],
                                 [0, 0, 900, 900], [440, 440, 460, 460], [899, 899, 900, 900]])
def test_text_plates_stay_inside_of_the_picture(box):
    canvas, taken = np.zeros((900, 900, 3), np.uint8), []
    _draw_plate(canvas, 'Pleural Thickening 0.50', box, color(2), taken, unit=1.0)
    (x1, y1, x2, y2), = taken
    assert 0 <= x1 < x2 <= 900 and 0 <= y1 < y2 <= 900
    assert all((canvas[y, x] == color(2)).all() for x in (x1, x2 - 1) for y in (y1, y2 - 1))
    canvas[y1:y2, x1:x2] = 0
    assert not canvas.any()


def test_text_wider_than_the_picture_is_cut_to_fit():
    canvas, taken = np.zeros((60, 100, 3), np.uint8), []
    _draw_plate(canvas, 'Pleural Thickening ' * 9, [10, 10, 30, 30], color(2), taken, unit=1.0)
    (x1, _, x2, _), = taken
    assert 0 <= x1 and x2 <= 100 and x2 - x1 > 80


def test_plates_of_objects_at_one_place_do_not_cover_each_other():
    image = np.zeros((900, 900, 3), np.uint8)
    picture = draw_detections(image, [[300, 400, 600, 700]] * 2, [1, 2], [0.9, 0.8], None, NAMES, **KEEP_SIZE)
    alone = draw_detections(image, [[300, 400, 600, 700]], [1], [0.9], None, NAMES, **KEEP_SIZE)
    rows = slice(370, 396)  # above the box, where the first plate stands
    first = (alone[rows] == color(1)).all(-1)
    assert first.sum() > 500
    assert (picture[rows][first] == color(1)).all()
    assert (picture == color(2)).all(-1).sum() > 500


def test_small_images_are_enlarged_and_huge_ones_reduced():
    small = draw_detections(np.zeros((64, 48, 3), np.uint8), [], [], None, None, NAMES)
    assert small.shape == (896, 672, 3)
    huge = draw_detections(np.zeros((1000, 4000, 3), np.uint8), [], [], None, None, NAMES)
    assert huge.shape == (512, 2048, 3)
    assert draw_detections(np.zeros((1000, 900, 3), np.uint8), [], [], None, None, NAMES).shape == (1000, 900, 3)


def test_masks_and_boxes_follow_the_enlargement():
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    picture = draw_detections(np.zeros((64, 64, 3), np.uint8), [[16, 16, 48, 48]], [1], None, [mask], [''])
    tinted = picture.any(-1)
    assert tinted[448, 448] and not tinted[448, 200] and not tinted[700, 448]
    assert tinted[448, 230] and tinted[448, 660] and tinted[660, 448]


def test_titles_and_captions_are_bars_of_their_own():
    image = np.full((900, 900, 3), 200, np.uint8)
    plain = draw_detections(image, [], [], None, None, NAMES, **KEEP_SIZE)
    titled = draw_detections(image, [], [], None, None, NAMES, title='truth', caption='PHANTOM ' * 40, **KEEP_SIZE)
    extra = titled.shape[0] - plain.shape[0]
    assert extra > 30 and titled.shape[1] == 900
    bar = titled[-extra // 2:]
    assert (bar > 128).all(-1).any()
    assert (bar[:, -4:] == 32).all()  # text too long for the bar is made smaller, not cut off


def test_text_outside_ascii_is_drawn_as_question_marks():
    image = np.zeros((300, 300, 3), np.uint8)
    one, other = (draw_detections(image, [[50, 50, 200, 200]], [1], None, None, [name]) for name in ('Mässe', 'M?sse'))
    np.testing.assert_array_equal(one, other)


def test_objects_of_unequal_numbers_are_an_error():
    with pytest.raises(ValueError):
        draw_detections(np.zeros((30, 30, 3), np.uint8), [[0, 0, 9, 9]], [1, 2], None, None, NAMES)


def test_colours_are_distinct_far_beyond_the_palette():
    assert len({color(label) for label in range(1, 81)}) == 80
    distances = [np.abs(np.subtract(a, b)).sum() for a, b in itertools.combinations(PALETTE, 2)]
    assert min(distances) > 60


@pytest.mark.parametrize('height, width', [(256, 256), (1668, 1641), (237, 255), (3000, 2500), (90, 40)])
def test_bars_are_of_one_height_whatever_they_say(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    titles = (
        'ground truth, image 45',
        'prediction (score >= 0.3)',
        'no',
        'a title that is much too long for the picture ' * 3,
    )
    pictures = [draw_detections(image, np.zeros((0, 4)), [], None, None, (), title=title) for title in titles]
    assert len({picture.shape for picture in pictures}) == 1


def test_side_by_side_needs_equal_heights():
    left, right = np.zeros((10, 20, 3), np.uint8), np.ones((10, 30, 3), np.uint8)
    both = draw_side_by_side(left, right, gap=4)
    assert both.shape == (10, 54, 3)
    assert (both[:, :20] == 0).all() and (both[:, 20:24] == 255).all() and (both[:, 24:] == 1).all()
    with pytest.raises(ValueError, match=r'expected equal heights, got \(10, 20, 3\) and \(11, 20, 3\)'):
        draw_side_by_side(left, np.zeros((11, 20, 3), np.uint8))


def test_written_files_keep_the_colours_and_failures_are_errors(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 200  # red
    write_image(tmp_path / 'x.png', image)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'x.png'))[0, 0], [0, 0, 200])
    with pytest.raises(OSError, match='nowhere'):
        write_image(tmp_path / 'nowhere' / 'x.png', image)
