"""Streams of batches: pure functions of (seed, step), whatever the threads do and whatever cannot be read."""
import dataclasses
import json
import logging
import random
import re
import time
from itertools import islice

import numpy as np
import pytest

from configs import base
from relnet_jax.data.pipeline import eval_batches, open_for_model, open_sources, train_batches
from relnet_jax.errors import UserError
from relnet_jax.types import Batch
from tests.data.opening import open_coco


def make_config(**data):
    config = base.get_config().unlock()
    config.data.update(dict(canvas=(64, 64), scale=40, max_size=64, max_objects=4, mask_size=6, scale_jitter=(0.6, 1.5),
                            brightness=0.1, contrast=0.2, gamma=0.2, threads=3, prefetch=4) | data)
    return config.lock()


@pytest.fixture
def source(write_boxes):
    return open_coco(*write_boxes(7), name='seven', mask_size=6)


def take(source, config, count, **options):
    return list(islice(train_batches(source, config, **dict(batch_size=3, seed=5) | options), count))


def assert_equal(a, b):
    for name, x, y in zip(Batch._fields, a, b):
        assert x.dtype == y.dtype and x.tobytes() == y.tobytes(), name


def unreadable(source, bad, delay=False):
    """The source with positions `bad` overwritten by something that is no image; delays make threads overtake."""
    for i in bad:
        source.image_path(i).write_bytes(b'broken')

    def load(i):
        time.sleep(random.random() * 0.01)
        return source.load(i)

    return dataclasses.replace(source, load=load) if delay else source


def test_batches_of_a_resumed_run_are_those_of_the_uninterrupted_one(source):
    delayed = unreadable(source, [], delay=True)
    whole = take(delayed, make_config(), 10)
    for start in (0, 5, 9):
        resumed = take(delayed, make_config(), 10 - start, start_step=start)
        for a, b in zip(whole[start:], resumed, strict=True):
            assert_equal(a, b)


@pytest.mark.parametrize('threads', [0, 1, 4])
def test_threads_and_the_cache_change_no_batch(source, threads):
    expected = take(source, make_config(threads=2), 6)
    memory = dataclasses.replace(unreadable(source, [], delay=True), memory={})
    for a, b in zip(expected, take(memory, make_config(threads=threads), 6)):
        assert_equal(a, b)


def test_processes_that_read_some_rows_each_read_the_batch_of_one_and_no_image_twice(source):
    whole, decoded = take(source, make_config(threads=0), 4, batch_size=6, start_step=2), []
    counting = dataclasses.replace(source, load=lambda i: (decoded.append(i), source.load(i))[1])
    for rows in (range(0, 2), range(2, 6)):
        decoded.clear()
        part = take(counting, make_config(threads=0), 4, batch_size=6, start_step=2, rows=rows)
        assert len(decoded) == 4 * len(rows)
        for a, b in zip(whole, part, strict=True):
            assert_equal(Batch(*(x[rows.start:rows.stop] for x in a)), b)


def test_images_of_some_positions_are_evaluated_and_no_others_decoded(source):
    decoded = []
    counting = dataclasses.replace(source, load=lambda i: (decoded.append(i), source.load(i))[1])
    batches = list(eval_batches(counting, make_config(threads=0), 2, range(3, 6)))
    assert decoded == [3, 4, 5]
    assert [b.image_index[b.image_valid].tolist() for b in batches] == [[3, 4], [5]]


def test_another_seed_gives_other_batches_and_batches_differ(source):
    a, b = take(source, make_config(), 4), take(source, make_config(), 4, seed=6)
    assert any(x.image.tobytes() != y.image.tobytes() for x, y in zip(a, b))
    assert len({x.image.tobytes() for x in a}) == 4


def test_every_epoch_holds_every_image_once_in_an_order_of_its_own(source):
    order = np.concatenate([b.image_index for b in take(source, make_config(), 7)]).reshape(3, 7)
    assert (np.sort(order, axis=1) == np.arange(7)).all() and len(np.unique(order, axis=0)) > 1


def test_batches_of_one_image_are_endless_too(source):
    batches = take(source, make_config(), 7, batch_size=1)
    assert sorted(int(batch.image_index[0]) for batch in batches) == list(range(7))


def test_training_rows_hold_the_image_they_name(source):
    config = make_config(flip=0.0, scale_jitter=(1.0, 1.0), brightness=0.0, contrast=0.0, gamma=0.0)
    for batch in take(source, config, 3):
        assert batch.image.shape == (3, 64, 64, 3) and batch.image_valid.all()
        for row in range(3):
            example = source.load(int(batch.image_index[row]))
            assert batch.original_size[row].tolist() == list(example.image.shape[:2])
            assert batch.gt_valid[row].sum() == len(example.boxes)
            ratio = batch.image_size[row] / batch.original_size[row]
            expected = example.boxes * ratio[[1, 0, 1, 0]]
            np.testing.assert_allclose(batch.gt_boxes[row, :len(expected)], expected, rtol=1e-5)


def test_the_next_readable_image_takes_the_place_of_an_unreadable_one(source, caplog):
    whole = take(source, make_config(threads=0), 7)     # reads nothing ahead, which would meet the broken files too
    with caplog.at_level(logging.WARNING, logger='absl'):
        broken = take(unreadable(source, [2, 3], delay=True), make_config(max_unreadable=0.3), 7)
    stand_in = {2: 4, 3: 4}
    for a, b in zip(whole, broken):
        assert b.image_index.tolist() == [stand_in.get(i, i) for i in a.image_index.tolist()]
    warnings = [r.getMessage() for r in caplog.records if 'unreadable' in r.getMessage()]
    assert len(warnings) == 2 and {'3.png' in w or '4.png' in w for w in warnings} == {True}
    assert warnings[0].startswith('unreadable image 1 (of 7)') and warnings[1].startswith('unreadable image 2 (of 7)')
    for a, b in zip(broken[4:], take(source, make_config(max_unreadable=0.3), 3, start_step=4)):
        assert_equal(a, b)


def test_the_last_image_is_replaced_by_the_first(source):
    batches = take(unreadable(source, [6]), make_config(max_unreadable=0.5), 7)
    indices = np.concatenate([b.image_index for b in batches])
    assert np.bincount(indices, minlength=7).tolist() == [6, 3, 3, 3, 3, 3, 0]


def test_too_many_unreadable_images_stop_the_run(source):
    words = 'seven: 3 of 7 images are unreadable, more than data.max_unreadable = 0.2'
    with pytest.raises(ValueError, match=words) as error:
        take(unreadable(source, [1, 3, 5]), make_config(max_unreadable=0.2), 7)
    assert '.png: corrupt' in str(error.value)


def test_a_source_of_unreadable_images_is_an_error(source):
    with pytest.raises(ValueError, match='none of the 7 images can be read'):
        take(unreadable(source, range(7)), make_config(max_unreadable=1.0), 1)


def test_evaluation_takes_every_image_once_in_order_and_fills_the_last_batch(source):
    batches = list(eval_batches(source, make_config(), 3))
    assert [b.image.shape[0] for b in batches] == [3, 3, 3]
    index, valid = (np.concatenate([getattr(b, f) for b in batches]) for f in ('image_index', 'image_valid'))
    assert index[:7].tolist() == list(range(7)) and valid.tolist() == [True] * 7 + [False] * 2
    assert not np.concatenate([b.gt_valid for b in batches])[7:].any()
    assert len(list(eval_batches(source, make_config(), 7))) == 1


def test_evaluation_neither_flips_nor_jitters(source):
    plain = make_config(flip=0.0, scale_jitter=(1.0, 1.0), brightness=0.0, contrast=0.0, gamma=0.0)
    for a, b in zip(eval_batches(source, make_config(flip=1.0), 4), eval_batches(source, plain, 4)):
        assert_equal(a, b)
    first = next(iter(eval_batches(source, plain, 1)))
    assert first.image_size[0].tolist() == [34, 64] and first.original_size[0].tolist() == [32, 60]


def test_an_unreadable_image_at_evaluation_keeps_its_place_and_is_named(source, caplog):
    with caplog.at_level(logging.WARNING, logger='absl'):
        batches = list(eval_batches(unreadable(source, [4]), make_config(), 4))
    index, valid = (np.concatenate([getattr(b, f) for b in batches]) for f in ('image_index', 'image_valid'))
    assert index[:7].tolist() == list(range(7)) and valid.tolist() == [True] * 4 + [False] + [True] * 2 + [False]
    assert any('image 5 cannot be read' in r.getMessage() and '5.png' in r.getMessage() for r in caplog.records)


def coco_config(train, val=('', ''), **data):
    config = make_config(**data).unlock()
    config.data.train.annotations, config.data.train.images = map(str, train)
    config.data.val.annotations, config.data.val.images = map(str, val)
    return config.lock()


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


def test_one_unreadable_file_of_eleven_does_not_stop_a_run(write_boxes):
    source = unreadable(open_coco(*write_boxes(11)), [4])
    assert len(take(source, make_config(), 8)) == 8


def test_the_cache_option_keeps_images_in_memory(write_boxes):
    files = write_boxes(10)
    train, _ = open_sources(coco_config(files, cache=True))
    config = coco_config(files)     # threads read what is not in memory
    before = take(train, config, 3, batch_size=len(train))
    for i in range(len(train)):
        train.image_path(i).unlink()
    for a, b in zip(before, take(train, config, 3, batch_size=len(train))):
        assert_equal(a, b)
    assert sorted(key[0] for key in train.memory) == list(range(len(train)))
    assert all(max(example.image.shape) <= 64 for example, _ in train.memory.values())
    with pytest.raises(ValueError, match='unreadable'):
        take(train, make_config(scale=30), 1)       # other sizes are not in memory


def test_an_unknown_format_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"expected one of \['chestx_det', 'coco', .*\], got 'voc'"):
        open_sources(make_config(format='voc'))


def test_runs_on_the_same_phantom_share_its_images_and_no_others():
    def opened(**data):
        return open_sources(make_config(format='phantom', cache=True, flip_pairs=(), **data))

    train, val = opened()
    take(train, make_config(), 1)
    again, again_val = opened()
    assert again.memory is train.memory and again.memory and again_val.memory is val.memory is not train.memory
    other, _ = opened(mask_size=7)
    assert other.memory == {}, 'other masks'
    assert opened()[0].memory == {}, 'only the latest data set is kept'


def test_files_are_read_anew_by_every_run(write_boxes):
    config = coco_config(write_boxes(10), cache=True)
    first, second = (open_sources(config)[0] for _ in range(2))
    take(first, config, 1)
    assert first.memory and second.memory == {}


def test_the_phantom_goes_through_the_same_pipeline():
    config = make_config(format='phantom', canvas=(96, 96), scale=96, max_size=96, flip_pairs=(
        ('left lung', 'right lung'),))
    config.unlock()
    config.data.phantom.update(size=96, train_images=6, val_images=3)
    train, val = open_sources(config.lock())
    assert (len(train), len(val)) == (6, 3) and len(train.classes) == 13 and len(train.parts) == 5
    batch = next(iter(eval_batches(val, config, 3)))
    assert batch.image.shape == (3, 96, 96, 3) and batch.part_valid.any() and batch.image.std() > 10
