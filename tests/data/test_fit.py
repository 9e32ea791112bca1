"""Copies of films: which way up they are, at which scale, and what is said about it."""
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from relnet_jax.data import fit
from relnet_jax.data.fit import Header
from relnet_jax.data.images import DICOM_SUFFIXES, SUFFIXES, image_size, read_header, read_image
from relnet_jax.data.read_options import ReadOptions
from tests.data.opening import open_coco

PICTURE = np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8)


def with_orientation(path, orientation: int, picture=PICTURE):
    """`picture` as stored pixels, in a file that asks to have them turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {'.webp': dict(lossless=True), '.jpg': dict(quality=95)}.get(path.suffix, {})
    Image.fromarray(picture).convert('RGB' if path.suffix == '.webp' else 'L').save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif'])
def test_the_stored_pixels_and_the_displayed_ones_are_those_of_pillow(tmp_path, suffix, orientation):
    path = with_orientation(tmp_path / f'a{suffix}', orientation)
    assert read_header(path) == Header(20, 30, orientation) and image_size(path) == (20, 30)
    stored = read_image(path)
    assert np.abs(stored[:, :, 0].astype(int) - PICTURE).max() <= (20 if suffix == '.jpg' else 0)
    picture = Image.open(io.BytesIO(path.read_bytes()))      # of a mapped TIFF file, Pillow forgets to turn the pixels
    picture.load()
    displayed = np.asarray(picture if suffix == '.tif' else ImageOps.exif_transpose(picture))   # a TIFF turns itself
    displayed = displayed if displayed.ndim == 3 else np.dstack([displayed] * 3)
    np.testing.assert_array_equal(fit.turn(stored, orientation), displayed)
    assert fit.turned_size((20, 30), orientation) == displayed.shape[:2]


@pytest.mark.parametrize('orientation', range(1, 9))
def test_the_inverse_orientation_turns_back(orientation):
    there = fit.turn(PICTURE, orientation)
    np.testing.assert_array_equal(fit.turn(there, fit.INVERSE.get(orientation, orientation)), PICTURE)


def test_16_bit_tiffs_are_stored_pixels_too(tmp_path):
    deep = PICTURE.astype(np.uint16) * 200
    Image.fromarray(deep).save(tmp_path / 'a.tif', tiffinfo={0x0112: 8})
    plain = tmp_path / 'b.tif'
    cv2.imwrite(str(plain), deep)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.tif'), read_image(plain))


@pytest.mark.parametrize('tag', [0, 9, 300])
def test_an_orientation_that_makes_no_sense_is_none(tmp_path, tag):
    assert read_header(with_orientation(tmp_path / 'a.jpg', tag)).orientation == 1


@pytest.mark.parametrize('size, other, same', [
    ((2048, 2048), (1024, 1024), True), ((2021, 1017), (505, 254), True), ((3000, 2000), (1000, 673), True),
    ((3000, 2000), (1000, 680), False), ((60, 40), (40, 60), False), ((33, 50), (1000, 1517), True),
    ((1000, 1517), (33, 50), True), ((1000, 1600), (33, 50), False), ((512, 512), (512, 520), False)])
def test_the_same_film_has_the_same_aspect_within_a_hundredth_or_a_pixel(size, other, same):
    assert fit.same_film(size, other) is same and fit.same_film(other, size) is same


def turns(files, exif='auto'):
    """Of files given as (annotated, stored, tag)."""
    records = [dict(height=a[0], width=a[1], file_name='x.jpg') for a, _, _ in files]
    return fit.fit_all(records, [Header(*stored, tag) for _, stored, tag in files], exif)[0]


UPRIGHT, LYING, SQUARE = (60, 40), (40, 60), (50, 50)
TOLD_TURNED, TOLD_STORED = (UPRIGHT, LYING, 6), (LYING, LYING, 8)


@pytest.mark.parametrize('files, expected', [
    ([TOLD_TURNED, TOLD_STORED], [6, 1]),                               # the size tells
    ([(UPRIGHT, UPRIGHT, tag) for tag in (1, 2, 3, 4)], [1, 2, 3, 4]),  # it does not: as displayed
    ([(SQUARE, SQUARE, 6), (SQUARE, SQUARE, 7)], [6, 7]),
    ([TOLD_STORED, (UPRIGHT, UPRIGHT, 3), (SQUARE, SQUARE, 6)], [1, 1, 1]),     # but the data set's majority counts
    ([TOLD_STORED, TOLD_TURNED, TOLD_TURNED, (UPRIGHT, UPRIGHT, 3)], [1, 6, 6, 3]),
    ([((120, 80), LYING, 5), ((80, 120), LYING, 5)], [5, 1]),           # resized copies, too
    ([((100, 101), (101, 100), 6), ((101, 100), (101, 100), 6)], [6, 1])])      # nearly square: exact sizes decide
def test_the_annotations_size_the_data_set_and_the_display_decide_in_this_order(files, expected):
    assert turns(files) == expected


def test_apply_and_ignore_are_literal():
    files = [TOLD_TURNED, TOLD_STORED, (UPRIGHT, UPRIGHT, 3), (UPRIGHT, UPRIGHT, 1)]
    assert turns(files, 'apply') == [6, 8, 3, 1] and turns(files, 'ignore') == [1, 1, 1, 1]


def mark(height, width):
    """A dark picture with one bright object, and the object's COCO box."""
    picture = np.full((height, width), 30, np.uint8)
    picture[height // 8:height // 3, width // 10:width // 4] = 220
    return picture, [width // 10, height // 8, width // 4 - width // 10, height // 3 - height // 8]


def open_one(tmp_path, orientation, *, displayed: bool, exif='auto', shape=(60, 40)):
    """A COCO set of one JPEG with that tag, annotated as displayed or as stored."""
    picture, box = mark(*shape)
    stored = fit.turn(picture, fit.INVERSE.get(orientation, orientation)) if displayed else picture
    with_orientation(tmp_path / '1.jpg', orientation, stored)
    document = dict(images=[dict(id=1, file_name='1.jpg', height=shape[0], width=shape[1])],
                    categories=[dict(id=1, name='mark')],
                    annotations=[dict(id=1, image_id=1, category_id=1, bbox=box)])
    (tmp_path / 'a.json').write_text(json.dumps(document))
    return open_coco(tmp_path / 'a.json', tmp_path, name='test', options=ReadOptions(exif=exif))


def brightness_in_box(example) -> float:
    x1, y1, x2, y2 = example.boxes[0].round().astype(int)
    return example.image[y1:y2, x1:x2].mean()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_boxes_of_displayed_pictures_lie_on_their_objects(tmp_path, orientation):
    source = open_one(tmp_path, orientation, displayed=True)
    assert brightness_in_box(source.load(0)) > 200 and source.load(0).image.shape[:2] == (60, 40)
    said = [note for note in source.notes if 'EXIF' in note]
    assert len(said) == (orientation > 1)
    assert orientation == 1 or said[0] == (
        f'1 of 1 files carry an EXIF orientation (first: 1.jpg, {orientation}): 1 turned as it says, 0 left as stored '
        '(data.exif=auto)')


@pytest.mark.parametrize('orientation', range(1, 9))
def test_boxes_of_stored_pictures_lie_on_their_objects(tmp_path, orientation):
    exif = 'auto' if orientation > 4 else 'ignore'      # of quarter turns the size tells, of others only the user
    source = open_one(tmp_path, orientation, displayed=False, exif=exif)
    assert brightness_in_box(source.load(0)) > 200


def test_a_whole_data_set_of_turned_files_is_read_as_displayed(real_data):
    folder = real_data / 'odd_coco' / 'exif6_all'
    source = open_coco(folder / 'a.json', folder / 'images', name='test')
    assert not source.issues and source.notes == (
        '10 of 10 files carry an EXIF orientation (first: im0.jpg, 6): 10 turned as it says, 0 left as stored '
        '(data.exif=auto)',)
    for i in range(len(source)):
        example = source.load(i)
        assert example.image.shape[:2] == (128, 160)
        for x1, y1, x2, y2 in example.boxes.astype(int):
            inside = example.image[y1 + 2:y2 - 2, x1 + 2:x2 - 2].mean()
            around = example.image[max(y1 - 4, 0):y2 + 4, max(x1 - 4, 0):x2 + 4].mean()
            assert inside > around, (i, x1, y1)


@pytest.mark.parametrize('size', [(30, 20), (120, 80), (61, 40)])
def test_a_resized_copy_keeps_boxes_on_the_object_and_says_so(tmp_path, size):
    open_one(tmp_path, 1, displayed=False)
    cv2.imwrite(str(tmp_path / '1.jpg'), cv2.resize(mark(60, 40)[0], size[::-1], interpolation=cv2.INTER_AREA))
    source = open_coco(tmp_path / 'a.json', tmp_path, name='test')
    assert source.notes == (f'1 of 1 files are resized copies of the annotated films (first: 1.jpg, {size[1]} x '
                            f"{size[0]} of 40 x 60 pixels): boxes and masks are scaled to them, results are in the "
                            f"annotations' pixels",)
    example = source.load(0)
    scale = np.float32([size[1] / 40, size[0] / 60] * 2)
    np.testing.assert_allclose(example.boxes, np.float32([[4, 7, 10, 20]]) * scale)
    assert source.ground_truth()['annotations'][0]['bbox'] == [4, 7, 6, 13]
    assert source.records[0]['width'] == 40


@pytest.mark.parametrize('suffix', [suffix for suffix in SUFFIXES if suffix not in DICOM_SUFFIXES])
def test_every_suffix_is_one_that_can_be_read(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    if suffix in ('.gif', '.jp2'):
        Image.fromarray(PICTURE).save(path)
    else:
        assert cv2.imwrite(str(path), np.dstack([PICTURE] * 3) if suffix == '.ppm' else PICTURE)
    assert image_size(path) == (20, 30) and read_image(path).shape == (20, 30, 3)
    other = tmp_path / 'other.png'
    other.write_bytes(path.read_bytes())        # content counts, not the name
    assert image_size(other) == (20, 30) and read_image(other).shape == (20, 30, 3)


def test_damaged_exif_data_are_as_good_as_none(tmp_path):
    path = with_orientation(tmp_path / 'a.jpg', 6)
    data = bytearray(path.read_bytes())
    place = data.index(b'Exif\0\0') + 6
    data[place + 4:place + 8] = b'\xff\xff\xff\x7f'
    path.write_bytes(data)
    assert read_header(path) == Header(20, 30, 1)
