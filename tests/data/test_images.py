"""Reading image files: every pixel format, and clear errors for files that are none."""
import cv2
import numpy as np
import pytest

from relnet_jax.data.grey import window_16bit
from relnet_jax.data.images import UnreadableImage, read_image
from relnet_jax.data.read_options import ReadOptions

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


def test_exif_orientation_is_ignored(tmp_path):
    data = bytearray(cv2.imencode('.jpg', np.zeros((20, 30), np.uint8))[1].tobytes())
    entry = b'\x01\x12\0\x03\0\0\0\x01\0\x06\0\0'      # orientation 6: rotated by a quarter
    tiff = b'MM\0*\0\0\0\x08' + b'\0\x01' + entry + b'\0\0\0\0'
    segment = b'Exif\0\0' + tiff
    data[2:2] = b'\xff\xe1' + (len(segment) + 2).to_bytes(2, 'big') + segment
    path = tmp_path / 'a.jpg'
    path.write_bytes(data)
    assert cv2.imread(str(path)).shape[:2] == (30, 20), 'the file must carry an orientation that OpenCV would apply'
    assert read_image(path).shape == (20, 30, 3)


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
