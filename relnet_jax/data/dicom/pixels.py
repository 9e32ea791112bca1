"""PixelData -> the codes as stored, uint8 or uint16 [rows, columns]: plain, run-length encoded, or a JPEG of some kind.

A code is the bit pattern of a pixel; what value it stands for (sign, unused bits) is `grey`'s affair.
"""
from collections.abc import Callable

import imagecodecs
import numpy as np
import simplejpeg
from pydicom import Dataset, uid
from pydicom.encaps import generate_frames

from relnet_jax.data.codestream import Frame, Refused, jpeg2000_frame, jpeg_frame

JPEG = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1}
JPEG_LS = {uid.JPEGLSLossless, uid.JPEGLSNearLossless}
JPEG_2000 = {uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K}


def read_codes(header: Dataset) -> np.ndarray:
    """uint8 or uint16 [rows, columns], by BitsAllocated. Raises Refused if the data disagree with the header."""
    dtype = np.dtype(f'u{header.BitsAllocated // 8}')
    shape = int(header.Rows), int(header.Columns)
    syntax = getattr(header, 'file_meta', Dataset()).get('TransferSyntaxUID')
    if syntax is None or not syntax.is_transfer_syntax or not syntax.is_encapsulated:
        return _plain(header, dtype).reshape(shape)
    if syntax not in JPEG | JPEG_LS | JPEG_2000 | {uid.RLELossless}:
        raise Refused(f'transfer syntax {syntax.name} is not read')
    stream = next(generate_frames(header.PixelData, number_of_frames=1))
    if syntax == uid.RLELossless:
        return _run_lengths(stream, shape, dtype)
    frame = jpeg2000_frame(stream) if syntax in JPEG_2000 else jpeg_frame(stream)
    if frame[:3] != (*shape, 1) or frame.precision > header.BitsAllocated:
        raise Refused(f'compressed are {frame.width} x {frame.height} pixels of {frame.components} samples of '
                      f'{frame.precision} bits, but the header says {shape[1]} x {shape[0]} of one sample of '
                      f'{header.BitsAllocated}')
    codes = _decoder(syntax, frame)(stream)
    if codes.shape != shape or codes.dtype.kind not in 'iu' or codes.dtype.itemsize > dtype.itemsize:
        raise Refused(f'decoded to {codes.dtype} {codes.shape}, the header says {dtype} {shape}')
    return codes.astype(dtype)      # negative ones wrap to their bit pattern


def _decoder(syntax: uid.UID, frame: Frame) -> Callable[[bytes], np.ndarray]:
    if syntax in JPEG_2000:
        return imagecodecs.jpeg2k_decode
    if syntax in JPEG_LS:
        return imagecodecs.jpegls_decode
    if frame.precision == 8 and not frame.lossless:
        return lambda stream: simplejpeg.decode_jpeg(stream, 'GRAY')[:, :, 0]      # takes damage inside for an error
    return imagecodecs.jpeg8_decode     # of any precision, lossless too


def _plain(header: Dataset, dtype: np.dtype) -> np.ndarray:
    data, count = header.PixelData, int(header.Rows) * int(header.Columns)
    needed = count * dtype.itemsize
    if len(data) not in (needed, needed + needed % 2):      # values are padded to an even length
        raise Refused(f'PixelData of {len(data)} bytes, but {header.Columns} x {header.Rows} pixels of '
                      f'{header.BitsAllocated} bits are {needed}')
    big_endian = header.original_encoding[1] is False
    if big_endian and dtype.itemsize == 1 and header['PixelData'].VR == 'OW':       # words of two pixels, swapped
        return np.frombuffer(data, '>u2').astype('<u2').view(np.uint8)[:count]
    return np.frombuffer(data, dtype.newbyteorder('>' if big_endian else '<'), count).astype(dtype)


def _run_lengths(stream: bytes, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """PackBits, one segment for each byte of a pixel, the highest first (DICOM PS3.5, annex G)."""
    table = np.frombuffer(stream[:64], '<u4')
    if len(table) < 16 or table[0] != dtype.itemsize:
        raise Refused(f'RLE of {table[0] if len(table) else 0} segments, pixels of {8 * dtype.itemsize} bits have '
                      f'{dtype.itemsize}')
    bounds = [*table[1:1 + dtype.itemsize].tolist(), len(stream)]
    if not all(64 <= a < b for a, b in zip(bounds, bounds[1:])):
        raise Refused(f'RLE segments at {bounds[:-1]} in {len(stream)} bytes')
    codes = np.zeros(shape[0] * shape[1], dtype)
    for start, end in zip(bounds, bounds[1:]):
        buffer = np.empty(len(codes) + 128, np.uint8)       # more than that is an error: bytes can grow 64-fold
        segment = imagecodecs.packbits_decode(stream[start:end], out=buffer)
        if len(segment) < len(codes):
            raise Refused(f'RLE segment of {len(segment)} pixels, expected {len(codes)}')
        codes = (codes << 8 if dtype.itemsize == 2 else codes) | segment[:len(codes)]
    return codes.reshape(shape)
