"""What training and validation images a config opens, and what it cannot open."""
import json
import logging
import re

import pytest

from relnet_jax.data.pipeline import open_for_model, open_sources
from relnet_jax.errors import UserError
from tests.data.opening import coco_config, make_config


def test_validation_is_held_out_of_training_without_a_file_of_its_own(write_boxes):
    config = coco_config(write_boxes(10))
    train, val = open_sources(config)
    assert (len(train), len(val)) == (8, 2) and sorted(train.image_ids + val.image_ids) == list(range(1, 11))
    with config.unlocked():
        config.data.val.max_images = 1
        config.data.train.max_images = 5
    train, val = open_sources(config)
    assert (len(train), len(val)) == (4, 1)


def test_a_validation_file_is_read_with_the_class_table_of_training(write_coco, tmp_path):
    files = write_coco([{'id': 1, 'image_id': 1, 'category_id': 7, 'bbox': [5, 5, 9, 9]}])
    other = tmp_path / 'other.json'
    document = files[0].read_text()
    other.write_text(document.replace('"id": 3, "name": "nodule"', '"id": 33, "name": "nodule"'))
    train, val = open_sources(coco_config(files, (other, files[1]), parts=('left lung', 'right lung')))
    assert train.classes == val.classes == ('nodule', 'mass')
    assert train.category_ids == (3, 7) and val.category_ids == (33, 7)
    other.write_text(document.replace('nodule', 'nodules'))
    with pytest.raises(ValueError, match="instances.json: no category 'nodul', did you mean 'nodule'"):
        open_sources(coco_config(files, (other, files[1]), classes=('nodul',)))


def test_a_validation_file_may_have_other_classes_too(write_coco, tmp_path, caplog):
    """Its objects of the training's classes are there, under its own ids; what is missing and what is left is named."""
    files = write_coco([{'id': 1, 'image_id': 1, 'category_id': 7, 'bbox': [5, 5, 9, 9]}])
    other = tmp_path / 'other.json'
    document = json.loads(files[0].read_text())
    document['categories'] = [{'id': 3, 'name': 'scar'}, {'id': 0, 'name': 'mass'}]
    document['annotations'] = [{'id': 1, 'image_id': 1, 'category_id': c, 'bbox': [5, 5, 9, 9]} for c in (3, 0)]
    other.write_text(json.dumps(document))
    with caplog.at_level(logging.INFO, logger='absl'):
        _, val = open_sources(coco_config(files, (other, files[1]), classes=('nodule', 'mass')))
    assert val.classes == ('nodule', 'mass') and val.category_ids == (1, 0)     # 3 is taken here, 1 is free
    assert val.load(0).labels.tolist() == [2] and [a['category_id'] for a in val.ground_truth()['annotations']] == [0]
    assert 'other: without the classes nodule' in caplog.text
    assert 'not asked for, with their objects: scar (1)' in caplog.text
    other.write_text(json.dumps(document | {'annotations': document['annotations'][:1]}))
    assert len(open_sources(coco_config(files, (other, files[1])))[1].load(0).labels) == 0
    document['categories'], document['annotations'] = document['categories'][:1], document['annotations'][:1]
    other.write_text(json.dumps(document))
    with pytest.raises(ValueError, match='other: has none of the classes nodule, mass'):
        open_sources(coco_config(files, (other, files[1])))


def test_a_model_opens_validation_data_as_training_did(write_boxes, write_coco, tmp_path):
    files = write_boxes(6)
    other = tmp_path / 'other.json'
    other.write_text(files[0].read_text().replace('"id": 3, "name": "nodule"', '"id": 33, "name": "nodule"')
                     .replace('"category_id": 3', '"category_id": 33'))
    for config in (coco_config(files), coco_config(files, (other, files[1]))):
        train, val = open_sources(config)
        table = dict(classes=train.classes, category_ids=train.category_ids, parts=train.parts)
        for name, source in (('train', train), ('val', val)):
            ours = open_for_model(config, name, table)
            assert (ours.name, ours.classes, ours.category_ids, ours.image_ids) == (
                source.name, source.classes, source.category_ids, source.image_ids)
            assert ours.ground_truth() == source.ground_truth()
    with config.unlocked():
        config.data.train.annotations = 'not on this machine'
    assert len(open_for_model(config, 'val', table)) == 6


@pytest.mark.parametrize('annotations', [[], [{'id': 1, 'image_id': 1, 'category_id': 20, 'bbox': [5, 5, 9, 9]}]])
def test_training_data_without_an_object_to_detect_stop(write_coco, annotations):
    with pytest.raises(ValueError, match=f'instances: nothing to train on, none of its {len(annotations)} annotations'):
        open_sources(coco_config(write_coco(annotations), classes=('nodule',), parts=('left lung',)))


ONE_BOX = dict(category_id=7, bbox=[5, 5, 9, 9])


def test_training_images_that_are_left_without_an_object_stop(write_coco):
    """All objects are in the fold that is held out, or in images that the subset leaves out."""
    files = write_coco([dict(id=1, image_id=3, **ONE_BOX)], sizes=[(40, 60)] * 6)
    said = 'nothing to train on, none of its . images has an object of the classes'
    found = []
    for hold_out in range(6):
        config = coco_config(files, split=dict(by='id', folds=6, hold_out=hold_out))
        try:
            found.append(len(open_sources(config)[0]))
        except UserError as error:
            assert re.search(said, str(error))
    assert found == [5] * 5
    with pytest.raises(UserError, match=said):
        open_sources(coco_config(files, files, subset='id=1'))
    assert len(open_sources(coco_config(files, files, subset='id=3'))[0]) == 1


def test_validation_images_without_an_object_are_said(write_coco, tmp_path, caplog):
    files = write_coco([dict(id=i, image_id=i, **ONE_BOX) for i in (1, 2)], sizes=[(40, 60)] * 3)
    empty = tmp_path / 'empty.json'
    document = json.loads(files[0].read_text())
    part = dict(id=1, image_id=1, category_id=20, bbox=[1, 1, 5, 5])
    empty.write_text(json.dumps(document | dict(annotations=[part])))
    open_sources(coco_config(files, (empty, files[1]), classes=('mass',)))
    assert 'empty: none of its 3 images has an object: no precision can be measured' in caplog.text


def test_a_validation_file_without_annotations_stops_a_training_and_opens_for_a_model(write_boxes, tmp_path):
    files = write_boxes(3)
    images = tmp_path / 'images.json'
    images.write_text(json.dumps({'images': json.loads(files[0].read_text())['images']}))
    config = coco_config(files, (images, files[1]))
    with pytest.raises(ValueError, match='images: no annotations, so that nothing can be measured'):
        open_sources(config)
    source = open_for_model(config, 'val', dict(classes=('a', 'b'), category_ids=(7, 0), parts=('heart',)))
    assert source.category_ids == (7, 0) and source.load(0).part_valid.tolist() == [False] and not source.annotated


def test_forgotten_paths_are_named(write_boxes):
    file, folder = write_boxes(3)
    for train, val, words in ((('', ''), ('', ''), 'data.train.annotations is not set'),
                              ((file, ''), ('', ''), 'data.train.images is not set'),
                              ((file, folder), (file, ''), 'data.val.images is not set')):
        with pytest.raises(ValueError, match=words):
            open_sources(coco_config(train, val))


def test_one_image_without_validation_says_what_to_give(write_coco):
    files = write_coco([{'id': 1, 'image_id': 1, 'category_id': 7, 'bbox': [5, 5, 9, 9]}])
    with pytest.raises(ValueError, match='give a validation file .data.val.annotations, data.val.images., or more im'):
        open_sources(coco_config(files))


def test_an_unknown_format_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"expected one of \['chestx_det', 'coco', .*\], got 'voc'"):
        open_sources(make_config(format='voc'))
