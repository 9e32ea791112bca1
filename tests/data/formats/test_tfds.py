"""A data set written in TFDS form and read back is the same data set; TensorFlow is never there."""
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle_tools

from configs import base
from relnet_jax.data import pipeline, tfds_export
from relnet_jax.errors import UserError


def config(**data):
    c = base.get_config().unlock()
    c.data.update(dict(canvas=(64, 64), scale=48, max_size=64, mask_size=14, threads=0) | data)
    c.data.split.folds = 2
    return c.lock()


def same(first, second):
    """Two sources give equal examples, records, tables and truth."""
    assert (first.classes, first.parts, len(first)) == (second.classes, second.parts, len(second))
    assert first.category_ids == second.category_ids
    for i in range(len(first)):
        a, b = first.load(i), second.load(i)
        for field in ('image', 'boxes', 'labels', 'crowd', 'masks', 'has_mask', 'part_boxes', 'part_valid'):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field), err_msg=field)
        assert (a.image_id, a.index) == (b.image_id, b.index)
        assert {k: v for k, v in first.records[i].items() if k != 'file_name'} == {
            k: v for k, v in second.records[i].items() if k != 'file_name'}
    truths = [source.ground_truth() for source in (first, second)]
    for a, b in zip(*(truth['annotations'] for truth in truths), strict=True):
        np.testing.assert_allclose(a['bbox'], b['bbox'], rtol=1e-12)
        assert [a.get(k) for k in ('image_id', 'category_id', 'area', 'iscrowd', 'segmentation')] == [
            b.get(k) for k in ('image_id', 'category_id', 'area', 'iscrowd', 'segmentation')]


def read_back(folder, **data):
    c = config(format='tfds', **data)
    with c.unlocked():
        c.data.train.annotations = c.data.val.annotations = str(folder)
    return pipeline.open_sources(c)


def test_the_phantom_comes_back_with_its_parts(tmp_path):
    c = config(format='phantom')
    with c.unlocked():
        c.data.phantom.update(size=64, train_images=4, val_images=3)
    sources = pipeline.open_sources(c)
    folder = tfds_export.export(dict(zip(('train', 'val'), sources)), tmp_path, name='Phantom 64')
    assert folder == tmp_path / 'phantom_64' / '1.0.0'
    for before, after in zip(sources, read_back(folder)):
        same(before, after)
    with pytest.raises(UserError, match='is there already'):
        tfds_export.export(dict(train=sources[0]), tmp_path, name='phantom_64')


@pytest.fixture
def coco_files(tmp_path):
    """Text ids, polygons, RLE, a crowd, a box without mask, a part, an image without objects, a resized copy."""
    rng = np.random.default_rng(0)
    (tmp_path / 'images').mkdir()
    blob = np.zeros((40, 50), np.uint8)
    blob[8:20, 10:30] = 1
    rle = rle_tools.encode(np.asfortranarray(blob))
    rle['counts'] = rle['counts'].decode()
    images = []
    for i in range(6):
        name = f'film {i}.{"jpg" if i % 2 else "png"}'
        size = (20, 25) if i == 3 else (40, 50)
        cv2.imwrite(str(tmp_path / 'images' / name), rng.integers(0, 256, (*size, 3), np.uint8))
        images.append(dict(id=f'im{i}', file_name=name, width=50, height=40, patient_id=f'p{i}'))
    boxes = [[10, 8, 20, 12], [3.25, 4.5, 20.1, 12.7], [1, 1, 5, 5]]
    annotations = []
    for i in range(5):
        segmentation = [[[3.25, 4.5, 23, 4.5, 20, 17]], rle, None][i % 3]
        annotations.append(dict(id=len(annotations) + 1, image_id=f'im{i}', category_id=7, iscrowd=0,
                                bbox=boxes[[1, 0, 2][i % 3]])
                           | ({'segmentation': segmentation} if segmentation else {}))
        annotations.append(dict(id=len(annotations) + 1, image_id=f'im{i}', category_id=3, bbox=[20, 2, 10, 30]))
    annotations.append(dict(id=99, image_id='im0', category_id=7, iscrowd=1, bbox=boxes[0], segmentation=rle))
    categories = [dict(id=7, name='nodule'), dict(id=3, name='heart')]
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return path, tmp_path / 'images'


def test_a_coco_set_comes_back_whatever_is_in_it(tmp_path, coco_files):
    c = config(format='coco', parts=('heart',))
    with c.unlocked():
        c.data.train.annotations, c.data.train.images = map(str, coco_files)
    sources = pipeline.open_sources(c)
    folder = tfds_export.export(dict(zip(('train', 'val'), sources)), tmp_path, name='mine')
    for before, after in zip(sources, read_back(folder)):
        same(before, after)
    assert {r['id'] for s in sources for r in s.records} == {f'im{i}' for i in range(6)}
    import tensorflow_datasets as tfds
    example = tfds.builder_from_directory(str(folder)).as_data_source(split='train')[0]
    assert set(example) == {'image', 'file_name', 'record', 'objects'}


def test_what_is_no_such_data_set_is_said_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match='no TFDS folder'):
        read_back(tmp_path / 'none')
    with pytest.raises(UserError, match='not a TFDS data set, no dataset_info.json'):
        read_back(tmp_path)
    (tmp_path / 'dataset_info.json').write_text('{')
    with pytest.raises(UserError, match='TFDS cannot open it'):
        read_back(tmp_path)


def test_the_command_writes_and_tensorflow_is_never_imported(tmp_path):
    code = ('import sys; from relnet_jax.data import tfds_export; '
            'assert tfds_export.main(sys.argv[1:]) == 0; assert "tensorflow" not in sys.modules')
    flags = ['--config=phantom', f'--out={tmp_path}', '--name=p', '--config.data.phantom.size=64',
             '--config.data.phantom.train_images=2', '--config.data.phantom.val_images=1']
    run = subprocess.run([sys.executable, '-c', code, *flags], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert f'3 images in {tmp_path}/p/1.0.0' in run.stdout
    assert [len(s) for s in read_back(tmp_path / 'p' / '1.0.0')] == [2, 1]
