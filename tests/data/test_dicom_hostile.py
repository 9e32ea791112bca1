"""DICOM files made to hurt: the answer is a picture or UnreadableImage, soon and in little memory."""
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from relnet_jax.data.images import UnreadableImage, image_size, read_image
from relnet_jax.data.read_options import ReadOptions
from tests.data.dicom_files import ENCODERS, dicom, write_dicom

FILM = (np.add.outer(np.arange(96), np.arange(128)) * 15 + np.random.default_rng(0).integers(0, 300, (96, 128)))
FORMS = [uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLosslessSV1,
         uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEGBaseline8Bit]


def film_of(syntax) -> np.ndarray:
    return (FILM // 16).astype(np.uint8) if syntax == uid.JPEGBaseline8Bit else FILM.astype(np.uint16)


def refused(path, reason: str, *, seconds: float = 2, megabytes: float = 64, **options):
    """`path` is refused for that reason, within these limits."""
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(UnreadableImage, match=f'{path.name}: .*({reason})'):
        read_image(path, ReadOptions(**options))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - start < seconds and peak < megabytes * 1e6


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, *ENCODERS, uid.RLELossless], ids=lambda s: s.keyword)
def test_declared_pixels_are_limited_before_anything_is_decoded(tmp_path, syntax):
    path = write_dicom(tmp_path / 'a.dcm', film_of(uid.JPEGBaseline8Bit))
    ds = pydicom.dcmread(path)
    ds.Rows = ds.Columns = 60_000
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax.is_encapsulated:
        ds.PixelData = encapsulate([b'\xff\xd8' + bytes(100)])
        ds['PixelData'].VR = 'OB'
    pydicom.dcmwrite(path, ds)
    refused(path, '60000 x 60000 pixels, more than data.max_pixels = 100000000 allows')


def test_the_limit_is_the_users(tmp_path):
    path = write_dicom(tmp_path / 'a.dcm', film_of(FORMS[0]))
    refused(path, '128 x 96 pixels, more than data.max_pixels = 12287 allows', max_pixels=96 * 128 - 1)
    assert read_image(path, ReadOptions(max_pixels=96 * 128)).shape == (96, 128, 3)


@pytest.mark.parametrize('syntax', FORMS, ids=lambda s: s.keyword)
def test_a_file_cut_at_any_place_is_unreadable(tmp_path, syntax):
    whole = write_dicom(tmp_path / 'whole.dcm', film_of(syntax), syntax=syntax).read_bytes()
    path = tmp_path / 'a.dcm'
    end = 8 if syntax.is_encapsulated else 0        # bytes that close the sequence: without them all pixels are there
    for length in [*range(0, len(whole) - end, max(len(whole) // 60, 1)), len(whole) - end - 2]:
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableImage, match='a.dcm: '):
            read_image(path)


def test_a_real_file_cut_at_any_kilobyte_is_unreadable(tmp_path, real_data):
    path = tmp_path / 'a.dcm'
    for name in ('RG3_J2KI.dcm', 'vlut_04.dcm'):
        whole = (real_data / 'dicom_samples' / name).read_bytes()
        for length in range(0, len(whole), 1024):
            path.write_bytes(whole[:length])
            with pytest.raises(UnreadableImage, match='a.dcm: '):
                read_image(path)


@pytest.mark.parametrize('syntax', FORMS, ids=lambda s: s.keyword)
def test_flipped_bytes_give_a_picture_or_a_reason(tmp_path, syntax):
    whole = write_dicom(tmp_path / 'whole.dcm', film_of(syntax), syntax=syntax).read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / 'a.dcm'
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(132, len(damaged) if rng.random() < 0.5 else 900, 4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        for read in (read_image, image_size):
            try:
                assert len(read(path)) in range(1, 70_000)
            except UnreadableImage as e:
                assert 0 < len(e.reason) < 1000


def nested(depth: int, *, undefined: bool) -> bytes:
    """A data set of sequences in one another, explicit little endian."""
    if undefined:
        head = struct.pack('<HH2sHLHHL', 0x0040, 0xA730, b'SQ', 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
        tail = struct.pack('<HHL', 0xFFFE, 0xE00D, 0) + struct.pack('<HHL', 0xFFFE, 0xE0DD, 0)
        return head * depth + tail * depth
    data = b''
    for _ in range(depth):
        item = struct.pack('<HHL', 0xFFFE, 0xE000, len(data)) + data
        data = struct.pack('<HH2sHL', 0x0040, 0xA730, b'SQ', 0, len(item)) + item
    return data


@pytest.mark.parametrize('depth', [100, 10_000, 200_000])
def test_sequences_nested_in_one_another_are_bounded(tmp_path, depth):
    whole = write_dicom(tmp_path / 'a.dcm', film_of(FORMS[0])).read_bytes()
    place = whole.index(struct.pack('<HH', 0x7FE0, 0x0010))
    path = tmp_path / 'b.dcm'
    path.write_bytes(whole[:place] + nested(depth, undefined=True) + whole[place:])
    if depth == 100:
        np.testing.assert_array_equal(read_image(path), read_image(tmp_path / 'a.dcm'))
    else:
        refused(path, 'DICOM sequences nested too deeply|damaged DICOM', seconds=10)
    path.write_bytes(whole[:place] + nested(min(depth, 3000), undefined=False) + whole[place:])
    np.testing.assert_array_equal(read_image(path), read_image(tmp_path / 'a.dcm'))      # jumped over


def test_a_deflated_file_is_inflated_no_further_than_its_pixels_may_take(tmp_path):
    path = write_dicom(tmp_path / 'a.dcm', film_of(FORMS[0]), syntax=uid.DeflatedExplicitVRLittleEndian)
    whole = path.read_bytes()
    start = 144 + struct.unpack('<L', whole[140:144])[0]
    data = zlib.decompress(whole[start:], -zlib.MAX_WBITS)
    bomb = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    path.write_bytes(whole[:start] + bomb.compress(data + bytes(1 << 28)) + bomb.flush())
    refused(path, 'deflated DICOM of more than', max_pixels=100_000, megabytes=200)


def jpeg_2000(side: int, *, precinct: int = 0, tile: int = 0) -> bytes:
    """A JPEG 2000 code stream of `side` x `side` black pixels in few bytes."""
    size = struct.pack('>HIIIIIIIIH3B', 0, side, side, 0, 0, tile or side, tile or side, 0, 0, 1, 7, 1, 1)
    style = bytes([1, 0, 0, 1, 0, 0, 4, 4, 0, 1, precinct * 17])
    segments = b''.join(marker + struct.pack('>H', len(content) + 2) + content for marker, content in (
        (b'\xff\x51', size), (b'\xff\x52', style), (b'\xff\x5c', b'\x40\x40')))
    data = b'\xff\x93' + bytes(50)
    part = b'\xff\x90' + struct.pack('>HHIBB', 10, 0, 12 + len(data), 0, 1) + data
    return b'\xff\x4f' + segments + part + b'\xff\xd9'


def test_a_small_jpeg_2000_cannot_ask_for_gigabytes(tmp_path):
    black = np.zeros((2000, 2000), np.uint8)
    assert read_image(write_dicom(tmp_path / 'a.dcm', black, syntax=uid.JPEG2000, stream=jpeg_2000(2000, precinct=15))
                      ).shape == (2000, 2000, 3)
    path = write_dicom(tmp_path / 'b.dcm', black, syntax=uid.JPEG2000, stream=jpeg_2000(2000, precinct=0))
    refused(path, 'precincts of less than 8 pixels a side')
    path = write_dicom(tmp_path / 'c.dcm', black, syntax=uid.JPEG2000, stream=jpeg_2000(2000, precinct=15, tile=2))
    refused(path, 'in tiles of 2 x 2')
    (tmp_path / 'd.jp2').write_bytes(jpeg_2000(2000, precinct=0))
    refused(tmp_path / 'd.jp2', 'precincts of less than 8 pixels a side')


def test_a_jpeg_of_a_thousand_scans_is_refused(tmp_path):
    stream = bytes(ENCODERS[uid.JPEGBaseline8Bit](film_of(uid.JPEGBaseline8Bit)))
    scan = stream[stream.index(b'\xff\xda'):-2]
    path = write_dicom(tmp_path / 'a.dcm', film_of(uid.JPEGBaseline8Bit), syntax=uid.JPEGBaseline8Bit,
                       stream=stream[:-2] + scan * 1000 + b'\xff\xd9')
    refused(path, 'JPEG of more than 100 scans')


def test_run_lengths_fill_no_more_than_the_picture(tmp_path):
    bomb = struct.pack('<16L', 1, 64, *[0] * 14) + bytes([129, 7]) * 2_000_000      # 256 MB
    path = write_dicom(tmp_path / 'a.dcm', film_of(uid.JPEGBaseline8Bit), syntax=uid.RLELossless)
    ds = pydicom.dcmread(path)
    ds.PixelData = encapsulate([bomb])
    pydicom.dcmwrite(path, ds)
    refused(path, 'damaged DICOM')


def test_a_header_that_claims_huge_values_reads_no_more_than_the_file(tmp_path):
    ds = dicom(film_of(FORMS[0]))
    path = tmp_path / 'a.dcm'
    pydicom.dcmwrite(path, ds)
    whole = path.read_bytes()
    place = whole.index(struct.pack('<HH', 0x7FE0, 0x0010)) + 8
    path.write_bytes(whole[:place] + struct.pack('<L', 0xFFFFFFF0) + whole[place + 4:-2])
    refused(path, 'PixelData of 24574 bytes')
