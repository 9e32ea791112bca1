"""Files with the oddities of real exports: what is read, what is said, and what stops."""
import copy
import json
import os
from collections import Counter

import cv2
import numpy as np
import pytest

from configs import base
from relnet_jax.data.issues import by_kind, summary
from relnet_jax.data.pipeline import open_for_model, open_sources
from relnet_jax.data.source import CLASS_TABLE
from tests.data.opening import open_coco

SIZE = 128, 160     # height, width
CLASSES = [{'id': 1, 'name': 'nodule'}, {'id': 2, 'name': 'mass'}]


def rectangle(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def clean_document(count=10, name='im{}.png'):
    """Two objects with masks in each of `count` images, spread over the frame."""
    rng = np.random.default_rng(7)
    images, annotations = [], []
    for i in range(count):
        images.append(dict(id=i + 1, file_name=name.format(i), width=SIZE[1], height=SIZE[0]))
        for category, (w, h) in ((1, (30, 30)), (2, (36, 22))):
            x, y = int(rng.integers(0, SIZE[1] - w)), int(rng.integers(0, SIZE[0] - h))
            annotations.append(dict(id=len(annotations) + 1, image_id=i + 1, category_id=category, bbox=[x, y, w, h],
                                    area=w * h, iscrowd=0, segmentation=[rectangle(x, y, w, h)]))
    return dict(images=images, annotations=annotations, categories=copy.deepcopy(CLASSES))


@pytest.fixture
def files(tmp_path):
    """files(document): opens it, with as many images on disk as `clean_document` has by default."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(10):
        cv2.imwrite(str(folder / f'im{i}.png'), np.full(SIZE, 10 * i, np.uint8))

    def open_document(document, **options):
        file = tmp_path / 'a.json'
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        source = open_coco(file, options.pop('folder', folder), **options)
        c = source.counts       # everything is accounted for, whatever happened
        assert c['image_records'] == c['images'] + c['images_dropped'] + c['images_not_wanted']
        assert c['annotations'] == (c['used'] + c['dropped'] + c['duplicates'] + c['image_left_out'] + c['not_wanted'])
        dropped = [i for i in source.issues if 'annotations[' in i.where and i.rule == 'dropped']
        assert len(dropped) == c['dropped'] + c['duplicates']
        return source
    open_document.folder = folder
    return open_document


def changed(field, value, kind='annotations'):
    """The clean document with `field` of every record set to `value`, or to what `value(record)` gives."""
    document = clean_document()
    for record in document[kind]:
        record[field] = value(record) if callable(value) else value
    return document


def boxes_of(source):
    return [source.load(i).boxes.tolist() for i in range(len(source))]


def kinds(source):
    return list(by_kind(source.issues))


def test_the_clean_document_has_nothing_to_say(files):
    source = files(clean_document())
    assert source.issues == () and source.counts['used'] == source.counts['objects'] == 20 and source.annotated


# ---- ids ----

@pytest.mark.parametrize('field, kind', [('image_id', 'annotations'), ('category_id', 'annotations'), ('id', 'images'),
                                         ('id', 'categories')])
@pytest.mark.parametrize('form', [str, float, lambda i: f' {i} ', lambda i: f'00{i}'])
def test_ids_in_other_forms_are_the_same_ids(files, field, kind, form):
    source = files(changed(field, lambda record: form(record[field]), kind))
    assert source.counts['used'] == 20 and boxes_of(source) == boxes_of(files(clean_document()))
    assert len(summary(source.issues)) <= 1, 'said once'
    assert source.category_ids == (1, 2)


def test_image_ids_of_text_are_kept(files):
    document = changed('image_id', lambda a: f'im{a["image_id"]}')
    for image in document['images']:
        image['id'] = f'im{image["id"]}'
    source = files(document)
    assert source.image_ids == [f'im{i}' for i in range(1, 11)] and source.issues == ()
    assert source.load(3).image_id == 'im4' and source.ground_truth()['annotations'][0]['image_id'] == 'im1'


def test_text_that_would_become_one_number_stays_text(files):
    document = clean_document(2)
    for record, number in zip(document['images'], ('7', '07')):
        record['id'] = number
    for a in document['annotations']:
        a['image_id'] = {1: 7, 2: '07'}[a['image_id']]
    source = files(document)
    assert source.image_ids == ['7', '07'] and source.counts['used'] == 4


@pytest.mark.parametrize('value', [None, 'x', 99, True, [1], {'a': 1}, float('nan'), 1.5])
@pytest.mark.parametrize('field', ['image_id', 'category_id'])
def test_ids_that_are_in_no_table_stop_with_the_commonest_reason(files, field, value):
    with pytest.raises(ValueError, match=rf'20 of 20 annotations cannot be used.*{field} is not in.*annotations\[0\]'):
        files(changed(field, value))


# ---- records that cannot be used ----

@pytest.mark.parametrize('bbox', [None, 'x', [], [1, 2, 3], [0, 0, 0, 0], [500, 500, 5, 5]])
def test_a_file_without_a_usable_object_stops(files, bbox):
    document = changed('bbox', bbox)
    for a in document['annotations']:
        del a['segmentation']
    with pytest.raises(ValueError, match=r'a\.json: 20 of 20 annotations cannot be used.*most often \(20\): bbox'):
        files(document)


def test_more_dropped_records_than_allowed_stop_and_fewer_do_not(files):
    document = clean_document()
    for a in document['annotations'][:5]:
        a['category_id'] = 9
    with pytest.raises(ValueError, match=r'5 of 20 .*data.max_dropped = 0.2 .*category_id is not in the category'):
        files(document)
    assert files(document, max_dropped=0.25).counts['dropped'] == 5
    document['annotations'][4]['category_id'] = 1
    assert files(document).counts['dropped'] == 4


def test_two_broken_records_of_three_do_not_stop_a_small_set(files):
    document = clean_document(2)
    del document['annotations'][3]
    for a in document['annotations'][:2]:
        a['bbox'], a['segmentation'] = None, None
    assert files(document).counts['dropped'] == 2


def test_records_that_are_repeated_are_no_reason_to_stop(files):
    document = clean_document()
    document['annotations'] *= 2
    source = files(document)
    assert source.counts['duplicates'] == 20 and source.counts['used'] == 20 and len(summary(source.issues)) == 1


def test_objects_with_one_box_and_different_masks_are_no_duplicates(files):
    document = clean_document(1)
    box, square = [10, 10, 40, 40], [rectangle(10, 10, 40, 40)]
    rows = [[[10, 10, 50, 50, 45, 50, 10, 15]], [[50, 10, 50, 15, 15, 50, 10, 50]], None, square, square]
    document['annotations'] = [dict(id=i, image_id=1, category_id=1, bbox=box, segmentation=rows[i]) for i in range(5)]
    source = files(document)
    assert source.counts['used'] == 3 and [i.where for i in source.issues] == [
        f'a.json: annotations[{i}] id {i}' for i in (2, 4)]


# ---- crowds ----

def test_a_file_of_crowds_only_stops_and_can_be_read_as_objects(files):
    document = changed('iscrowd', 1)
    with pytest.raises(ValueError, match='all 20 objects are marked as crowds .* set data.crowds=False'):
        files(document)
    assert not files(document, crowds=False).load(0).crowd.any()


def test_a_class_of_crowds_only_is_named(files, caplog):
    files(changed('iscrowd', lambda a: int(a['category_id'] == 2)))
    assert 'all objects of mass are marked as crowds' in caplog.text


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


# ---- geometry ----

def normalised(values):
    return [v / SIZE[1 - i % 2] for i, v in enumerate(values)]


@pytest.mark.parametrize('masks', [True, False])
@pytest.mark.parametrize('form, words', [
    (lambda x, y, w, h: [x, y, x + w, y + h], r'boxes look like \[x1, y1, x2, y2\], not \[x, y, width, height\]'),
    (lambda x, y, w, h: normalised([x, y, w, h]), 'boxes look normalised'),
    (lambda x, y, w, h: normalised([x, y, x + w, y + h]), 'boxes look normalised'),
    (lambda x, y, w, h: [str(x), y, x + w, y + h], r'boxes look like \[x1, y1, x2, y2\]')])
def test_boxes_that_look_like_something_else_stop(files, masks, form, words):
    document = changed('bbox', lambda a: form(*a['bbox']))
    if not masks:
        for a in document['annotations']:
            del a['segmentation']
    with pytest.raises(ValueError, match=f'{words}.*data.check_geometry=False'):
        files(document)
    assert files(document, check_geometry=False, max_dropped=1).counts['annotations'] == 20


@pytest.mark.parametrize('form, words', [
    (lambda x, y, w, h: [x + w / 2, y + h / 2, w, h], r'\[center x, center y, width, height\]'),
    (lambda x, y, w, h: [y, x, h, w], r'\[y, x, height, width\]'),
    (lambda x, y, w, h: [y, x, y + h, x + w], r'\[y1, x1, y2, x2\]'),
    (lambda x, y, w, h: [100 * v for v in normalised([x, y, w, h])], r'\[x, y, width, height\] in per cent')])
def test_masks_tell_what_boxes_mean(files, form, words):
    with pytest.raises(ValueError, match=f'boxes look like {words}, not'):
        files(changed('bbox', lambda a: form(*a['bbox'])))


def test_normalised_polygons_stop_with_or_without_boxes(files):
    document = changed('segmentation', lambda a: [normalised(a['segmentation'][0])])
    with pytest.raises(ValueError, match='polygons look normalised'):
        files(document)
    for a in document['annotations']:
        a['bbox'] = None
    with pytest.raises(ValueError, match='polygons look normalised'):
        files(document)


def test_rle_of_exchanged_size_is_recognised(files):
    runs = [0, SIZE[0] * SIZE[1]]
    with pytest.raises(ValueError, match=r'RLE sizes look like \[width, height\]: \[160, 128\] in an image 160 px'):
        files(changed('segmentation', dict(size=[SIZE[1], SIZE[0]], counts=runs)))


def test_boxes_in_per_cent_are_remarked_on(tmp_path, files, caplog):
    document = clean_document()
    for i in range(10):
        cv2.imwrite(str(files.folder / f'im{i}.png'), np.zeros((1000, 800), np.uint8))
    for image in document['images']:
        image.update(width=800, height=1000)
    for a in document['annotations']:
        a['bbox'], a['segmentation'] = [v / 1.7 for v in a['bbox']], None
    files(document)
    assert 'all 20 boxes lie in the upper left' in caplog.text and 'per cent' in caplog.text


def test_one_odd_box_is_not_the_whole_file(files):
    document = clean_document()
    document['annotations'][0] |= dict(bbox=[0.25, 0.25, 0.5, 0.5], segmentation=None)
    document['annotations'][1] |= dict(bbox=[100, 100, 140, 120], segmentation=None)
    source = files(document)
    assert source.counts['used'] == 20 and kinds(source) == [('bbox leaves the image', 'clipped')]


# ---- categories ----

def test_an_unused_category_that_repeats_a_name_is_left_out(files):
    for name in ('nodule', 'Nodule', ' nodule'):
        document = clean_document()
        document['categories'].insert(0, dict(id=0, name=name))
        source = files(document)
        assert source.classes == ('nodule', 'mass') and source.category_ids == (1, 2)
        assert 'repeats a name' in summary(source.issues)[-1]


def test_two_categories_of_one_name_that_are_both_used_stop(files):
    document = clean_document()
    document['categories'][1]['name'] = 'nodule'
    with pytest.raises(ValueError, match=r"categories \[1, 2\] are all called 'nodule', and all have annotations"):
        files(document)


def test_names_that_differ_by_case_or_spaces_are_named_and_kept_apart(files):
    document = clean_document()
    document['categories'][1]['name'] = 'NODULE'
    source = files(document)
    assert source.classes == ('nodule', 'NODULE')
    assert [i.problem for i in source.issues] == ['names that differ by case or spaces alone']


def test_spaces_around_a_name_are_no_part_of_it(files):
    document = clean_document()
    document['categories'][1]['name'] = ' mass '
    assert files(document).classes == ('nodule', 'mass')


@pytest.mark.parametrize('name', ['', '  ', None])
def test_a_category_without_a_name_is_left_out_with_its_objects(files, name):
    document = clean_document()
    document['categories'][1]['name'] = name
    source = files(document, max_dropped=0.5)
    assert source.classes == ('nodule',) and source.counts['dropped'] == 10
    assert 'category without a name (id 2, 10 annotations)' in str(source.issues[0])


@pytest.mark.parametrize('name', ['_background_', '__background__', 'Background', 'BG', '<background>'])
def test_background_is_no_class_unless_asked_for(files, name, caplog):
    document = clean_document()
    document['categories'].insert(0, dict(id=0, name=name))
    document['annotations'][0]['category_id'] = 0
    with caplog.at_level('INFO', logger='absl'):
        source = files(document)
    assert source.classes == ('nodule', 'mass') and source.counts['not_wanted'] == 1 and f'{name} (1)' in caplog.text
    assert files(document, classes=(name, 'mass')).classes == (name, 'mass')


def test_a_category_that_is_there_twice_counts_once(files):
    document = clean_document()
    document['categories'].append(dict(document['categories'][0]))
    assert files(document).classes == ('nodule', 'mass')


def test_asked_for_names_may_differ_by_case_and_spaces(files):
    document = clean_document()
    document['categories'][0]['name'] = 'Ground Glass  Opacity'
    source = files(document, classes=('ground glass opacity',))
    assert source.classes == ('ground glass opacity',) and source.category_ids == (1,) and len(source.issues) == 1


def test_a_name_of_a_hundred_thousand_letters_is_refused_in_a_short_line(files):
    document = clean_document()
    document['categories'][0]['name'] = 'x' * 100_000
    with pytest.raises(ValueError, match='at most 200 printable letters, got 100000') as error:
        files(document)
    assert len(str(error.value)) < 400


# ---- images alone ----

def test_images_without_annotations_are_a_source_without_truth(files):
    images = clean_document()['images']
    for document in (dict(images=images), dict(images=images, annotations=[], categories=CLASSES),
                     dict(images=images, annotations=None), images, [image['file_name'] for image in images]):
        source = files(document, strict=False)
        assert len(source) == 10 and not source.annotated and len(source.load(3).boxes) == 0
        assert source.ground_truth()['annotations'] == []
    assert source.image_ids[2] == 'im2.png'


# ---- what tests need of the shared folder ----

@pytest.mark.parametrize('name, objects, lines', [
    ('ann_image_id_str', 20, 1), ('cat_id_str', 20, 1), ('iscrowd_string', 20, 0), ('roboflow_dup', 20, 1),
    ('bbox_null_zero', 20, 2), ('backslash', 20, 1), ('exif6_all', 20, 0)])
def test_the_shared_odd_sets_are_read(real_data, name, objects, lines):
    folder = real_data / 'odd_coco' / name
    source = open_coco(folder / 'a.json', folder / 'images')
    assert source.counts['objects'] == objects and len(summary(source.issues)) == lines
    base = open_coco(real_data / 'odd_coco' / 'base' / 'train.json', real_data / 'odd_coco' / 'base' / 'images')
    for i in range(len(source)):
        ours, theirs = source.load(i), base.load(i)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.6)
        assert ours.labels.tolist() == theirs.labels.tolist() and not ours.crowd.any() and ours.has_mask.all()


@pytest.mark.parametrize('name, file, ids, nodules, masses', [
    ('base', 'val', (1, 2), 4, 4), ('val_other_ids', 'val', (9, 5), 4, 4), ('val_extra_class', 'a', (1, 2), 4, 3),
    ('val_extra_class', 'val', (1, 2), 3, 4)])
def test_the_shared_validation_sets_are_read_by_class_name(real_data, name, file, ids, nodules, masses):
    folder = real_data / 'odd_coco'
    config = base.get_config().unlock()
    config.data.train.update(annotations=str(folder / 'base' / 'train.json'), images=str(folder / 'base' / 'images'))
    config.data.val.update(annotations=str(folder / name / f'{file}.json'), images=str(folder / name / 'images'))
    train, val = open_sources(config)
    for source in (val, open_for_model(config, 'val', {key: getattr(train, key) for key in CLASS_TABLE})):
        assert source.classes == ('nodule', 'mass') and source.category_ids == ids
        assert Counter(a['category_id'] for a in source.ground_truth()['annotations']) == Counter(
            {ids[0]: nodules, ids[1]: masses})


@pytest.mark.parametrize('name, words', [
    ('mostly_missing', '28 of 30 image files cannot be used'), ('normalised', 'boxes look normalised')])
def test_the_shared_odd_sets_that_cannot_be_read_stop(real_data, name, words):
    folder = real_data / 'odd_coco' / name
    with pytest.raises(ValueError, match=words):
        open_coco(folder / 'a.json', folder / 'images')
