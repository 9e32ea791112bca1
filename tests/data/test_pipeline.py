"""Streams of batches: pure functions of (seed, step), whatever the threads do and whatever cannot be read."""
import dataclasses
import logging
import random
import time
from itertools import islice

import numpy as np
import pytest

from relnet_jax.data.pipeline import eval_batches, open_sources, train_batches
from relnet_jax.types import Batch
from tests.data.opening import coco_config, make_config, open_coco


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
