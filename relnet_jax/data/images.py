"""Image files as uint8 RGB arrays: PNG of 8 or 16 bit, JPEG, and whatever else OpenCV decodes."""
import math
from pathlib import Path

import cv2
import numpy as np

from relnet_jax.errors import UserError

# OpenCV's complaints come as UnreadableImage, with the name of the file.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class UnreadableImage(UserError):
    """The file at `path` is missing, damaged or not an image; `reason` says which."""

    def __init__(self, path: Path | str, reason: str):
        super().__init__(f'{path}: {reason}')
        self.path = path
        self.reason = reason


def read_image(path: Path | str, *, window: tuple[float, float] = (0.5, 99.5)) -> np.ndarray:
    """The file's stored pixels as uint8 [h, w, 3], RGB.

    Grey is replicated. Transparency is dropped, not composited: in medical PNGs it carries no picture. An EXIF
    orientation is not applied: annotations refer to the stored pixels. 16 bits are mapped to 8 by `window_16bit`.
    Raises UnreadableImage for missing, truncated or corrupt files and for other pixel types.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise UnreadableImage(path, e.strerror or str(e)) from e
    if not data:
        raise UnreadableImage(path, 'empty file')
    if data[:3] == b'\xff\xd8\xff' and data.find(b'\xff\xd9', data.rfind(b'\xff\xda')) < 0:
        # Some OpenCV versions fill the lost part of a truncated JPEG with grey and say nothing.
        raise UnreadableImage(path, f'truncated JPEG, {len(data)} bytes without an end marker')
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as e:
        raise UnreadableImage(path, f'cannot be decoded ({e.err})') from e
    if image is None:
        raise UnreadableImage(path, 'corrupt, truncated or not an image')
    if image.dtype not in (np.uint8, np.uint16):
        raise UnreadableImage(path, f'pixels of type {image.dtype}, expected 8 or 16 bits per sample')
    if image.ndim == 3 and image.shape[2] == 4:
        image = np.ascontiguousarray(image[:, :, :3])
    if image.dtype == np.uint16:
        image = window_16bit(image, window)
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels not in (1, 3):
        raise UnreadableImage(path, f'{channels} channels, expected 1, 3 or 4')
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if channels == 1 else cv2.COLOR_BGR2RGB)


def window_16bit(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """uint16 -> uint8 of the same shape: values from the lower to the upper percentile of `window` spread over 0..255.

    A percentile is the smallest value that so many percent of all samples do not exceed; one value alone becomes 0.
    """
    not_above = np.cumsum(np.bincount(image.ravel(), minlength=65536))
    ranks = [max(1, math.ceil(image.size * percent / 100)) for percent in window]
    low, high = (int(value) for value in np.searchsorted(not_above, ranks))
    table = (np.arange(65536, dtype=np.float64) - low) * (255 / max(high - low, 1))
    return np.clip(np.rint(table), 0, 255).astype(np.uint8)[image]
