"""Other data than a run was trained on are noticed, wherever they lie."""
import json
import shutil

import cv2
import numpy as np
import pytest

from relnet_jax.data import pipeline
from relnet_jax.runs.fingerprint import changes, fingerprint
from tests.tiny_run import tiny_config, write_films


def config_of(folder):
    c = tiny_config()
    c.data.format, c.data.split.folds = 'coco', 5
    c.data.train.update(annotations=str(folder / 'instances.json'), images=str(folder / 'images'))
    return c


def mark(config):
    return json.loads(json.dumps(fingerprint(config, *pipeline.open_sources(config))))      # as it comes from a file


@pytest.fixture
def folder(tmp_path):
    return write_films(tmp_path / 'films', [(40, 50)] * 24)


def edit(folder, change):
    path = folder / 'instances.json'
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_the_same_data_elsewhere_are_the_same(folder, tmp_path):
    before = mark(config_of(folder))
    moved = shutil.move(folder, tmp_path / 'elsewhere')
    assert changes(before, mark(config_of(moved))) == []


def test_images_that_are_gone_are_noticed_with_what_becomes_of_the_split(folder):
    before = mark(config_of(folder))
    edit(folder, lambda d: d.update(images=d['images'][3:], annotations=d['annotations'][3:]))
    assert changes(before, mark(config_of(folder))) == [
        'config.data.train.annotations has other contents', '16 training images, were 19',
        '5 validation images, others, or in another order']


def test_a_changed_box_a_renamed_film_and_another_split_are_noticed(folder):
    config = config_of(folder)
    before = mark(config)
    edit(folder, lambda d: d['annotations'][0].update(bbox=[5, 5, 20, 21]))
    assert changes(before, mark(config)) == ['config.data.train.annotations has other contents']
    edit(folder, lambda d: d['annotations'][0].update(bbox=[5, 5, 20, 20]))
    assert changes(before, mark(config)) == []
    config.data.split.hold_out = 1
    assert changes(before, mark(config)) == ['19 training images, others, or in another order',
                                             '5 validation images, others, or in another order']


def test_a_file_that_comes_or_goes_is_noticed(folder, tmp_path):
    config = config_of(folder)
    before = mark(config)
    (tmp_path / 'meta.csv').write_text('id,patient\n' + ''.join(f'{i},{i}\n' for i in range(77, 101)))
    config.data.meta = str(tmp_path / 'meta.csv')
    assert changes(before, mark(config)) == ['config.data.meta was not there']
    assert changes(mark(config), before) == ['config.data.meta is gone']


def test_validation_data_of_their_own_are_looked_at_too(folder, tmp_path):
    other = write_films(tmp_path / 'val', [(40, 50)] * 3)
    config = config_of(folder)
    config.data.val.update(annotations=str(other / 'instances.json'), images=str(other / 'images'))
    before = mark(config)
    edit(other, lambda d: d['images'].reverse())
    assert changes(before, mark(config)) == ['config.data.val.annotations has other contents',
                                             '3 validation images, others, or in another order']


def test_the_phantom_is_its_parameters():
    config = tiny_config()
    before = mark(config)
    config.data.phantom.seed = 4
    assert changes(before, mark(config)) == ['config.data.phantom.seed is 4, was 0']
    del before['phantom']['seed']       # of a version that had no such key
    assert changes(before, mark(config)) == []


def test_the_listing_of_a_folder_stands_for_its_files(tmp_path):
    config = tiny_config()
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((4, 4), np.uint8))
    sources = pipeline.open_sources(config)
    config.data.train.annotations = str(tmp_path)
    before = fingerprint(config, *sources)
    assert changes(before, fingerprint(config, *sources)) == []
    (tmp_path / 'b.png').touch()
    assert changes(before, fingerprint(config, *sources)) == ['config.data.train.annotations has other contents']
