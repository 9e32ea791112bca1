"""Image files as uint8 RGB arrays: PNG of 8 or 16 bit, JPEG, DICOM, and what else films come in."""
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from relnet_jax.data.codestream import START_JPEG_2000, jpeg2000_frame, jpeg_frame
from relnet_jax.data.fit import INVERSE, Header, turn
from relnet_jax.data.grey import window_16bit
from relnet_jax.data.read_options import DEFAULTS, ReadOptions
from relnet_jax.errors import UserError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.jp2', '.avif', '.gif', '.pgm', '.ppm', '.dcm',
            '.dicom')
DICOM_SUFFIXES = ('.dcm', '.dicom')
EXIF_ORIENTATION = 274
# (first bytes, their place, class that reads the header): Pillow's own `Image.open` would try formats that no film
# comes in, and has a limit on pixels of its own.
FORMATS = (
    (b'\x89PNG\r\n\x1a\n', 0, PngImagePlugin.PngImageFile),
    (b'\xff\xd8\xff', 0, JpegImagePlugin.JpegImageFile),
    (b'BM', 0, BmpImagePlugin.BmpImageFile),
    (b'II*\0', 0, TiffImagePlugin.TiffImageFile), (b'MM\0*', 0, TiffImagePlugin.TiffImageFile),
    (b'WEBP', 8, WebPImagePlugin.WebPImageFile),
    (b'\0\0\0\x0cjP  \r\n', 0, Jpeg2KImagePlugin.Jpeg2KImageFile),
    (b'\xff\x4f\xff\x51', 0, Jpeg2KImagePlugin.Jpeg2KImageFile),
    (b'ftypavif', 4, AvifImagePlugin.AvifImageFile),
    (b'GIF8', 0, GifImagePlugin.GifImageFile),
    *((b'P%d' % i, 0, PpmImagePlugin.PpmImageFile) for i in range(1, 7)))

# What matters of these complaints comes as UnreadableImage, with the name of the file.
warnings.filterwarnings('ignore', module='PIL')
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class UnreadableImage(UserError):
    """The file at `path` is missing, damaged or not an image; `reason` says which."""

    def __init__(self, path: Path | str, reason: str):
        super().__init__(f'{path}: {reason}')
        self.path = path
        self.reason = reason


class StoredImage(NamedTuple):
    """An image file within another file, in place of a path: `name` as of a file, `read` gives its bytes."""
    name: str
    read: Callable[[], bytes]

    def __fspath__(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name


def is_image_file(path: Path) -> bool:
    """Whether a file found in a folder is meant as an image: by its suffix, or as DICOM, which often has none, by its
    content."""
    if path.suffix.lower() in SUFFIXES:
        return path.is_file()
    try:
        with open(path, 'rb') as file:
            return file.read(132)[128:] == b'DICM'
    except OSError:
        return False


def read_header(path: Path | str, options: ReadOptions = DEFAULTS) -> Header:
    """Size and orientation of the file, without decoding it. Raises UnreadableImage, also above `max_pixels`."""
    try:
        with io.BytesIO(path.read()) if isinstance(path, StoredImage) else open(path, 'rb') as file:
            if _is_dicom(file.read(140), path):
                file.seek(0)
                return Header(*_dicom(path).read_size(file, max_pixels=options.max_pixels))
            return _header(file, path, options)
    except OSError as e:
        raise UnreadableImage(path, e.strerror or str(e)) from e
    except ValueError as e:
        raise _named(path, e) from e


def image_size(path: Path | str, options: ReadOptions = DEFAULTS) -> tuple[int, int]:
    """(height, width) of the stored pixels, from the file's header. Raises UnreadableImage."""
    return read_header(path, options)[:2]


def dicom_uids(path: Path | str, options: ReadOptions = DEFAULTS) -> dict[str, str]:
    """How an archive calls the film: StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID; empty for other formats.
    Raises UnreadableImage."""
    try:
        with open(path, 'rb') as file:
            if not _is_dicom(file.read(140), path):
                return {}
            file.seek(0)
            return _dicom(path).read_uids(file, max_pixels=options.max_pixels)
    except OSError as e:
        raise UnreadableImage(path, e.strerror or str(e)) from e
    except ValueError as e:
        raise _named(path, e) from e


def read_image(path: Path | str, options: ReadOptions = DEFAULTS) -> np.ndarray:
    """The file's stored pixels as uint8 [h, w, 3], RGB.

    Grey is replicated. Transparency is dropped, not composited: in medical PNGs it carries no picture. An EXIF
    orientation is not applied here (`fit.turn`). 16 bits are mapped to 8 by `window_16bit`, DICOM as `data.dicom` says.
    Raises UnreadableImage for files that are missing, cut off, damaged (as far as the format lets one tell), of other
    pixel types, or larger than `max_pixels`, before anything is decoded.
    """
    data = _bytes(path, options)
    try:
        if _is_dicom(data[:140], path):
            grey = _dicom(path).read(data, window=options.window, max_pixels=options.max_pixels,
                                     tags=options.tags(path))
            return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
        header = _header(io.BytesIO(data), path, options)
        if data[:3] == b'\xff\xd8\xff':
            jpeg_frame(data)
            return simplejpeg.decode_jpeg(data, 'RGB')      # as OpenCV does it, but damage inside is an error, not grey
        if START_JPEG_2000 in data[:1024]:
            jpeg2000_frame(data[data.index(START_JPEG_2000):])
        return _decode(data, header, options)
    except ValueError as e:
        raise _named(path, e) from e


def _named(path: Path | str, error: ValueError) -> UnreadableImage:
    return error if isinstance(error, UnreadableImage) else UnreadableImage(path, str(error))


def _bytes(path: Path | str, options: ReadOptions) -> bytes:
    if isinstance(path, StoredImage):
        return path.read()
    try:
        size = Path(path).stat().st_size
        if size > 8 * options.max_pixels + (1 << 26):       # no format takes more than four samples of 16 bits
            raise UnreadableImage(path, f'{size} bytes, more than a picture of data.max_pixels = {options.max_pixels}')
        data = Path(path).read_bytes()
    except OSError as e:
        raise UnreadableImage(path, e.strerror or str(e)) from e
    if not data:
        raise UnreadableImage(path, 'empty file')
    return data


def _is_dicom(start: bytes, path: Path | str) -> bool:
    """By content, with the preamble or without it (the first element's group is 2 or 8), or by suffix."""
    return (start[128:132] == b'DICM' or start[:2] in (b'\2\0', b'\x08\0', b'\0\x08')
            or Path(path).suffix.lower() in DICOM_SUFFIXES)


def _dicom(path: Path | str):
    """The DICOM reader, loaded only where such a file is met: it takes a quarter of a second and an extra package."""
    try:
        from relnet_jax.data import dicom
    except ImportError as e:
        raise UnreadableImage(path, f"a DICOM file, and {e.name} is missing: pip install 'relnet_jax[dicom]'") from e
    return dicom


def _header(file: BinaryIO, path: Path | str, options: ReadOptions) -> Header:
    file.seek(0)
    start = file.read(32)
    file.seek(0)
    reader = next((r for signature, place, r in FORMATS if start[place:place + len(signature)] == signature), None)
    if reader is None:
        raise ValueError('empty file' if not start else 'corrupt, truncated or not an image')
    try:
        with reader(file) as picture:
            width, height = picture.size
            orientation = _orientation(picture)
    except Exception as e:      # Pillow's parsers raise what they like on damaged headers
        raise ValueError(f'corrupt, truncated or not an image ({e})') from e
    if width * height > options.max_pixels:
        raise ValueError(f'{width} x {height} pixels, more than data.max_pixels = {options.max_pixels} allows')
    if reader is TiffImagePlugin.TiffImageFile and orientation > 4:
        width, height = height, width       # Pillow gives the displayed size here
    return Header(height, width, orientation)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation 1 to 8; 1 without one or with one that makes no sense."""
    try:
        if isinstance(picture, TiffImagePlugin.TiffImageFile):
            orientation = picture.tag_v2.get(EXIF_ORIENTATION, 1)
        else:
            exif = Image.Exif()
            exif.load(picture.info.get('exif', b''))
            orientation = exif.get(EXIF_ORIENTATION, 1)
    except Exception:           # damaged EXIF data are as good as none: the pixels are whole
        return 1
    return orientation if orientation in range(1, 9) else 1


def _decode(data: bytes, header: Header, options: ReadOptions) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as e:
        raise ValueError(f'cannot be decoded ({e.err})') from e
    if image is None:
        raise ValueError('corrupt, truncated or not an image')
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f'pixels of type {image.dtype}, expected 8 or 16 bits per sample')
    if data[:2] in (b'II', b'MM'):
        image = turn(image, INVERSE.get(header.orientation, header.orientation))    # OpenCV has turned it
    if image.ndim == 3 and image.shape[2] == 4:
        image = np.ascontiguousarray(image[:, :, :3])
    if image.dtype == np.uint16:
        image = window_16bit(image, options.window)
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels not in (1, 3):
        raise ValueError(f'{channels} channels, expected 1, 3 or 4')
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if channels == 1 else cv2.COLOR_BGR2RGB)
