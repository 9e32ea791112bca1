"""Codes as stored -> 8-bit grey levels, by what the header says they mean (DICOM PS3.3, C.7.6.3, C.11.1, C.11.2).

Everything is worked out once for each possible code, in floating point, and the picture is one look-up in that table.
pydicom's `apply_voi_lut` serves as the reference in the tests; it is not used, because it wraps what an 8-bit LUT does
not cover, turns a window around when RescaleSlope is negative, and keeps the scale of its output to itself.
"""
import numpy as np
from pydicom import Dataset

from relnet_jax.data.codestream import Refused
from relnet_jax.data.dicom.header import bits_stored, high_bit
from relnet_jax.data.grey import by_percentiles


def to_grey(codes: np.ndarray, header: Dataset, *, window: tuple[float, float]) -> np.ndarray:
    """uint8 [h, w] of `codes` uint8 or uint16 [h, w]: modality LUT or rescale, VOI LUT or window, inversion.

    Where the file gives neither VOI LUT nor window, 8-bit pixels stay as they are, and others are spread between the
    percentiles of `window` over the grey levels. Pixels of PixelPaddingValue have no part in that and become black.
    """
    stored = _stored_values(header)
    padding = _padding(header, stored)
    values = _modality(header, stored)
    if not np.all(np.isfinite(values)):
        raise Refused('RescaleSlope or RescaleIntercept is no finite number')
    if header.get('VOILUTSequence'):
        levels = _look_up(header.VOILUTSequence[0], values, header)
    elif header.get('WindowCenter') is not None and header.get('WindowWidth') is not None:
        levels = _windowed(header, values)
    elif bits_stored(header) == 8 and np.array_equal(values, np.arange(len(values)) & 0xFF):
        levels = values
    else:
        counts = np.bincount(codes.ravel(), minlength=len(values))
        levels = by_percentiles(values, np.where(padding, 0, counts), window)
    if header.PhotometricInterpretation == 'MONOCHROME1':
        levels = 255 - levels
    table = np.where(padding, 0, np.rint(levels)).astype(np.uint8)
    return table[codes]


def _stored_values(header: Dataset) -> np.ndarray:
    """int64 [256 or 65536]: the value of each code. Bits beyond BitsStored may hold anything, overlays for one."""
    stored = bits_stored(header)
    codes = np.arange(1 << header.BitsAllocated)
    values = (codes >> (high_bit(header) + 1 - stored)) & ((1 << stored) - 1)
    if header.get('PixelRepresentation') == 1:
        values = np.where(values >> (stored - 1), values - (1 << stored), values)
    return values


def _padding(header: Dataset, stored: np.ndarray) -> np.ndarray:
    """bool [codes]: which are no pixels of the film (PixelPaddingValue, to PixelPaddingRangeLimit if given)."""
    first = header.get('PixelPaddingValue')
    if first is None:
        return np.zeros(len(stored), bool)
    last = header.get('PixelPaddingRangeLimit')
    first, last = sorted((int(first), int(first if last is None else last)))
    if stored.min() <= first and last <= stored.max():
        return (first <= stored) & (stored <= last)
    codes = np.arange(len(stored))      # a value that only fits into the unused bits
    return (first % len(codes) <= codes) & (codes <= last % len(codes))


def _modality(header: Dataset, stored: np.ndarray) -> np.ndarray:
    if header.get('ModalityLUTSequence'):
        return _entries_at(header.ModalityLUTSequence[0], stored, header)[0]
    slope, intercept = header.get('RescaleSlope'), header.get('RescaleIntercept')
    return stored * float(1 if slope is None else slope) + float(0 if intercept is None else intercept)


def _entries_at(item: Dataset, values: np.ndarray, header: Dataset) -> tuple[np.ndarray, int]:
    """(entry of the LUT for each value, the largest entry). Values outside of the LUT get its first or last entry."""
    count, first, _ = (int(v) for v in item.LUTDescriptor)
    count = count or 65536
    if first > 32767 and values.min() < 0:
        first -= 65536      # signed, and read as unsigned
    entries = item.LUTData
    if isinstance(entries, bytes):
        wide = len(entries) >= 2 * count
        order = '>' if header.original_encoding[1] is False else '<'
        entries = np.frombuffer(entries, f'{order}u2' if wide else 'u1')
    entries = np.atleast_1d(np.asarray(entries, np.int64))[:count]
    if len(entries) < count:
        raise Refused(f'a LUT of {count} entries holds {len(entries)}')
    return entries[np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)], int(entries.max())


def _look_up(item: Dataset, values: np.ndarray, header: Dataset) -> np.ndarray:
    """Levels 0..255 by a VOI LUT. Full range is what the largest entry has bits for: some LUTs declare 16 for 12."""
    entries, largest = _entries_at(item, values, header)
    return entries * (255 / max((1 << largest.bit_length()) - 1, 1))


def _windowed(header: Dataset, values: np.ndarray) -> np.ndarray:
    """Levels 0..255 by the first window (C.11.2.1.2 and C.11.2.1.3)."""
    center, width = (float(_first(header[keyword].value)) for keyword in ('WindowCenter', 'WindowWidth'))
    function = str(header.get('VOILUTFunction') or 'LINEAR').upper()
    if function not in ('LINEAR', 'LINEAR_EXACT', 'SIGMOID'):
        raise Refused(f"VOILUTFunction '{function}', expected LINEAR, LINEAR_EXACT or SIGMOID")
    if not (np.isfinite(center) and np.isfinite(width) and width > 0 and (function != 'LINEAR' or width >= 1)):
        raise Refused(f'no {function} window has center {center:g} and width {width:g} (data.dicom_overrides can '
                      f'replace WindowCenter and WindowWidth, or remove them by null)')
    if function == 'SIGMOID':
        return 255 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == 'LINEAR':
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.where(values > center, 255.0, 0.0)
    return np.clip((values - center) / width + 0.5, 0, 1) * 255


def _first(value):
    """Of several windows the first."""
    return value[0] if not isinstance(value, (str, float, int)) and len(value) else value
