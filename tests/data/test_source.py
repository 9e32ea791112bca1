"""Subsets and splits by group."""
from collections import Counter

import numpy as np
import pytest

from relnet_jax.data.phantom import phantom_source
from relnet_jax.data.source import for_model, split, subset
from tests.data.opening import open_coco


@pytest.fixture
def source(write_coco):
    """20 images of 6 patients with 1 to 8 images each."""
    patients = [1] * 8 + [2] * 4 + [3] * 3 + [4] * 2 + [5] * 2 + [6]
    files = write_coco([{'id': i, 'image_id': i, 'category_id': 3, 'bbox': [i, 1, 5, 5]} for i in range(1, 21, 2)],
                       sizes=[(20, 40)] * 20,
                       images=[{'id': i, 'file_name': f'{i}.png', 'height': 20, 'width': 40, 'patient': f'p{p}'}
                               for i, p in enumerate(patients, 1)])
    return open_coco(*files, name='set', mask_size=4)


def test_a_subset_counts_positions_anew_and_keeps_ids_and_truth(source):
    part = subset(source, [4, 2], name='part')
    assert part.name == 'part' and part.image_ids == [5, 3] and len(part) == 2
    example = part.load(1)
    assert (example.index, example.image_id) == (1, 3)
    np.testing.assert_array_equal(example.image, source.load(2).image)
    assert part.image_path(0) == source.image_path(4)
    truth = part.ground_truth()
    assert {i['id'] for i in truth['images']} == {3, 5} == {a['image_id'] for a in truth['annotations']}
    assert len(source.ground_truth()['annotations']) == 10


def test_parts_of_a_model_are_found_by_name_and_unknown_where_the_data_lack_them():
    known = phantom_source(split='val', seed=0, ambiguity=0.5, size=64, train_images=1, val_images=2, mask_size=4)
    classes = dict(classes=known.classes, category_ids=known.category_ids)
    assert for_model(known, **classes, parts=known.parts) is known
    model = for_model(known, **classes, parts=('Heart', 'Airways', 'Left Lung'))
    ours, theirs = model.load(1), known.load(1)
    assert model.parts == ('Heart', 'Airways', 'Left Lung') and ours.part_valid.tolist() == [True, False, True]
    np.testing.assert_array_equal(ours.part_boxes[[0, 2]], theirs.part_boxes[[4, 2]])
    np.testing.assert_array_equal(ours.part_boxes[1], 0)
    none = for_model(known, **classes, parts=()).load(0)
    assert none.part_boxes.shape == (0, 4) and none.part_valid.shape == (0,)


@pytest.mark.parametrize('by', ['id', 'patient'])
def test_folds_cover_everything_once_and_keep_groups_together(source, by):
    held = Counter()
    for fold in range(4):
        train, val = split(source, by=by, folds=4, hold_out=fold)
        assert sorted(train.image_ids + val.image_ids) == source.image_ids
        assert not {r[by] for r in train.records} & {r[by] for r in val.records}
        held.update(val.image_ids)
    assert held == Counter(source.image_ids)


def test_folds_are_of_equal_size_where_groups_allow_it(source):
    assert [len(split(source, by='id', folds=4, hold_out=k)[1]) for k in range(4)] == [5, 5, 5, 5]
    assert sorted(len(split(source, by='patient', folds=3, hold_out=k)[1]) for k in range(3)) == [6, 6, 8]


def test_folds_depend_on_the_values_and_not_on_the_order_of_images(source):
    shuffled = subset(source, np.random.default_rng(0).permutation(20).tolist(), name='shuffled')
    for by in ('id', 'patient'):
        a, b = (split(s, by=by, folds=5, hold_out=2)[1] for s in (source, shuffled))
        assert set(a.image_ids) == set(b.image_ids)


def test_folds_by_id_are_not_stripes(source):
    held = sorted(split(source, by='id', folds=4, hold_out=0)[1].image_ids)
    assert len(set(np.diff(held))) > 1


@pytest.mark.parametrize('options, words', [
    (dict(by='doctor', folds=5, hold_out=0), "no key 'doctor' to split by .data.split.by.; it has .*'patient'"),
    (dict(by='id', folds=1, hold_out=0), 'got 1 and 0'), (dict(by='id', folds=5, hold_out=5), 'got 5 and 5'),
    (dict(by='patient', folds=7, hold_out=0), "6 different values of 'patient' cannot fill 7 folds")])
def test_splits_that_cannot_be_made_are_errors(source, options, words):
    with pytest.raises(ValueError, match=words):
        split(source, **options)
