import cv2
import numpy as np
import pytest

from configs import base
from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.read_options import DEFAULTS
from relnet_jax.detector.inputs import find_images, image_source, name_outputs, to_rgb8
from relnet_jax.errors import UserError
from tests.data.dicom_files import write_dicom

TABLE = dict(classes=('Mass', 'Nodule'), category_ids=(30, 10), parts=('Left Lung',))


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


# ---- files and folders ----
def test_pictures_of_an_earlier_run_are_no_input(tmp_path):
    touch(tmp_path, 'a.png', 'sub/b.jpg', 'notes.txt', 'out/a.png')
    found, problems = find_images([str(tmp_path)], tmp_path / 'out')
    assert [file for file, _ in found] == [tmp_path / 'a.png', tmp_path / 'sub' / 'b.jpg'] and not problems


def test_a_file_that_is_meant_twice_is_there_once_under_its_first_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, 'x/b.png', 'x/a.png')
    found, _ = find_images(['x/b.png', f'{tmp_path}/x', 'x/b.png'], tmp_path / 'out')
    assert [(str(file), str(name)) for file, name in found] == [('x/b.png', 'b.png'), (f'{tmp_path}/x/a.png', 'a.png')]


def test_output_names_never_collide(tmp_path):
    names = ['x/a.png', 'x/a.jpg', 'x/A.PNG', 'y/a.png', 'x/b/c.png', 'x/b__c.png', 'z/x/a.png', 'z/x/a_png.png']
    touch(tmp_path, *names)
    given = [str(tmp_path / name) for name in names[:4]] + [str(tmp_path / 'x'), str(tmp_path / 'z' / 'x')]
    found, _ = find_images(given, tmp_path / 'out')
    outputs = name_outputs(found)
    assert len(found) == len(outputs) == len(names)
    assert len({o.casefold() for o in outputs}) == len(outputs)
    assert outputs[:4] == ['a.png', 'a_jpg.png', 'A_PNG.png', 'y__a.png']
    assert all(o.endswith('.png') and '/' not in o for o in outputs)
    assert name_outputs(found) == outputs
    again = name_outputs(found, taken=outputs)
    assert not {o.casefold() for o in outputs} & {o.casefold() for o in again}


def test_names_of_deep_folders_are_cut_to_what_a_file_system_takes(tmp_path):
    deep = [tmp_path.joinpath(*['é' * 60] * 9, last) for last in ('a.png', 'a.jpg')]
    names = name_outputs([(tmp_path / 'a.png', path) for path in deep])
    assert len({*names}) == 2 and all(len(name.encode()) < 220 for name in names) and names[0].endswith('__a.png')
    for name in names:
        (tmp_path / name).touch()


def test_what_is_not_there_is_said(tmp_path):
    (tmp_path / 'empty').mkdir()
    found, problems = find_images([f'{tmp_path}/no.png', f'{tmp_path}/empty'], tmp_path / 'out')
    assert not found and problems[0] == f'{tmp_path}/no.png: no such file or folder'
    assert problems[1].startswith(f'{tmp_path}/empty: no images (.png, ')


# ---- arrays ----
def test_arrays_of_8_bits_stay_as_they_are():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    np.testing.assert_array_equal(to_rgb8(image[..., :3], DEFAULTS), image[..., :3])
    np.testing.assert_array_equal(to_rgb8(image, DEFAULTS), image[..., :3])
    for grey in (image[..., 0], image[..., :1]):
        np.testing.assert_array_equal(to_rgb8(grey, DEFAULTS), np.stack([image[..., 0]] * 3, -1))


def test_arrays_of_16_bits_are_read_as_files_of_16_bits(tmp_path):
    image = np.random.default_rng(0).integers(0, 4096, (40, 50), np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    c = base.get_config()
    source = image_source([tmp_path / 'a.png', image], TABLE, c, {})
    np.testing.assert_array_equal(source.load(0).image, source.load(1).image)
    assert source.load(1).image.max() == 255


def test_floats_are_shares_of_white():
    image = np.array([[0, 0.5, 1]])
    for dtype in (np.float16, np.float32, np.float64):
        assert to_rgb8(image.astype(dtype), DEFAULTS)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize('image, said', [
    (np.full((2, 2), 255.0), 'got float64 from 255 to 255'), (np.array([[np.nan, 0]]), 'got float64 from nan to nan'),
    (np.zeros((2, 2), int), 'got int64'), (np.zeros((2, 2), bool), 'got bool'), (np.zeros(4, np.uint8), r'uint8 \[4\]'),
    (np.zeros((2, 3, 3, 3), np.uint8), r'uint8 \[2, 3, 3, 3\]'), (np.zeros((0, 3), np.uint8), r'uint8 \[0, 3\]'),
    (np.zeros((3, 8, 8), np.uint8), r'uint8 \[3, 8, 8\]')])
def test_other_arrays_are_refused_with_what_they_are(image, said):
    with pytest.raises(UserError, match=f'expected an array uint8, uint16 or float in 0..1, .*{said}'):
        to_rgb8(image, DEFAULTS)


# ---- the source ----
def test_nothing_is_read_before_it_is_asked_for_and_headers_are_told(tmp_path):
    write_dicom(tmp_path / 'a.dcm', np.zeros((6, 9), np.uint8), StudyInstanceUID='1.2.3.4', SeriesInstanceUID='1.5')
    about = {}
    source = image_source([tmp_path / 'a.dcm', tmp_path / 'no.png', np.zeros((2, 2), np.uint8)], TABLE,
                          base.get_config(), about)
    assert len(source) == 3 and not about
    example = source.load(0)
    assert example.image.shape == (6, 9, 3) and example.part_boxes.shape == (1, 4) and not example.part_valid.any()
    uids = dict(StudyInstanceUID='1.2.3.4', SeriesInstanceUID='1.5', SOPInstanceUID='1.2.3')
    assert about == {0: dict(orientation=1) | uids}
    with pytest.raises(UnreadableImage):
        source.load(1)
    assert about[1] == dict(problem=f'{tmp_path}/no.png: No such file or directory')
    assert source.load(2).image_id == 3 and about[2] == {}


def test_an_array_of_another_kind_is_named_by_its_place():
    source = image_source([np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.int16)], TABLE, base.get_config(), {})
    with pytest.raises(UserError, match='image 1: expected an array uint8'):
        source.load(1)
