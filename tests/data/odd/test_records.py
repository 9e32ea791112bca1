"""Ids and records with the oddities of real exports: what is read, what is said, and what stops."""
import pytest

from relnet_jax.data.issues import summary
from tests.data.odd.documents import CLASSES, boxes_of, changed, clean_document, rectangle


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


# ---- images alone ----

def test_images_without_annotations_are_a_source_without_truth(files):
    images = clean_document()['images']
    for document in (dict(images=images), dict(images=images, annotations=[], categories=CLASSES),
                     dict(images=images, annotations=None), images, [image['file_name'] for image in images]):
        source = files(document, strict=False)
        assert len(source) == 10 and not source.annotated and len(source.load(3).boxes) == 0
        assert source.ground_truth()['annotations'] == []
    assert source.image_ids[2] == 'im2.png'
