"""Odd files of real exports, from the folder of real data."""
from collections import Counter

import numpy as np
import pytest

from configs import base
from relnet_jax.data.issues import summary
from relnet_jax.data.pipeline import open_for_model, open_sources
from relnet_jax.data.source import CLASS_TABLE
from tests.data.opening import open_coco


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
