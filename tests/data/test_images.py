"""Reading image files: every pixel format, clear errors for files that are none. DICOM: test_dicom, EXIF: test_fit."""
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from configs import base
from relnet_jax.data.grey import window_16bit
from relnet_jax.data.images import UnreadableImage, image_size, read_image
from relnet_jax.data.read_options import ReadOptions, read_options

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)      # RGB


def write(path, image):
    assert cv2.imwrite(str(path), image)
    return path


def test_rgb_png_comes_back_in_rgb_order(tmp_path):
    path = write(tmp_path / 'a.png', COLOUR[:, :, ::-1])
    np.testing.assert_array_equal(read_image(path), COLOUR)


def test_alpha_is_dropped_even_where_it_is_zero(tmp_path):
    alpha = np.zeros((20, 30, 1), np.uint8)
    path = write(tmp_path / 'a.png', np.concatenate([COLOUR[:, :, ::-1], alpha], axis=2))
    np.testing.assert_array_equal(read_image(path), COLOUR)


def test_grey_8_bit_png_is_replicated_unchanged(tmp_path):
    grey = COLOUR[:, :, 0]
    image = read_image(write(tmp_path / 'a.png', grey))
    assert image.dtype == np.uint8 and image.shape == (20, 30, 3)
    for channel in range(3):
        np.testing.assert_array_equal(image[:, :, channel], grey)


def test_grey_jpeg_is_three_equal_channels(tmp_path):
    smooth = np.add.outer(np.arange(20), np.arange(30)).astype(np.uint8) * 4
    image = read_image(write(tmp_path / 'a.jpg', smooth))
    assert image.shape == (20, 30, 3) and np.abs(image[:, :, 0].astype(int) - smooth).max() < 6
    np.testing.assert_array_equal(image[:, :, 0], image[:, :, 2])


def test_16_bit_png_is_windowed_by_percentiles(tmp_path):
    grey = RNG.integers(1000, 3000, (50, 40)).astype(np.uint16)
    grey[0, 0], grey[0, 1] = 0, 65535       # outliers, outside the percentiles
    image = read_image(write(tmp_path / 'a.png', grey), ReadOptions(window=(1, 99)))
    low, high = (np.percentile(grey, p, method='inverted_cdf') for p in (1, 99))
    expected = np.clip(np.rint((grey.astype(float) - low) / (high - low) * 255), 0, 255)
    np.testing.assert_array_equal(image[:, :, 1], expected)


def test_window_of_a_constant_image_is_black_and_of_the_full_range_reaches_both_ends():
    assert not window_16bit(np.full((3, 3), 700, np.uint16), (0.5, 99.5)).any()
    ramp = window_16bit(np.arange(100, 200, dtype=np.uint16).reshape(10, 10), (0, 100))
    assert ramp.min() == 0 and ramp.max() == 255 and (np.diff(ramp.ravel().astype(int)) > 0).all()


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('share', [0.05, 0.5, 0.97])
def test_truncated_files_are_unreadable(tmp_path, suffix, share):
    data = cv2.imencode(suffix, COLOUR)[1].tobytes()
    path = tmp_path / ('a' + suffix)
    path.write_bytes(data[:int(len(data) * share)])
    with pytest.raises(UnreadableImage, match=f'a{suffix}: .*truncated'):
        read_image(path)


def test_truncation_is_seen_behind_an_embedded_complete_thumbnail(tmp_path):
    thumbnail = cv2.imencode('.jpg', COLOUR[:8, :8])[1].tobytes()
    data = bytearray(cv2.imencode('.jpg', COLOUR)[1].tobytes())
    data[2:2] = b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail
    path = tmp_path / 'a.jpg'
    path.write_bytes(data)
    assert read_image(path).shape == COLOUR.shape
    path.write_bytes(data[:-40])
    with pytest.raises(UnreadableImage, match='truncated JPEG'):
        read_image(path)


@pytest.mark.parametrize('content, reason', [(b'', 'empty file'), (b'not an image at all', 'not an image')])
def test_files_that_are_no_images_are_unreadable(tmp_path, content, reason):
    path = tmp_path / 'a.png'
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as error:
        read_image(path)
    assert error.value.path == path and isinstance(error.value, ValueError)


def test_missing_files_and_folders_are_unreadable(tmp_path):
    with pytest.raises(UnreadableImage, match='b.png: No such file'):
        read_image(tmp_path / 'b.png')
    with pytest.raises(UnreadableImage, match='directory'):
        read_image(tmp_path)


def test_float_pixels_are_refused(tmp_path):
    path = write(tmp_path / 'a.tiff', np.zeros((4, 5), np.float32))
    with pytest.raises(UnreadableImage, match='float32'):
        read_image(path)


def photo(path, *, progressive=False, side=256):
    """A JPEG with something in every block."""
    smooth = cv2.GaussianBlur(RNG.integers(0, 256, (side, side), dtype=np.uint8), (0, 0), 2)
    flags = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    assert cv2.imwrite(str(path), cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), flags)
    return path


@pytest.mark.parametrize('progressive', [False, True])
@pytest.mark.parametrize('inside', [bytes(300), b''], ids=['zeros', 'missing'])
def test_a_jpeg_damaged_inside_is_unreadable_though_it_has_its_end_marker(tmp_path, inside, progressive):
    path = photo(tmp_path / 'a.jpg', progressive=progressive)
    whole = path.read_bytes()
    start = whole.rindex(b'\xff\xda') + 14
    for place in np.linspace(start, len(whole) - 400, 12).astype(int):
        path.write_bytes(whole[:place] + inside + whole[place + 300:])
        with pytest.raises(UnreadableImage, match='a.jpg: (Corrupt JPEG data|.*marker|Bogus|.*scans)'):
            read_image(path)


def test_whole_jpegs_are_read_as_opencv_reads_them(tmp_path):
    colour = cv2.GaussianBlur(RNG.integers(0, 256, (61, 83, 3), dtype=np.uint8), (0, 0), 3)
    for i, sampling in enumerate((cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
                                  cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)):
        for progressive in (0, 1):
            path = tmp_path / f'{i}{progressive}.jpg'
            cv2.imwrite(str(path), colour, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling,
                                            cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
            np.testing.assert_array_equal(read_image(path), cv2.imread(str(path))[:, :, ::-1])
    cmyk = tmp_path / 'cmyk.jpg'
    Image.fromarray(np.dstack([colour, colour[:, :, 0]]), 'CMYK').save(cmyk)
    np.testing.assert_array_equal(read_image(cmyk), cv2.imread(str(cmyk))[:, :, ::-1])


def test_padding_behind_the_end_marker_and_comments_do_no_harm(tmp_path):
    path = photo(tmp_path / 'a.jpg')
    whole, expected = path.read_bytes(), read_image(path)
    for data in (whole + bytes(100), whole + b'\xff' * 7, whole[:2] + b'\xff\xfe\0\4ok' + whole[2:]):
        path.write_bytes(data)
        np.testing.assert_array_equal(read_image(path), expected)


def test_every_whole_jpeg_of_the_real_data_is_read(real_data):
    files = [p for p in sorted(real_data.rglob('*')) if p.suffix.lower() in ('.jpg', '.jpeg')][::9]
    assert len(files) > 20
    for path in files:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        np.testing.assert_array_equal(read_image(path), image[:, :, ::-1])
        assert image_size(path) == image.shape[:2]


def png_of(width, height) -> bytes:
    """A PNG of zeros, a few kilobytes a hundred megapixels."""
    def chunk(kind, data):
        return struct.pack('>L', len(data)) + kind + data + struct.pack('>L', zlib.crc32(kind + data))
    packer = zlib.compressobj(9)
    row = bytes(width // 8 + 1)
    data = b''.join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack('>LLBBBBB', width, height, 1, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', data) + chunk(b'IEND', b'')


def test_pixels_are_limited_before_anything_is_decoded(tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(png_of(30_000, 30_000))
    assert path.stat().st_size < 200_000
    start = time.monotonic()
    for read in (read_image, image_size):
        with pytest.raises(UnreadableImage, match='a.png: 30000 x 30000 pixels, more than data.max_pixels = 100000000'):
            read(path)
    assert time.monotonic() - start < 1
    small = write(tmp_path / 'b.png', COLOUR)
    assert read_image(small, ReadOptions(max_pixels=600)).shape == COLOUR.shape
    with pytest.raises(UnreadableImage, match='30 x 20 pixels, more than data.max_pixels = 599 allows'):
        read_image(small, ReadOptions(max_pixels=599))


def test_a_file_larger_than_any_picture_of_that_many_pixels_is_not_read(tmp_path):
    path = tmp_path / 'a.png'
    with open(path, 'wb') as file:
        file.truncate((1 << 26) + 8 * 1000 + 1)
    with pytest.raises(UnreadableImage, match='a.png: 67116865 bytes, more than a picture of data.max_pixels = 1000'):
        read_image(path, ReadOptions(max_pixels=1000))


def test_a_jpeg_of_a_thousand_scans_is_refused(tmp_path):
    path = photo(tmp_path / 'a.jpg', progressive=True)
    whole = path.read_bytes()
    scan = whole[whole.rindex(b'\xff\xda'):-2]
    path.write_bytes(whole[:-2] + scan * 1000 + whole[-2:])
    with pytest.raises(UnreadableImage, match='a.jpg: JPEG of more than 100 scans'):
        read_image(path)


@pytest.mark.parametrize('key, value', [('window', (60.0, 40.0)), ('max_pixels', 0), ('exif', 'maybe')])
def test_options_that_make_no_sense_are_named(key, value):
    config = base.get_config()
    config.data[key] = value
    with pytest.raises(ValueError, match=f'data.{key}: expected'):
        read_options(config.data)
