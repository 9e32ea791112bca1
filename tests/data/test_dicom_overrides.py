"""Wrong DICOM elements are corrected by a file, and a file that cannot correct them is named."""
import numpy as np
import pytest

from relnet_jax.data.images import UnreadableImage, read_image
from tests.data.dicom_files import lut, write_dicom
from tests.data.dicom_grey import FILM, RNG, grey, options_with


def test_wrong_tags_are_corrected_by_file(tmp_path):
    pixels = RNG.integers(0, 255, (20, 30), dtype=np.uint8)
    write_dicom(tmp_path / 'scanner7_1.dcm', pixels, PhotometricInterpretation='MONOCHROME1', WindowCenter=20,
                WindowWidth=5, VOILUTSequence=[lut(np.zeros(9), 0, 8)])
    (tmp_path / 'tags.json').write_text('{"scanner7*": {"PhotometricInterpretation": "MONOCHROME2"}, "*_1.dcm": '
                                        '{"WindowCenter": 128, "WindowWidth": 256, "VOILUTSequence": null}}')
    options = options_with(tmp_path / 'tags.json')
    np.testing.assert_array_equal(read_image(tmp_path / 'scanner7_1.dcm', options)[:, :, 0], pixels)
    assert not np.array_equal(grey(tmp_path / 'scanner7_1.dcm'), pixels)


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


def test_overrides_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='data.dicom_overrides: no file'):
        options_with(tmp_path / 'tags.json')
