"""The class graph of a run: counted in the training images, kept beside the run, cut to a few classes, or read."""
import dataclasses

import numpy as np
import pytest

from relnet_jax import config as config_lib
from relnet_jax.data import graph, pipeline
from relnet_jax.data.source import Source


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setattr(graph, '_counted', {})
    c = config_lib.load('configs/lab.py:fpn_5').copy_and_resolve_references()
    c.data.phantom.update(size=64, train_images=6, val_images=1)
    return c


def source_of(found, *, classes=('a', 'b', 'c'), name='toy', id_of=lambda i: 100 + i):
    """A source whose image i holds the classes found[i]; category ids are 10, 20, ..."""
    ids = tuple(10 * (i + 1) for i in range(len(classes)))
    boxes = [dict(image_id=id_of(i), category_id=ids[classes.index(c)]) for i, held in enumerate(found) for c in held]
    images = [dict(id=id_of(i)) for i in range(len(found))]
    return Source(name=name, classes=classes, category_ids=ids, parts=(), records=images, load=None,
                  ground_truth=lambda: dict(images=images, annotations=boxes, categories=[]))


FOUND = ['aab', 'ab', 'a', '', 'bc']        # a in 3 images, b in 3, c in 1; a with b twice, b with c once


def test_edges_are_the_share_of_images_that_hold_both(config):
    expected = np.eye(4)
    expected[1, 2] = expected[2, 1] = 2 / 3
    expected[2, 3] = expected[3, 2] = 1 / np.sqrt(3)
    found = graph.class_graph(source_of(FOUND), config)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert all(isinstance(v, float) for row in found for v in row)


def test_image_ids_may_be_text(config):
    found = graph.class_graph(source_of(FOUND, id_of='film{}'.format), config)
    assert found == graph.class_graph(source_of(FOUND), config)


def test_the_phantoms_graph_is_that_of_its_examples(config):
    source, _ = pipeline.open_sources(config)
    presence = np.zeros((len(source), 14))
    for i in range(len(source)):
        presence[i, source.load(i).labels] = 1
    np.testing.assert_array_equal(graph.presence(source), presence)


def test_a_run_without_a_class_graph_has_none(config):
    for run in ('base', 'fpn_6', 'nine', 'eight', 'five', 'sc_nograph'):
        assert graph.class_graph(source_of(FOUND), config_lib.load(f'configs/lab.py:{run}')) is None
    for run in ('one', 'seven', 'sc_noatt', 'fpn_8', 'base_cls'):
        assert graph.needs_graph(config_lib.load(f'configs/lab.py:{run}'))


def test_edges_stay_among_the_chosen_classes_and_absent_names_are_warned_of(config, caplog):
    config.data.graph_classes = ('b', 'Cavity', 'c')
    found = np.array(graph.class_graph(source_of(FOUND), config))
    assert found[1, 2] == 0 and found[2, 3] > 0 and (np.diag(found) == 1).all()
    assert "toy has no class 'Cavity'" in caplog.text
    config.data.graph_classes = ('b', 'Cavity')
    with pytest.raises(ValueError, match=r"graph_classes: expected two or more classes of toy, .*'Cavity'"):
        graph.class_graph(source_of(FOUND), config)


def test_a_class_without_images_is_named_in_the_log(config, caplog):
    found = np.array(graph.class_graph(source_of(['ab', 'a']), config))
    assert (found[3] == 0).all() and 'no image of class c' in caplog.text


def test_the_graph_is_kept_beside_the_run_until_the_data_change(config, tmp_path, capsys, monkeypatch):
    made = graph.class_graph(source_of(FOUND), config, workdir=tmp_path)
    assert '0.67' in capsys.readouterr().err and (tmp_path / graph.CACHE).exists()

    def never():
        raise AssertionError('counted again')
    blind = dataclasses.replace(source_of(FOUND), ground_truth=never)
    assert graph.class_graph(blind, config, workdir=tmp_path / 'another') == made       # in one process: from memory
    monkeypatch.setattr(graph, '_counted', {})
    assert graph.class_graph(blind, config, workdir=tmp_path) == made       # to the last bit, through a text file
    with pytest.raises(AssertionError, match='counted again'):
        graph.class_graph(blind, config)
    other = graph.class_graph(source_of(FOUND[:2]), config, workdir=tmp_path)
    assert other != made and other == graph.class_graph(source_of(FOUND[:2]), config)
    config.data.graph_classes = ('a', 'c')
    assert graph.class_graph(source_of(FOUND[:2]), config, workdir=tmp_path) != other


def test_an_annotation_file_that_changed_is_counted_again(config, tmp_path):
    file = tmp_path / 'instances.json'
    file.write_text('{}')
    config.data.train.annotations = str(file)
    made = graph.class_graph(source_of(FOUND), config, workdir=tmp_path)
    file.write_text('{ }')
    assert graph.class_graph(source_of(['a', 'b', 'c', 'ab', 'bc']), config, workdir=tmp_path) != made


def test_a_graph_from_a_file_is_taken_as_it_is(config, tmp_path):
    matrix = np.eye(4, dtype=np.float32)
    matrix[1, 3] = matrix[3, 1] = 0.25
    np.save(tmp_path / 'knowledge.npy', matrix)
    config.data.graph = str(tmp_path / 'knowledge.npy')
    np.testing.assert_array_equal(graph.class_graph(source_of(FOUND), config, workdir=tmp_path), matrix)
    config.data.graph_classes = ('a', 'b')
    with pytest.raises(ValueError, match='graph_classes must be'):
        graph.class_graph(source_of(FOUND), config)


def test_many_classes_are_printed_as_the_strongest_edges(capsys):
    matrix = np.eye(31)
    matrix[4, 9] = matrix[9, 4] = 0.8
    graph.show(matrix, tuple(f'class {i}' for i in range(31)), title='many')
    text = capsys.readouterr().err
    assert 'strongest 20 edges of 30 classes' in text
    assert text.index('class 4, class 9') < text.index('class 1, class 2')


def test_a_subset_holds_the_images_whose_record_says_so(config):
    config.data.subset = 'annotator=reader0'
    train, val = pipeline.open_sources(config)
    assert train.image_ids == [0, 3] and len(val) == 1
    config.data.subset = 'annotator=reader9'
    with pytest.raises(ValueError, match=r"no image has annotator 'reader9' .* there are \['reader0', 'reader1'"):
        pipeline.open_sources(config)
    config.data.subset = 'doctor=x'
    with pytest.raises(ValueError, match=r"image 0 has no key 'doctor'.* it has \['annotator', 'height', 'id'"):
        pipeline.open_sources(config)
    config.data.subset = 'annotator'
    with pytest.raises(ValueError, match="expected 'key=value', got 'annotator'"):
        pipeline.open_sources(config)
