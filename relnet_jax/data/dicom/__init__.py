"""DICOM files of one grey picture as uint8 arrays, bones bright, or the reason why a file holds no such picture.

The bytes become a header that is checked before any pixel is decoded (`header`), the pixel data become codes as stored
(`pixels`, compressed ones once `data.codestream` has seen them), and these become grey levels by what the header says
of their meaning (`grey`). Files come from strangers: sizes are bounded before anything is allocated, and whatever a
parser may stumble over ends as a ValueError with the reason.

Needs the extra packages `relnet_jax[dicom]`: pydicom, and imagecodecs for the compressed forms. Measured on damaged
streams: GDCM, which pydicom would use, ends the process by a C++ exception, pylibjpeg's RLE by a Rust panic.
"""
import io
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from relnet_jax.data.codestream import Refused
from relnet_jax.data.dicom.grey import to_grey
from relnet_jax.data.dicom.header import UIDS, check_picture, corrected, read_header, size_of
from relnet_jax.data.dicom.pixels import read_codes


def read(data: bytes, *, window: tuple[float, float], max_pixels: int, tags: Mapping[str, Any]) -> np.ndarray:
    """uint8 [h, w] of a file's bytes: modality LUT or rescale, VOI LUT or window, then inversion of MONOCHROME1.

    window: percentiles between which the grey levels are spread if the file says nothing of them. tags: header
    elements that replace the file's own (see `read_options`). Raises ValueError with the reason if it is no single grey
    picture of 8 to 16 bits and at most `max_pixels`, is damaged, or contradicts itself.
    """
    try:
        header = corrected(read_header(io.BytesIO(data), pixels=True, max_pixels=max_pixels), tags)
        check_picture(header, max_pixels=max_pixels)
        return to_grey(read_codes(header), header, window=window)
    except Refused:
        raise
    except Exception as e:      # parsers raise what they like on bytes that are no DICOM
        raise ValueError(_damaged(e)) from e


def read_size(file: BinaryIO, *, max_pixels: int) -> tuple[int, int]:
    """(height, width) of an open file, without reading its pixel data. Raises ValueError with the reason."""
    try:
        return size_of(read_header(file, pixels=False, max_pixels=max_pixels), max_pixels=max_pixels)
    except Refused:
        raise
    except Exception as e:
        raise ValueError(_damaged(e)) from e


def read_uids(file: BinaryIO, *, max_pixels: int) -> dict[str, str]:
    """StudyInstanceUID, SeriesInstanceUID and SOPInstanceUID of an open file, '' where it lacks one. Raises ValueError
    with the reason."""
    try:
        header = read_header(file, pixels=False, max_pixels=max_pixels)
        return {keyword: str(header.get(keyword) or '') for keyword in UIDS}
    except Refused:
        raise
    except Exception as e:
        raise ValueError(_damaged(e)) from e


def _damaged(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return 'DICOM sequences nested too deeply'
    return f'damaged DICOM ({type(error).__name__}: {str(error)[:200]})'
