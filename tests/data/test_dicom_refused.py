"""DICOM files that hold no single grey picture are refused with the reason."""
import sys
import warnings

import numpy as np
import pydicom
import pytest
from pydicom import uid

from relnet_jax.data.images import UnreadableImage, image_size, read_image
from tests.data.dicom_files import dicom, lut, write_dicom
from tests.data.dicom_grey import FILM

SMALL = FILM[:8, :8]
REFUSED = {
    'frames': (dict(NumberOfFrames=3), '3 frames, expected a single picture'),
    'colour': (dict(SamplesPerPixel=3, PhotometricInterpretation='RGB', PlanarConfiguration=0), 'RGB with 3 samples'),
    'palette': (dict(PhotometricInterpretation='PALETTE COLOR'), 'PALETTE COLOR'),
    'no_photometric': (dict(PhotometricInterpretation=None), 'the header lacks PhotometricInterpretation'),
    'no_rows': (dict(Rows=None), 'without Rows and Columns: no picture'),
    'zero_rows': (dict(Rows=0), '8 x 0 pixels'),
    '32_bits': (dict(BitsAllocated=32), 'BitsAllocated 32, expected 8 or 16'),
    'more_bits_stored': (dict(BitsStored=16, BitsAllocated=8, HighBit=15), 'do not fit BitsAllocated 8'),
    'short': (dict(PixelData=bytes(126)), 'PixelData of 126 bytes, but 8 x 8 pixels of 16 bits are 128'),
    'long': (dict(PixelData=bytes(130)), 'PixelData of 130 bytes, but 8 x 8 pixels of 16 bits are 128'),
    'no_pixels': (dict(PixelData=None), 'Secondary Capture Image Storage without PixelData'),
    'width_0': (dict(WindowCenter=100, WindowWidth=0), 'no LINEAR window has center 100 and width 0'),
    'function': (dict(WindowCenter=1, WindowWidth=9, VOILUTFunction='CUBIC'), "VOILUTFunction 'CUBIC'"),
    'lut_short': (dict(VOILUTSequence=[lut(np.zeros(9), 0, 8)]), 'damaged|a LUT of'),
    'float': (dict(FloatPixelData=bytes(256), PixelData=None), 'pixels in floating point')}
REFUSED['lut_short'][0]['VOILUTSequence'][0].LUTDescriptor = [900, 0, 16]


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_no_single_grey_picture_is_refused_with_the_reason(tmp_path, name):
    elements, reason = REFUSED[name]
    if 'PixelData' in elements and elements['PixelData'] is None:
        ds = dicom(SMALL, **elements | dict(PixelData=b''))
        del ds.PixelData
    else:
        ds = dicom(SMALL, **elements)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')     # pydicom's, at writing
        pydicom.dcmwrite(tmp_path / 'a.dcm', ds)
    with pytest.raises(UnreadableImage, match=f'a.dcm: .*({reason})'):
        read_image(tmp_path / 'a.dcm')


@pytest.mark.parametrize('syntax, reason', [
    (uid.MPEG2MPML, 'transfer syntax MPEG2 .* is not read'), (uid.RLELossless, 'RLE of'),
    (uid.JPEGBaseline8Bit, 'no JPEG stream'), (uid.JPEG2000, 'no JPEG 2000 code stream')],
    ids=lambda value: getattr(value, 'keyword', ''))
def test_streams_of_another_kind_are_refused(tmp_path, syntax, reason):
    path = write_dicom(tmp_path / 'a.dcm', SMALL, syntax=syntax, stream=b'no stream at all' * 10)
    with pytest.raises(UnreadableImage, match=f'a.dcm: {reason}'):
        read_image(path)


def test_a_stream_of_another_size_than_the_header_is_refused(tmp_path):
    for syntax in (uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGLosslessSV1):
        path = write_dicom(tmp_path / 'a.dcm', SMALL, syntax=syntax, Rows=9)
        with pytest.raises(UnreadableImage, match='compressed are 8 x 8 pixels .* the header says 8 x 9'):
            read_image(path)
    path = write_dicom(tmp_path / 'a.dcm', SMALL, syntax=uid.RLELossless)
    ds = pydicom.dcmread(path)
    ds.Rows = 9
    ds.save_as(path)
    with pytest.raises(UnreadableImage, match='RLE segment of 64 pixels, expected 72'):
        read_image(path)


@pytest.mark.parametrize('kind', [uid.BasicTextSRStorage, uid.EncapsulatedPDFStorage, uid.RTPlanStorage],
                         ids=lambda kind: kind.keyword)
def test_reports_and_documents_are_named(tmp_path, kind):
    path = write_dicom(tmp_path / 'a.dcm', None, SOPClassUID=kind, EncapsulatedDocument=b'%PDF-1.4')
    with pytest.raises(UnreadableImage, match=f'a.dcm: {kind.name} without PixelData'):
        read_image(path)
    with pytest.raises(UnreadableImage, match=f'a.dcm: {kind.name} without Rows and Columns: no picture'):
        image_size(path)


def test_the_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / 'a.dcm', SMALL)
    for name in [name for name in sys.modules if name.startswith('relnet_jax.data.dicom')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr('relnet_jax.data.dicom', raising=False)
    monkeypatch.setitem(sys.modules, 'pydicom', None)
    for read in (read_image, image_size):
        with pytest.raises(UnreadableImage, match=r"a.dcm: .*pydicom is missing: pip install 'relnet_jax\[dicom\]'"):
            read(path)
