"""A data set written in TFDS form and read back is the same data set; TensorFlow is never there."""
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle_tools

from configs import base
from relnet_jax.data import pipeline, tfds_export
from relnet_jax.data.duplicates import look_at_images, unreadable_images
from relnet_jax.data.images import UnreadableImage
from relnet_jax.errors import UserError

SPLITS = ('train', 'val')


def config(**data):
    c = base.get_config().unlock()
    c.data.update(dict(canvas=(64, 64), scale=48, max_size=64, mask_size=14, threads=0) | data)
    c.data.split.folds = 2
    return c.lock()


def coco_config(files, **data):
    c = config(format='coco', **data)
    with c.unlocked():
        c.data.train.annotations, c.data.train.images = map(str, files)
    return c


def write(sources, folder, name='mine'):
    written, unreadable = tfds_export.export(dict(zip(SPLITS, sources)), folder, name=name)
    assert not unreadable and [path.name for path in written.parent.iterdir()] == ['1.0.0']
    return written


def read_back(train, val=None, **data):
    c = config(format='tfds', **data)
    with c.unlocked():
        c.data.train.annotations, c.data.val.annotations = str(train), str(val or train)
    return pipeline.open_sources(c)


def assert_same(before, after, *, lacks=()):
    """Class tables, records (but for keys that they lacked), examples and truth are equal, to the last bit."""
    for field in ('classes', 'category_ids', 'parts', 'annotated'):
        assert getattr(before, field) == getattr(after, field)
    assert before.records == [{k: v for k, v in r.items() if k not in lacks} for r in after.records]
    for i in range(len(before)):
        a, b = before.load(i), after.load(i)
        for field in a._fields:
            x, y = np.asarray(getattr(a, field)), np.asarray(getattr(b, field))
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y, err_msg=field)
    assert_same_truth(before.ground_truth(), after.ground_truth())


def assert_same_truth(first, second):
    """Annotations are numbered anew where a part of a data set was written."""
    first_rows, second_rows = ([a | dict(id=0) for a in truth['annotations']] for truth in (first, second))
    assert first_rows == second_rows and first['categories'] == second['categories']
    assert [(r['id'], r['file_name']) for r in first['images']] == [(r['id'], r['file_name']) for r in second['images']]


# ---- there and back ----
def test_the_phantom_comes_back_with_its_parts(tmp_path):
    c = config(format='phantom')
    with c.unlocked():
        c.data.phantom.update(size=64, train_images=6, val_images=3)
    sources = pipeline.open_sources(c)
    folder = write(sources, tmp_path, 'Phantom 64')
    assert folder == tmp_path / 'phantom_64' / '1.0.0'
    for before, after in zip(sources, read_back(folder), strict=True):
        assert_same(before, after, lacks=('file_name',))
        assert any(before.load(i).part_valid.any() for i in range(len(before)))
    with pytest.raises(UserError, match='is there already'):
        tfds_export.export(dict(train=sources[0]), tmp_path, name='phantom_64')


@pytest.fixture
def coco_files(tmp_path):
    """Text ids, folders, polygons, RLE, a crowd, a box without mask, a part, an image without objects, a resized copy,
    grey and colour, 16 bits, JPEG with an orientation, and categories in an order of their own, one of background."""
    rng = np.random.default_rng(0)
    blob = np.zeros((40, 50), np.uint8)
    blob[8:20, 10:30] = 1
    rle = rle_tools.encode(np.asfortranarray(blob))
    rle['counts'] = rle['counts'].decode()
    images = []
    for i in range(6):
        name = f'ward {i % 2}/film {i}.{"jpg" if i % 2 else "png"}'
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = [(40, 50, 3), (40, 50, 3), (40, 50), (20, 25), (40, 50), (60, 75)][i]
        pixels = rng.integers(0, 256, shape, np.uint8)
        if i == 1:
            Image.fromarray(np.ascontiguousarray(pixels.swapaxes(0, 1))).save(path, exif=b'Exif\0\0MM\0*\0\0\0\x08\0'
                                                                              b'\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0')
        else:
            cv2.imwrite(str(path), pixels.astype(np.uint16) * 16 if i == 4 else pixels)
        images.append(dict(id=f'im{i}', file_name=name, width=50, height=40, patient_id=f'p{i}', age=[i, None, 0.1]))
    boxes = [[10, 8, 20, 12], [3.25, 4.5, 20.1, 12.7], [1.1, 1.3, 5.7, 5.9]]
    annotations = []
    for i in range(5):
        segmentation = [[[3.25, 4.5, 23, 4.5, 20, 17.2]], rle, None][i % 3]
        annotations.append(dict(image_id=f'im{i}', category_id=7, iscrowd=0, bbox=boxes[[1, 0, 2][i % 3]])
                           | ({'segmentation': segmentation} if segmentation else {}))
        annotations.append(dict(image_id=f'im{i}', category_id=3, bbox=[20.3, 2.7, 10.1 + i, 30.9]))
        annotations.append(dict(image_id=f'im{i}', category_id=9, bbox=[5 + i, 4, 6.6, 10]))
    annotations.append(dict(image_id='im0', category_id=7, iscrowd=1, bbox=boxes[0], segmentation=rle))
    categories = [dict(id=7, name='nodule'), dict(id=3, name='heart'), dict(id=9, name='_background_')]
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(dict(images=images, categories=categories, annotations=[
        dict(id=i, **a) for i, a in enumerate(annotations, 1)])))
    return path, tmp_path / 'images'


@pytest.mark.parametrize('tables', [
    dict(parts=('heart',)), dict(), dict(parts=('heart', '_background_'), classes=('heart', 'nodule')),
    dict(classes=('_background_', 'nodule'))], ids=['part', 'no part', 'part and class', 'background'])
def test_a_coco_set_comes_back_whatever_is_in_it_and_knows_its_classes_and_parts(tmp_path, coco_files, tables):
    sources = pipeline.open_sources(coco_config(coco_files, **tables))
    folder = write(sources, tmp_path)
    for before, after in zip(sources, read_back(folder), strict=True):
        assert_same(before, after)
    assert {r['id'] for s in sources for r in s.records} == {f'im{i}' for i in range(6)}
    for before, after in zip(sources, read_back(folder, **tables), strict=True):    # the config may say it too
        assert_same(before, after)


def test_files_go_in_as_they_are_and_other_readers_find_what_tfds_calls_so(tmp_path, coco_files):
    source, _ = sources = pipeline.open_sources(coco_config(coco_files, parts=('heart',)))
    builder = tfds.builder_from_directory(str(write(sources, tmp_path)))
    stored = builder.as_data_source('train', decoders={'image': tfds.decode.SkipDecoding()})
    assert [e['image'] for e in stored] == [source.image_path(i).read_bytes() for i in range(len(source))]
    example = next(e for e in builder.as_data_source('train') if e['image/filename'] == b'ward 0/film 0.png')
    assert example['image'].shape == (40, 50, 3)
    assert builder.info.features['objects']['label'].names == ['nodule']
    assert builder.info.features['parts']['label'].names == ['heart']
    np.testing.assert_allclose(example['objects']['bbox'][0], [4.5 / 40, 3.25 / 50, 17.2 / 40, 23.35 / 50])
    assert list(example['objects']['is_crowd']) == [False, True]


@given(st.floats(0, 4000), st.floats(0.01, 4000))
def test_the_side_of_a_box_comes_back_from_its_corners(low, side):
    high = low + side
    extent = high - low                     # as ground_truth() gives it
    written = tfds_export._side(low, extent)
    assert abs(written - extent) <= np.spacing(extent)
    assert (low + written) - low == extent


def test_options_hold_for_what_is_read_back(tmp_path, coco_files):
    sources = pipeline.open_sources(coco_config(coco_files))
    folder = write(sources, tmp_path)
    train, _ = read_back(folder, rename=(('heart', 'Cor'), ('nodule', '')), min_box=12)
    assert train.classes == ('Cor',) and len(train) == len(sources[0])
    assert min(min(a['bbox'][2:]) for a in train.ground_truth()['annotations']) == pytest.approx(12)


# ---- TFDS's own form ----
def write_plain(folder, features, examples, split='train', file_format='array_record'):
    folder.mkdir(parents=True)
    info = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(name='plain', version=tfds.core.Version('2.0.0'),
                                                       data_dir=str(folder), module_name='plain'),
        features=tfds.features.FeaturesDict(features), disable_shuffling=True)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2, file_format=file_format)
    writer.initialize_splits([split])
    writer.add_examples({split: examples})
    writer.close_all()
    return folder


def png(*shape):
    return cv2.imencode('.png', np.full(shape, 90, np.uint8))[1].tobytes()


def plain_features(**more):
    f = tfds.features
    return {'image': f.Image(), 'objects': f.Sequence({'bbox': f.BBoxFeature(), 'label': f.ClassLabel(names='ab')}),
            **more}


def test_a_detection_set_of_tfds_is_read_with_boxes_in_pixels_and_without_masks(tmp_path):
    f = tfds.features
    rows = [[((.25, .1, .75, .5), 1)], [], [((0., 0., 1., 1.), 0), ((.5, .5, .9, .9), 1)]]
    examples = [{'image': png(40, 50 + i), 'image/filename': f'{i}.png', 'image/id': 70 + i, 'objects': [
        dict(bbox=f.BBox(*box), label=label) for box, label in found]} for i, found in enumerate(rows)]
    features = plain_features(**{'image/filename': f.Text(), 'image/id': np.int64})
    one = write_plain(tmp_path / 'one', features, examples)
    two = write_plain(tmp_path / 'two', features, examples[:1], 'validation')
    train, val = read_back(one, two)
    assert train.classes == ('a', 'b') and train.image_ids == [70, 71, 72] and len(val) == 1
    assert train.records[1] == dict(id=71, file_name='1.png', height=40, width=51)
    example = train.load(0)
    np.testing.assert_allclose(example.boxes, [[5, 10, 25, 30]], rtol=1e-6)
    assert example.labels.tolist() == [2] and not example.has_mask.any() and (example.image == 90).all()
    np.testing.assert_allclose(train.load(2).boxes[0], [0, 0, 52, 40], rtol=1e-6)


# ---- what cannot be read ----
def test_what_is_no_such_data_set_is_said_in_one_line(tmp_path):
    def said(match, *folders, kind=UserError):
        with pytest.raises(kind, match=match) as caught:
            read_back(*folders)
        assert '\n' not in str(caught.value)

    said('no TFDS folder', tmp_path / 'none', kind=FileNotFoundError)
    said('expected the folder of one TFDS data set, found no dataset_info.json', tmp_path)
    f = tfds.features
    texts = write_plain(tmp_path / 'texts', {'text': f.Text()}, [dict(text='a')])
    said('a TFDS data set of text; expected .* image .* objects with bbox', texts)
    classified = write_plain(tmp_path / 'labels', {'image': f.Image(), 'label': f.ClassLabel(num_classes=2)}, [])
    said('a TFDS data set of image, label; expected', classified)
    said('found several, choose one: .*labels.*texts', tmp_path)
    boxes = write_plain(tmp_path / 'boxes', plain_features(), [
        dict(image=png(40, 40), objects=[dict(bbox=f.BBox(.1, .1, .5, .5), label=0)])])
    said("boxes: no split 'val or validation', it has train", boxes)
    info = json.loads((boxes / 'dataset_info.json').read_text())
    (boxes / 'dataset_info.json').write_text(json.dumps(info | dict(fileFormat='tfrecord')))
    said("of tfrecord files, which TensorFlow alone reads; expected file_format='array_record'", boxes)
    (boxes / 'dataset_info.json').write_text('{')
    said('TFDS cannot open it', boxes)
    (shard,) = texts.parent.glob('boxes/*array_record*')
    (boxes / 'dataset_info.json').write_text(json.dumps(info))
    shard.write_bytes(shard.read_bytes()[:100])
    said('cannot be (opened|read)', boxes)
    shard.unlink()
    said('cannot be (opened|read)', boxes)


def test_an_unreadable_image_is_written_as_it_is_named_and_still_unreadable(tmp_path, coco_files):
    source, val = pipeline.open_sources(coco_config(coco_files, parts=('heart',)))
    path = source.image_path(0)
    path.write_bytes(path.read_bytes()[:-60])
    folder, unreadable = tfds_export.export(dict(train=source, val=val), tmp_path, name='mine')
    assert len(unreadable) == 1 and path.name in unreadable[0]
    back, _ = read_back(folder)
    assert back.records == source.records
    assert_same_truth(source.ground_truth(), back.ground_truth())
    with pytest.raises(UnreadableImage, match=path.name):
        back.load(0)
    (line,) = unreadable_images(back, look_at_images(back, 1))
    assert path.name in line


def test_an_export_that_fails_leaves_nothing_behind(tmp_path, coco_files):
    source, _ = pipeline.open_sources(coco_config(coco_files))
    source.image_path(1).unlink()
    with pytest.raises(OSError):
        tfds_export.export(dict(train=source), tmp_path / 'out', name='mine')
    assert not list((tmp_path / 'out').rglob('*.array_record*'))


# ---- the command ----
def test_the_command_writes_and_reading_never_imports_tensorflow(tmp_path):
    code = '''if True:
        import sys
        from relnet_jax.data import pipeline, tfds_export
        assert 'tensorflow_datasets' not in sys.modules
        assert tfds_export.main(sys.argv[1:]) == 0
        from tests.data.formats.test_tfds import read_back
        assert [len(s) for s in read_back(sys.argv[2][6:] + '/p/1.0.0')] == [2, 1]
        assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules
    '''
    flags = ['--config=phantom', f'--out={tmp_path}', '--name=p', '--config.data.phantom.size=64',
             '--config.data.phantom.train_images=2', '--config.data.phantom.val_images=1']
    run = subprocess.run([sys.executable, '-c', code, *flags], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert f'3 images in {tmp_path}/p/1.0.0' in run.stdout
    assert tfds_export.main(['--split=val', *flags]) == 2


def test_the_command_writes_one_split_alone(tmp_path, capsys):
    flags = ['--config=phantom', f'--out={tmp_path}', '--split=val', '--config.data.phantom.size=64',
             '--config.data.phantom.train_images=2', '--config.data.phantom.val_images=1']
    assert tfds_export.main(flags) == 0
    assert '--config.data.val.annotations=' in capsys.readouterr().out
    with pytest.raises(UserError, match="no split 'train', it has val"):
        read_back(tmp_path / 'phantom')
