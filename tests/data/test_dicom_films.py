"""The files that pydicom ships, and real films, against pydicom's own pipeline."""
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import get_decoder

from relnet_jax.data.images import UnreadableImage, read_image
from tests.data.dicom_grey import assert_rounded, by_pydicom, grey, options_with

SHIPPED = Path(pydicom.__file__).parent / 'data' / 'test_files'


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
