"""Image files and sizes as real exports name them."""
import os

import cv2
import numpy as np
import pytest

from relnet_jax.data.issues import summary
from tests.data.odd.documents import SIZE, changed, clean_document

# ---- image files ----

@pytest.mark.parametrize('form, on_disk', [
    ('images/{}', '{}'), ('images\\{}', '{}'), ('./{}', '{}'), ('/home/me/data/{}', '{}'), ('C:\\data\\{}', '{}'),
    ('../elsewhere/{}', '{}'), ('train/a/{}', 'a/{}'), ('{}', 'deep/in/{}'), ('{}', 'a b/{}'), (' {} ', '{}'),
    ('a%20b/{}', 'a b/{}'), ('a\\{}', 'a/{}'), ('A/{}', 'a/{}'), ('x/a/{}', 'y/a/{}')])
def test_files_are_found_in_other_words(files, form, on_disk):
    for i in range(10):
        target = files.folder / on_disk.format(f'im{i}.png')
        target.parent.mkdir(parents=True, exist_ok=True)
        (files.folder / f'im{i}.png').rename(target)
    source = files(changed('file_name', lambda image: form.format(image['file_name']), 'images'))
    assert [source.load(i).image[0, 0, 0] for i in range(10)] == [10 * i for i in range(10)]
    assert len(summary(source.issues)) == (form not in ('./{}',)), 'said once'


@pytest.mark.parametrize('form', [str.upper, str.title, lambda name: name[:-4], lambda name: f'{name[:-4]}.dicom',
                                  lambda name: f'{name[:-4]}.jpg'])
def test_files_are_found_in_other_case_and_with_another_extension(files, form):
    source = files(changed('file_name', lambda image: form(image['file_name']), 'images'))
    assert [source.load(i).image[0, 0, 0] for i in range(10)] == [10 * i for i in range(10)]
    assert len(summary(source.issues)) == 1


def test_a_file_that_two_names_could_mean_is_nobodys(files):
    for folder in ('a', 'b'):
        (files.folder / folder).mkdir()
        (files.folder / folder / 'x.png').write_bytes((files.folder / 'im0.png').read_bytes())
    document = clean_document()
    document['images'][0]['file_name'] = 'x.png'
    source = files(document)
    assert len(source) == 9 and [i.problem for i in source.issues] == ['file not found, and 2 files are called so']
    document['images'][0]['file_name'] = 'c/B/x.png'      # ... but the folder before tells them apart
    assert len(files(document)) == 10


def test_another_patients_file_of_the_same_base_name_is_not_taken(files):
    for patient in ('p1', 'p2'):
        (files.folder / patient).mkdir()
    (files.folder / 'p2' / '1.png').write_bytes((files.folder / 'im0.png').read_bytes())
    document = clean_document()
    document['images'][0]['file_name'] = 'p1/1.png'         # its folder is there, the file is not
    assert len(files(document)) == 9
    document['images'][0]['file_name'] = 'p3/1.png'         # the only '1.png' belongs to another record
    document['images'][1]['file_name'] = 'p2/1.png'
    assert files(document).image_ids == list(range(2, 11))
    document['images'][1]['file_name'] = 'p4/1.png'         # two that would take the same
    assert files(document).image_ids == [1, *range(3, 11)]


def test_missing_files_stop_with_the_folder_and_the_nearest_name(files):
    document = clean_document(30)
    with pytest.raises(ValueError, match=r"20 of 30 image files .* data.max_unreadable = 0.05 allows; looked in "
                                         r".*images'; .*file not found; such as 'im10.png', nearest there: im\d.png"):
        files(document)
    assert len(files(document, max_unreadable=0.7)) == 10
    assert len(files(document, max_images=10)) == 10
    with pytest.raises(ValueError, match='nearest there: no file at all'):
        empty = files.folder.parent / 'empty'
        empty.mkdir()
        files(document, folder=empty)


def test_one_or_two_missing_files_of_a_small_set_do_not_stop(files):
    (files.folder / 'im3.png').unlink()
    assert len(files(clean_document())) == 9
    (files.folder / 'im4.png').unlink()
    assert len(files(clean_document())) == 8
    (files.folder / 'im5.png').unlink()
    with pytest.raises(ValueError, match='3 of 10 image files'):
        files(clean_document())


def test_files_outside_of_the_folder_are_refused_unless_allowed(files):
    outside = files.folder.parent / 'secret.png'
    cv2.imwrite(str(outside), np.full(SIZE, 200, np.uint8))
    os.symlink(outside, files.folder / 'link.png')
    os.symlink(files.folder.parent, files.folder / 'up')
    for name in ('../secret.png', str(outside), 'link.png', 'up/secret.png', 'im0.png/../../secret.png'):
        document = clean_document()
        document['images'][0]['file_name'] = name
        source = files(document)
        assert source.image_ids == list(range(2, 11)), name
        assert len(source.issues) == 1 and source.issues[0].rule == 'image dropped'
        if os.path.exists(files.folder / name):
            assert source.issues[0].problem == 'file outside of the image folder'
            assert files(document, allow_outside=True).load(0).image[0, 0, 0] == 200
    document['images'][0]['file_name'] = f'../{files.folder.name}/im0.png'        # out and in again
    assert len(files(document)) == 10 and files(document).issues == ()


def test_a_linked_image_folder_is_no_way_out(files):
    linked = files.folder.parent / 'linked'
    os.symlink(files.folder, linked)
    assert files(clean_document(), folder=linked).issues == ()


@pytest.mark.parametrize('name', ['a' * 5000, 'a/' * 3000, 'im0.png\x00', '\ud800.png', '', ' ', '.', '..', '/',
                                  'im0.png/', '\\', None, 5, ['im0.png'], '%00', '~', '*'])
def test_names_that_no_file_can_have_are_dropped(files, name):
    document = clean_document()
    document['images'][0]['file_name'] = name
    source = files(document)
    assert source.image_ids == list(range(2, 11)) or name == 'im0.png/'
    assert len(source.issues) == 1 and len(str(source.issues[0])) < 250
    assert source.counts['image_left_out'] == 2 * (len(source) == 9)


def test_lvis_images_are_found_by_their_url(files):
    document = clean_document()
    for i, image in enumerate(document['images']):
        del image['file_name']
        image['coco_url'] = f'http://images.cocodataset.org/val2017/im{i}.png?size=full'
    source = files(document)
    assert len(source) == 10 and source.records[3]['file_name'] == 'val2017/im3.png'


# ---- sizes ----

@pytest.mark.parametrize('size', [(None, None), ('x', 5), (0, 0), (-3, 5), (float('nan'), 3), (int('9' * 400), 4),
                                  (1e300, 2), (2 ** 20, 2 ** 20), ([128], [160])])
def test_sizes_that_cannot_be_are_taken_from_the_file(files, size):
    document = changed('width', size[1], 'images')
    for image in document['images']:
        image['height'] = size[0]
    source = files(document)
    assert {(r['height'], r['width']) for r in source.records} == {SIZE} and source.counts['used'] == 20
    assert len(summary(source.issues)) == (size != (None, None))


@pytest.mark.parametrize('form', [str, float])
def test_sizes_in_text_are_numbers(files, form):
    document = changed('width', lambda i: form(i['width']), 'images')
    assert files(document).records[0]['width'] == 160


def test_exchanged_sizes_are_recognised(files):
    document = clean_document()
    for image in document['images']:
        image['width'], image['height'] = image['height'], image['width']
    with pytest.raises(ValueError, match='10 of 10 image files cannot be used.*width and height of the record look '
                                         'exchanged; such as im0.png, 160 x 128 pixels, annotated at 128 x 160'):
        files(document)
