"""Class graphs: co-occurrence against golden values and counting by hand; files that are refused."""
import warnings
from pathlib import Path

import numpy as np
import pytest

from relnet_jax.ops.graph import cooccurrence, read_adjacency

GOLDEN = Path(__file__).resolve().parents[1] / 'golden' / 'relations.npz'
PRESENCE = np.array([[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0]])


@pytest.mark.parametrize('name, subset', [('adjacency_all', None), ('adjacency_subset_1_3_4_7', (1, 3, 4, 7))])
def test_golden(name, subset):
    file = np.load(GOLDEN)
    got = cooccurrence(file[f'{name}/input/image_class_indicator'], subset=subset)
    np.testing.assert_allclose(got, file[f'{name}/expected'], atol=1e-6)
    assert got.dtype == np.float32


def test_counts_by_hand_and_the_name_of_a_class_without_image():
    with pytest.warns(UserWarning, match='no image of class hernia;'):
        graph = cooccurrence(PRESENCE, class_names=('background', 'mass', 'effusion', 'hernia'))
    edge = 2 / np.sqrt(4 * 3)  # together in 2 images, alone in 4 and 3
    np.testing.assert_allclose(graph, [[1, 0, 0, 0], [0, 1, edge, 0], [0, edge, 1, 0], [0, 0, 0, 0]], rtol=1e-6)


def test_background_column_and_repeated_findings_do_not_count():
    presence = PRESENCE[:, :3]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        plain = cooccurrence(presence)
        np.testing.assert_array_equal(cooccurrence(presence * [7, 3, 2] + [1, 0, 0]), plain)


def test_subset_keeps_the_diagonal_of_all():
    graph = cooccurrence(PRESENCE[:, :3], subset=(1,))
    np.testing.assert_array_equal(graph, np.eye(3))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r'\[images, K\], got shape \(5,\)'):
        cooccurrence(PRESENCE[:, 0])
    with pytest.raises(ValueError, match='expected 4 class names, got 2'):
        cooccurrence(PRESENCE, class_names=('background', 'mass'))
    with pytest.raises(ValueError, match=r'subset must lie in 1..2, got \[0, 3\]'):
        cooccurrence(PRESENCE[:, :3], subset=(0, 1, 3))


@pytest.mark.parametrize('suffix', ['.npy', '.csv'])
def test_a_written_graph_reads_back(tmp_path, suffix):
    graph, path = cooccurrence(PRESENCE[:, :3]), tmp_path / f'graph{suffix}'
    np.save(path, graph) if suffix == '.npy' else np.savetxt(path, graph, delimiter=',')
    read = read_adjacency(path, 3)
    np.testing.assert_allclose(read, graph, rtol=1e-6)
    assert read.dtype == np.float32


@pytest.mark.parametrize('text, message', [
    ('1,0\n0,1', r'expected a matrix \[3, 3\].*got shape \[2, 2\]'),
    ('1,0,0\n0,1,2\n0,3,1', 'symmetric matrix, got 2.0 at row 1, column 2 and 3.0'),
    ('1,0,0\n0,nan,2\n0,2,1', 'finite numbers, got nan at row 1, column 1'),
    ('1,0,0\n0,a,2\n0,2,1', 'not a numeric matrix'),
    ('1,0,0\n0,1\n0,2,1', 'not a numeric matrix')])
def test_a_bad_file_is_named_with_its_fault(tmp_path, text, message):
    path = tmp_path / 'graph.csv'
    path.write_text(text)
    with pytest.raises(ValueError, match=f'graph.csv: .*{message}'):
        read_adjacency(path, 3)


def test_other_extensions_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"graph.txt: expected a .npy or .csv file, got '.txt'"):
        read_adjacency(tmp_path / 'graph.txt', 3)
