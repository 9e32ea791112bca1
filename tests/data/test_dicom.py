"""DICOM as it comes: every way of storing and showing a grey picture, against pydicom's own pipeline."""
import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from relnet_jax.data.images import image_size
from tests.data.dicom_files import ENCODERS, dicom, lut, write_dicom
from tests.data.dicom_grey import FILM, RNG, assert_rounded, by_pydicom, grey


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


def test_an_empty_window_is_none(tmp_path):
    path = write_dicom(tmp_path / 'a.dcm', FILM, WindowCenter='', WindowWidth='')
    np.testing.assert_array_equal(grey(path), grey(write_dicom(tmp_path / 'b.dcm', FILM)))


def test_a_signed_stream_of_8_bits_keeps_its_sign_in_words_of_16(tmp_path):
    pixels = (FILM % 200).astype(np.int16) - 100
    stream = imagecodecs.jpeg2k_encode(pixels.astype(np.int8), codecformat='j2k', reversible=True, level=0)
    path = write_dicom(tmp_path / 'a.dcm', pixels, syntax=uid.JPEG2000Lossless, stream=stream, WindowCenter=0.5,
                       WindowWidth=256)
    assert_rounded(grey(path), np.clip(pixels / 255 + 0.5, 0, 1) * 255)


def test_the_size_is_read_without_the_pixels(tmp_path):
    path = write_dicom(tmp_path / 'a.dcm', FILM, syntax=uid.ExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes()[:600])
    assert image_size(path) == FILM.shape
    assert image_size(write_dicom(tmp_path / 'b.dcm', FILM, syntax=uid.DeflatedExplicitVRLittleEndian)) == FILM.shape
