"""The header of a DICOM file, as far as the picture needs it, and the reasons to refuse one."""
import warnings
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any, BinaryIO

from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from relnet_jax.data.codestream import Refused

# What pydicom warns of either does not matter here or is refused with a reason below.
warnings.filterwarnings('ignore', module='pydicom')

UIDS = ('StudyInstanceUID', 'SeriesInstanceUID', 'SOPInstanceUID')     # the names by which archives know a film
KEYWORDS = [
    *UIDS, 'SOPClassUID', 'SamplesPerPixel', 'PhotometricInterpretation', 'NumberOfFrames', 'Rows', 'Columns',
    'BitsAllocated', 'BitsStored', 'HighBit', 'PixelRepresentation', 'PixelPaddingValue', 'PixelPaddingRangeLimit',
    'WindowCenter', 'WindowWidth', 'VOILUTFunction', 'VOILUTSequence', 'RescaleIntercept', 'RescaleSlope',
    'ModalityLUTSequence', 'FloatPixelData', 'DoubleFloatPixelData', 'PixelData']
TAGS = [tag_for_keyword(keyword) for keyword in KEYWORDS]
INFLATED_EXTRA = 1 << 26    # bytes of a deflated file that may be no pixels


def read_header(file: BinaryIO, *, pixels: bool, max_pixels: int) -> Dataset:
    """The elements named in KEYWORDS, PixelData only if `pixels`; with or without preamble and file meta information.

    A deflated file is inflated to at most what `max_pixels` pixels of 16 bits take. Raises Refused, or whatever pydicom
    raises for bytes that are no DICOM.
    """
    syntax = _transfer_syntax(file)
    if syntax == DeflatedExplicitVRLittleEndian:
        inflated = BytesIO(_inflate(file.read(), limit=2 * max_pixels + INFLATED_EXTRA))
        header = read_dataset(inflated, is_implicit_VR=False, is_little_endian=True, specific_tags=TAGS)
        if not pixels and 'PixelData' in header:
            del header.PixelData
        return header
    file.seek(0)
    return dcmread(file, force=True, stop_before_pixels=not pixels, specific_tags=TAGS)


def _transfer_syntax(file: BinaryIO) -> UID | None:
    """What the file meta information says, None without one; leaves `file` where the data set begins."""
    read_preamble(file, force=True)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True,
                        stop_when=lambda tag, vr, length: tag >> 16 != 2)
    return meta.get('TransferSyntaxUID')


def _inflate(data: bytes, *, limit: int) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = stream.decompress(data, limit)
    if stream.unconsumed_tail:
        raise Refused(f'deflated DICOM of more than {limit} bytes')
    if not stream.eof:
        raise Refused('deflated DICOM that is cut off')
    return inflated


def corrected(header: Dataset, tags: Mapping[str, Any]) -> Dataset:
    """The header with the elements `tags` (keyword -> value, None = removed) in place of its own."""
    for keyword, value in tags.items():
        if keyword in header:
            delattr(header, keyword)
        if value is not None:
            try:
                setattr(header, keyword, value)
            except Exception as e:
                raise Refused(f'data.dicom_overrides: {keyword} cannot be {value!r}') from e
    return header


def size_of(header: Dataset, *, max_pixels: int) -> tuple[int, int]:
    """(rows, columns). Raises Refused without them, and above `max_pixels`."""
    rows, columns = header.get('Rows'), header.get('Columns')
    if rows is None or columns is None:
        raise Refused(f'{_kind(header)} without Rows and Columns: no picture')
    if rows <= 0 or columns <= 0:
        raise Refused(f'{_kind(header)}: {columns} x {rows} pixels')
    if rows * columns > max_pixels:
        raise Refused(f'{columns} x {rows} pixels, more than data.max_pixels = {max_pixels} allows')
    return rows, columns


def _kind(header: Dataset) -> str:
    """What the file calls itself, as 'Computed Radiography Image Storage'."""
    meta = getattr(header, 'file_meta', Dataset())
    return UID(header.get('SOPClassUID') or meta.get('MediaStorageSOPClassUID') or '').name or 'DICOM without SOP class'


def check_picture(header: Dataset, *, max_pixels: int) -> None:
    """Raises Refused unless the header describes one grey picture of 8 to 16 bits that is there."""
    kind = _kind(header)
    if 'FloatPixelData' in header or 'DoubleFloatPixelData' in header:
        raise Refused(f'{kind}: pixels in floating point, expected whole numbers')
    if 'PixelData' not in header:
        raise Refused(f'{kind} without PixelData: cut off, or no picture')
    if int(header.get('NumberOfFrames') or 1) != 1:
        raise Refused(f'{kind}: {header.NumberOfFrames} frames, expected a single picture')
    size_of(header, max_pixels=max_pixels)
    missing = [keyword for keyword in ('BitsAllocated', 'PhotometricInterpretation') if header.get(keyword) is None]
    if missing:
        raise Refused(f'{kind}: the header lacks {", ".join(missing)}')
    photometric, samples = header.PhotometricInterpretation, header.get('SamplesPerPixel') or 1
    if photometric not in ('MONOCHROME1', 'MONOCHROME2') or samples != 1:
        raise Refused(f'{kind}: {photometric} with {samples} samples per pixel, expected grey (MONOCHROME1 or 2)')
    if header.BitsAllocated not in (8, 16):
        raise Refused(f'{kind}: BitsAllocated {header.BitsAllocated}, expected 8 or 16')
    stored, high = bits_stored(header), high_bit(header)
    if not 1 <= stored <= high + 1 <= header.BitsAllocated:
        raise Refused(f'{kind}: BitsStored {stored} and HighBit {high} do not fit BitsAllocated '
                      f'{header.BitsAllocated}')


def bits_stored(header: Dataset) -> int:
    return int(header.get('BitsStored') or header.BitsAllocated)


def high_bit(header: Dataset) -> int:
    high = header.get('HighBit')
    return bits_stored(header) - 1 if high is None else int(high)
