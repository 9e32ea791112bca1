"""DICOM as it comes: every way of storing and showing a grey picture, against pydicom's own pipeline."""
import re
import sys
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder

from relnet_jax.data.images import UnreadableImage, image_size, read_image
from relnet_jax.data.read_options import ReadOptions, read_options
from tests.data.dicom_files import ENCODERS, dicom, lut, write_dicom

RNG = np.random.default_rng(0)
FILM = (np.add.outer(np.arange(48), np.arange(64)) * 30 + RNG.integers(0, 300, (48, 64))).astype(np.uint16)  # 12 bits
SHIPPED = Path(pydicom.__file__).parent / 'data' / 'test_files'


def grey(path, **options) -> np.ndarray:
    image = read_image(path, ReadOptions(**options))
    assert image.dtype == np.uint8 and image.shape == (*image_size(path), 3)
    np.testing.assert_array_equal(image, image[:, :, :1].repeat(3, axis=2))
    return image[:, :, 0]


def assert_rounded(found: np.ndarray, exact: np.ndarray):
    """Every level is a nearest whole number: halves may go either way."""
    assert found.shape == exact.shape and np.abs(found - exact).max() <= 0.5 + 1e-6


def by_pydicom(ds, *, plugin: str = '') -> np.ndarray:
    """float [h, w] in 0..255 by pydicom's decoders and look-ups, for files with a window or VOI LUT."""
    stored, _ = get_decoder(ds.file_meta.TransferSyntaxUID).as_array(ds, decoding_plugin=plugin)
    shown = apply_voi_lut(apply_modality_lut(stored, ds), ds).astype(float)
    bits, signed = ds.BitsStored, ds.PixelRepresentation
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if 'ModalityLUTSequence' in ds:
        low, high = 0, (1 << ds.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    if 'VOILUTSequence' in ds:
        low, high = 0, (1 << ds.VOILUTSequence[0].LUTDescriptor[2]) - 1
    else:
        slope, intercept = float(ds.get('RescaleSlope', 1)), float(ds.get('RescaleIntercept', 0))
        low, high = low * slope + intercept, high * slope + intercept
    shown = (shown - low) / (high - low) * 255
    return 255 - shown if ds.PhotometricInterpretation == 'MONOCHROME1' else shown


@pytest.mark.parametrize('photometric', ['MONOCHROME1', 'MONOCHROME2'])
@pytest.mark.parametrize('function', [None, 'LINEAR', 'LINEAR_EXACT', 'SIGMOID'])
@pytest.mark.parametrize('signed, bits, rescale', [
    (False, 12, None), (False, 12, (1.5, -300)), (True, 13, (0.25, 17)), (True, 16, None), (False, 16, (1, 0))])
def test_windows_give_the_grey_levels_of_pydicom(tmp_path, photometric, function, signed, bits, rescale):
    pixels = FILM.astype(np.int16) - 2000 if signed else FILM
    elements = dict(RescaleSlope=rescale[0], RescaleIntercept=rescale[1]) if rescale else {}
    path = write_dicom(tmp_path / 'a.dcm', pixels, BitsStored=bits, PhotometricInterpretation=photometric,
                       WindowCenter=900, WindowWidth=1700, VOILUTFunction=function, **elements)
    assert_rounded(grey(path), by_pydicom(pydicom.dcmread(path)))


def test_of_several_windows_the_first_counts(tmp_path):
    path = write_dicom(tmp_path / 'a.dcm', FILM, WindowCenter=[1000, 3000], WindowWidth=[800, 50],
                       WindowCenterWidthExplanation=['A', 'B'])
    alone = write_dicom(tmp_path / 'b.dcm', FILM, WindowCenter=1000, WindowWidth=800)
    np.testing.assert_array_equal(grey(path), grey(alone))


def test_a_window_of_width_1_is_a_threshold(tmp_path):
    path = write_dicom(tmp_path / 'a.dcm', np.arange(12, dtype=np.uint16).reshape(3, 4), WindowCenter=5, WindowWidth=1)
    np.testing.assert_array_equal(grey(path).ravel(), [0] * 5 + [255] * 7)       # x <= c - 0.5 is black


def test_a_negative_slope_turns_the_values_and_not_the_window(tmp_path):
    path = write_dicom(tmp_path / 'a.dcm', FILM, BitsStored=12, RescaleSlope=-1, RescaleIntercept=4095,
                       WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_array_equal(grey(path), np.rint((4095 - FILM.astype(float)) / 4095 * 255))


@pytest.mark.parametrize('first', [-2000, 0, 100])
def test_the_modality_lut_comes_before_the_window(tmp_path, first):
    pixels = FILM.astype(np.int16) - 2000
    entries = (np.arange(3000) ** 2 / 3000).astype(np.uint16)       # shorter than the range: its ends are repeated
    path = write_dicom(tmp_path / 'a.dcm', pixels, ModalityLUTSequence=[lut(entries, first, 16)], WindowCenter=900,
                       WindowWidth=1500)
    assert_rounded(grey(path), by_pydicom(pydicom.dcmread(path)))


@pytest.mark.parametrize('photometric', ['MONOCHROME1', 'MONOCHROME2'])
def test_the_voi_lut_takes_precedence_over_the_window(tmp_path, photometric):
    entries = (4095 * np.linspace(0, 1, 4096) ** 2).astype(np.uint16)
    path = write_dicom(tmp_path / 'a.dcm', FILM, BitsStored=12, PhotometricInterpretation=photometric, WindowCenter=1,
                       WindowWidth=1, VOILUTSequence=[lut(entries, 0, 12), lut(entries, 9, 12)])
    assert_rounded(grey(path), by_pydicom(pydicom.dcmread(path)))


def test_a_voi_lut_of_8_bits_covers_values_beyond_255(tmp_path):
    item = lut(np.zeros(4096), 0, 8)
    item.LUTData = (np.arange(4096) // 16).astype(np.uint8).tobytes()       # two entries a word
    path = write_dicom(tmp_path / 'a.dcm', FILM, BitsStored=12, VOILUTSequence=[item])
    np.testing.assert_array_equal(grey(path), FILM // 16)


def test_a_voi_lut_may_start_below_zero_and_declare_too_many_bits(tmp_path):
    item = lut(np.arange(4096), 0, 16)
    item.LUTDescriptor = [4096, 65536 - 1000, 16]       # as unsigned pixels make it read
    path = write_dicom(tmp_path / 'a.dcm', FILM, BitsStored=12, RescaleSlope=1, RescaleIntercept=-1000,
                       VOILUTSequence=[item])
    np.testing.assert_array_equal(grey(path), np.rint(FILM / 4095 * 255))


@pytest.mark.parametrize('photometric', ['MONOCHROME1', 'MONOCHROME2'])
def test_without_voi_the_true_pixels_are_windowed_by_percentiles(tmp_path, photometric):
    pixels = FILM + 500
    pixels[:, :20] = 60_000
    path = write_dicom(tmp_path / 'a.dcm', pixels, PixelPaddingValue=60_000, PhotometricInterpretation=photometric)
    low, high = (np.percentile(pixels[:, 20:], p, method='inverted_cdf') for p in (1, 99))
    expected = np.clip((pixels[:, 20:] - float(low)) / (high - low) * 255, 0, 255)
    found = grey(path, window=(1, 99))
    np.testing.assert_array_equal(found[:, 20:], np.rint(255 - expected if photometric == 'MONOCHROME1' else expected))
    assert not found[:, :20].any()


def test_padding_may_be_a_range(tmp_path):
    pixels = FILM.astype(np.int16)
    pixels[:5], pixels[5:9] = -2000, -1990
    path = write_dicom(tmp_path / 'a.dcm', pixels, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1985)
    found = grey(path)
    assert not found[:9].any() and found[9:].max() == 255


def test_8_bit_pixels_without_voi_stay_as_they_are(tmp_path):
    pixels = RNG.integers(30, 90, (20, 30), dtype=np.uint8)
    np.testing.assert_array_equal(grey(write_dicom(tmp_path / 'a.dcm', pixels)), pixels)
    inverted = write_dicom(tmp_path / 'b.dcm', pixels, PhotometricInterpretation='MONOCHROME1', RescaleSlope=1,
                           RescaleIntercept=0)
    np.testing.assert_array_equal(grey(inverted), 255 - pixels)


def test_bits_beyond_the_stored_ones_mean_nothing(tmp_path):
    window = dict(BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    expected = grey(write_dicom(tmp_path / 'a.dcm', FILM, **window))
    with_overlay = FILM | RNG.integers(0, 2, FILM.shape, dtype=np.uint16) << 15
    np.testing.assert_array_equal(grey(write_dicom(tmp_path / 'b.dcm', with_overlay, **window)), expected)
    shifted = write_dicom(tmp_path / 'c.dcm', FILM << 4, HighBit=15, **window)
    np.testing.assert_array_equal(grey(shifted), expected)


SYNTAXES = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian,
            uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLossless, uid.JPEGLosslessSV1,
            uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.HTJ2KLossless]


@pytest.mark.parametrize('syntax', SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize('kind', ['uint8', 'uint16', 'int16'])
def test_lossless_forms_hold_the_same_picture(tmp_path, syntax, kind):
    pixels = (FILM // 16 if kind == 'uint8' else FILM.astype(int) - 2000 * (kind == 'int16')).astype(kind)
    window = dict(WindowCenter=100, WindowWidth=200) if kind == 'uint8' else dict(WindowCenter=500, WindowWidth=3000)
    signed = kind == 'int16' and not (syntax in ENCODERS and syntax != uid.JPEG2000Lossless)    # JPEGs know no sign
    stream = pixels.view(np.uint16) if kind == 'int16' and not signed else pixels
    path = write_dicom(tmp_path / 'a.dcm', stream, syntax=syntax, PixelRepresentation=int(kind == 'int16'), **window)
    low = window['WindowCenter'] - 0.5 - (window['WindowWidth'] - 1) / 2
    expected = np.clip((pixels - low) / (window['WindowWidth'] - 1), 0, 1) * 255
    np.testing.assert_array_equal(grey(path), np.rint(expected))


def test_8_bit_words_of_a_big_endian_file_are_swapped(tmp_path):
    pixels = RNG.integers(0, 255, (20, 30), dtype=np.uint8)
    ds = dicom(pixels, syntax=uid.ExplicitVRBigEndian)
    ds.PixelData = pixels.tobytes()
    ds['PixelData'].VR = 'OB'
    pydicom.dcmwrite(tmp_path / 'a.dcm', ds)
    np.testing.assert_array_equal(grey(tmp_path / 'a.dcm'), pixels)
    ds.PixelData = np.frombuffer(pixels.tobytes(), '<u2').astype('>u2').tobytes()
    ds['PixelData'].VR = 'OW'
    pydicom.dcmwrite(tmp_path / 'b.dcm', ds)
    np.testing.assert_array_equal(grey(tmp_path / 'b.dcm'), pixels)


@pytest.mark.parametrize('syntax, bits', [(uid.JPEGBaseline8Bit, 8), (uid.JPEGExtended12Bit, 12)])
def test_lossy_jpeg_is_close(tmp_path, syntax, bits):
    smooth = (np.add.outer(np.arange(48), np.arange(64)) * (1 << bits) / 130).astype(f'u{(bits + 7) // 8}')
    path = write_dicom(tmp_path / 'a.dcm', smooth, syntax=syntax, BitsStored=bits, WindowCenter=1 << bits - 1,
                       WindowWidth=1 << bits)
    assert np.abs(grey(path) - smooth / ((1 << bits) - 1) * 255).max() < 4


def test_files_are_known_by_content_with_and_without_preamble(tmp_path):
    pixels = FILM.astype(np.uint8)
    expected = grey(write_dicom(tmp_path / 'a.dcm', pixels))
    (tmp_path / 'no_suffix').write_bytes((tmp_path / 'a.dcm').read_bytes())
    np.testing.assert_array_equal(grey(tmp_path / 'no_suffix'), expected)
    ds = dicom(pixels)
    for name, implicit, little in (('implicit', True, True), ('explicit', False, True), ('big', False, False)):
        with open(tmp_path / name, 'wb') as file:
            pydicom.dcmwrite(file, Dataset(ds), implicit_vr=implicit, little_endian=little)
        np.testing.assert_array_equal(grey(tmp_path / name), expected)


def test_wrong_tags_are_corrected_by_file(tmp_path):
    pixels = RNG.integers(0, 255, (20, 30), dtype=np.uint8)
    write_dicom(tmp_path / 'scanner7_1.dcm', pixels, PhotometricInterpretation='MONOCHROME1', WindowCenter=20,
                WindowWidth=5, VOILUTSequence=[lut(np.zeros(9), 0, 8)])
    (tmp_path / 'tags.json').write_text('{"scanner7*": {"PhotometricInterpretation": "MONOCHROME2"}, "*_1.dcm": '
                                        '{"WindowCenter": 128, "WindowWidth": 256, "VOILUTSequence": null}}')
    options = options_with(tmp_path / 'tags.json')
    np.testing.assert_array_equal(read_image(tmp_path / 'scanner7_1.dcm', options)[:, :, 0], pixels)
    assert not np.array_equal(grey(tmp_path / 'scanner7_1.dcm'), pixels)


def options_with(file) -> ReadOptions:
    from configs import base
    config = base.get_config()
    config.data.dicom_overrides = str(file)
    return read_options(config.data)


@pytest.mark.parametrize('text, message', [
    ('{', 'tags.json: not valid JSON'), ('[1]', r'expected \{file name pattern: \{keyword: value\}\}'),
    ('{"*.dcm": {"Rows": 7}}', r"'\*.dcm': \['Rows'\] cannot be corrected")])
def test_overrides_that_are_none_are_refused(tmp_path, text, message):
    (tmp_path / 'tags.json').write_text(text)
    with pytest.raises(ValueError, match=f'data.dicom_overrides: .*{message}'):
        options_with(tmp_path / 'tags.json')


def test_an_override_that_its_element_cannot_hold_is_named(tmp_path):
    write_dicom(tmp_path / 'a.dcm', FILM)
    (tmp_path / 'tags.json').write_text('{"*": {"WindowCenter": "middle", "WindowWidth": 7}}')
    with pytest.raises(UnreadableImage, match="a.dcm: data.dicom_overrides: WindowCenter cannot be 'middle'"):
        read_image(tmp_path / 'a.dcm', options_with(tmp_path / 'tags.json'))


def test_an_empty_window_is_none(tmp_path):
    path = write_dicom(tmp_path / 'a.dcm', FILM, WindowCenter='', WindowWidth='')
    np.testing.assert_array_equal(grey(path), grey(write_dicom(tmp_path / 'b.dcm', FILM)))


def test_a_signed_stream_of_8_bits_keeps_its_sign_in_words_of_16(tmp_path):
    pixels = (FILM % 200).astype(np.int16) - 100
    stream = imagecodecs.jpeg2k_encode(pixels.astype(np.int8), codecformat='j2k', reversible=True, level=0)
    path = write_dicom(tmp_path / 'a.dcm', pixels, syntax=uid.JPEG2000Lossless, stream=stream, WindowCenter=0.5,
                       WindowWidth=256)
    assert_rounded(grey(path), np.clip(pixels / 255 + 0.5, 0, 1) * 255)


def test_overrides_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='data.dicom_overrides: no file'):
        options_with(tmp_path / 'tags.json')


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


def test_the_size_is_read_without_the_pixels(tmp_path):
    path = write_dicom(tmp_path / 'a.dcm', FILM, syntax=uid.ExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes()[:600])
    assert image_size(path) == FILM.shape
    assert image_size(write_dicom(tmp_path / 'b.dcm', FILM, syntax=uid.DeflatedExplicitVRLittleEndian)) == FILM.shape


def refers_to_pixels(ds) -> bool:
    return ('PixelData' in ds and ds.get('NumberOfFrames', 1) == 1 and ds.get('SamplesPerPixel') == 1
            and ds.BitsAllocated in (8, 16) and ds.PhotometricInterpretation != 'PALETTE COLOR')


@pytest.mark.parametrize('path', [p for p in sorted(SHIPPED.rglob('*')) if p.suffix == '.dcm'], ids=lambda p: p.stem)
@pytest.mark.filterwarnings('ignore')
def test_the_files_that_pydicom_ships_are_right_or_refused(path):
    ds = pydicom.dcmread(path, force=True)
    unreadable = ('badVR', 'MR_truncated', 'MR_small_padded', 'JPEG2000-embedded-sequence-delimiter')
    try:
        wanted = refers_to_pixels(ds) and path.stem not in unreadable
    except ValueError:      # a header that pydicom cannot read either
        wanted = False
    if not wanted:
        with pytest.raises(UnreadableImage, match=re.escape(path.name)):
            read_image(path)
        return
    found = grey(path)
    plugins = get_decoder(ds.file_meta.TransferSyntaxUID).available_plugins
    plugin = 'pydicom' if 'pydicom' in plugins else 'pillow' if 'pillow' in plugins else ''
    compressed = ds.file_meta.TransferSyntaxUID.is_encapsulated
    if (compressed and not plugin) or 'WindowWidth' not in ds:      # nothing at hand to compare with
        assert found.max() > found.min()
    elif path.stem != 'JPEG-lossy' and path.stem != 'JPGExtended':      # 12 bits: only some decoders
        assert_rounded(found, by_pydicom(ds, plugin=plugin))


def test_real_films_have_the_grey_levels_of_pydicom(real_data):
    for name in ('RG1_J2KI', 'RG3_J2KI'):
        path = real_data / 'dicom_samples' / f'{name}.dcm'
        assert_rounded(grey(path), by_pydicom(pydicom.dcmread(path), plugin='pillow'))


def test_real_films_have_bright_bones(real_data):
    folder = real_data / 'dicom_samples'
    for path in (folder / 'RG1_J2KI.dcm', *folder.glob('1.2.276*.dcm')):
        film = grey(path).astype(float)
        height, width = film.shape
        spine = film[int(height * 0.3):int(height * 0.6), int(width * 0.48):int(width * 0.52)].mean()
        lungs = np.mean([film[int(height * 0.3):int(height * 0.5), int(width * x):int(width * (x + 0.08))].mean()
                         for x in (0.24, 0.68)])
        assert spine > lungs + 30, path.name
    bone = grey(folder / 'RG3_J2KI.dcm')
    assert bone[600:900, 820:880].mean() > bone[600:900, 560:640].mean() + 100       # the shaft and the air beside it


def test_a_real_film_tagged_wrongly_comes_out_right_with_the_override(real_data, tmp_path):
    path = real_data / 'dicom_samples' / 'RG1_J2KI.dcm'
    ds = pydicom.dcmread(path)
    ds.PhotometricInterpretation = 'MONOCHROME2'
    ds.save_as(tmp_path / 'wrong.dcm')
    (tmp_path / 'tags.json').write_text('{"wrong.dcm": {"PhotometricInterpretation": "MONOCHROME1"}}')
    corrected = read_image(tmp_path / 'wrong.dcm', options_with(tmp_path / 'tags.json'))
    np.testing.assert_array_equal(corrected, read_image(path))
    np.testing.assert_array_equal(255 - grey(tmp_path / 'wrong.dcm'), grey(path))
