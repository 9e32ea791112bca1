"""ChestX-Det and the lab's JSON: films with parallel lists."""
import json

import pytest

from configs import base
from relnet_jax.data.formats import chestx_det, lab
from relnet_jax.data.formats.broken import Broken
from relnet_jax.data.formats.records import flat_polygons

SQUARE = [[10, 10], [30, 10], [30, 40], [10, 40]]


def read_chestx_det(file):
    return chestx_det.read(file, file.parent, base.get_config().data)


def read_lab(file):
    return lab.read(file, file.parent, base.get_config().data)


@pytest.fixture
def write(tmp_path):
    def write(document):
        file = tmp_path / 'films.json'
        file.write_text(json.dumps(document))
        return file
    return write


@pytest.mark.parametrize('split, films, findings', [('train', 3025, 7905), ('test', 553, 1734)])
def test_the_complete_chestx_det_is_read(real_data, split, films, findings):
    file = real_data / 'chestx_det' / f'ChestX_Det_{split}.json'
    document, issues = read_chestx_det(file)
    assert issues == [] and len(document['images']) == films and len(document['annotations']) == findings
    source = json.loads(file.read_text())
    assert [a['image_id'] - 1 for a in document['annotations']] == [i for i, r in enumerate(source) for _ in r['syms']]
    x1, y1, x2, y2 = next(r for r in source if r['boxes'])['boxes'][0]
    assert document['annotations'][0]['bbox'] == [x1, y1, x2 - x1, y2 - y1]


def test_the_training_annotations_have_the_counts_of_the_published_statistics(real_data):
    document, _ = read_chestx_det(real_data / 'chestx_det' / 'ChestX_Det_train.json')
    statistics = json.loads((real_data / 'chestx_det' / 'statistics.json').read_text())
    names = {c['id']: c['name'] for c in document['categories']}
    assert tuple(names.values()) == chestx_det.CLASSES == tuple(statistics['classes'])
    found = [names[a['category_id']] for a in document['annotations']]
    assert {name: found.count(name) for name in chestx_det.CLASSES} == {
        name: values['instances'] for name, values in statistics['per_class'].items()}
    in_image = {(a['image_id'], names[a['category_id']]) for a in document['annotations']}
    assert [sum(name == other for _, other in in_image) for name in chestx_det.CLASSES] == [
        row[i] for i, row in enumerate(statistics['cooccurrence'])]
    images = {i['id'] for i in document['images']}
    assert len(images) == statistics['images']
    assert len(images - {i for i, _ in in_image}) == statistics['images_without_finding']
    assert all(len(a['segmentation']) == 1 for a in document['annotations'])


def test_every_chestx_det_record_is_used_or_reported(write):
    good = dict(file_name='a.png', syms=['Mass', 'Rib'], boxes=[[1, 2, 3, 4], [5, 6, 9, 9]], polygons=[SQUARE, []])
    document, issues = read_chestx_det(write([
        good, dict(file_name='b.png', syms=[], boxes=[], polygons=[]), 'c', dict(syms=[]), good,
        dict(file_name='d.png', syms=['Mass'], boxes=[]), dict(file_name='e.png', syms='Mass', boxes=[[1, 2, 3, 4]]),
        dict(file_name='f.png', syms=['Mass', 3, 'Mass', 'Mass'], polygons=[SQUARE, SQUARE, SQUARE, 'round'],
             boxes=[[1, 2, 3], [1, 2, 3, 4], [9, 9, 3, 4], [1, 2, 3, 4]]),
        dict(file_name='g.png', syms=['Mass'], boxes=[[1, 2, 3, 10 ** 400]]), dict(file_name='h.png')]))
    assert [i['file_name'] for i in document['images']] == ['a.png', 'b.png', 'f.png', 'g.png', 'h.png']
    assert [(a['image_id'], a['category_id'], a['bbox'], a['segmentation']) for a in document['annotations']] == [
        (1, 10, [1, 2, 2, 2], [[10, 10, 30, 10, 30, 40, 10, 40]]), (1, 14, [5, 6, 4, 3], []), (8, 10, [1, 2, 2, 2], [])]
    assert document['categories'][-1] == dict(id=14, name='Rib')
    assert document['annotations'][1]['where'] == 'record 0, finding 1'
    assert_issues(issues, [
        "record 2: no dict with a file_name ('c'): dropped", 'record 3: no dict with a file_name',
        "record 4: file_name is also that of an earlier record (['a.png', 0]): dropped",
        'record 5: boxes, syms are not equally many ([0, 1]): dropped', "record 6: syms is no list ('Mass'): dropped",
        'record 7, finding 0: box is not four finite numbers ([1, 2, 3]): dropped',
        'record 7, finding 1: expected a name (3): dropped',
        'record 7, finding 2: box (xyxy) without positive width and height ([9, 9, 3, 4]): dropped',
        "record 7, finding 3: polygon is neither [x, y] points nor a flat list of them ('round'): box kept",
        'record 8, finding 0: box is not four finite numbers ([1, 2, 3, '])


def assert_issues(issues, expected):
    lines = [str(issue) for issue in issues]
    assert len(lines) == len(expected), lines
    for line, start in zip(lines, expected):
        assert line.startswith(f'films.json: {start}'), line


LAB = dict(file_name='a.png', rows=500, cols=400, fold=2, eva_id='e7', doc_name='yy',
           boxes=[[1, 2, 11, 22], [50, 60, 90, 80]], syms=[['Nodule', 'Mass'], ['Effusion']],
           polygon=[SQUARE, [SQUARE, [0, 0, 9, 0, 9, 9]]],
           parts=['Left Lung', 'Heart'], part_boxes=[[0, 0, 200, 400], [100, 200, 300, 350]])


def test_a_record_of_the_lab_gives_findings_masks_parts_and_its_own_words(write):
    document, issues = read_lab(write([
        LAB, dict(file_name='b.png', rows=9, cols=9, boxes=[[0, 0, 5, 5]], syms=[['Mass']])]))
    assert issues == []
    assert document['images'] == [
        dict(id=1, file_name='a.png', rows=500, cols=400, height=500, width=400, fold=2, eva_id='e7', doc_name='yy',
             where='record 0'),
        dict(id=2, file_name='b.png', rows=9, cols=9, height=9, width=9, where='record 1')]
    names = {c['id']: c['name'] for c in document['categories']}
    flat = [10, 10, 30, 10, 30, 40, 10, 40]
    assert [(a['image_id'], names[a['category_id']], a['bbox'], a.get('segmentation'))
            for a in document['annotations']] == [
        (1, 'Nodule', [1, 2, 10, 20], [flat]), (1, 'Mass', [1, 2, 10, 20], [flat]),
        (1, 'Effusion', [50, 60, 40, 20], [flat, [0, 0, 9, 0, 9, 9]]), (1, 'Left Lung', [0, 0, 200, 400], None),
        (1, 'Heart', [100, 200, 200, 150], None), (2, 'Mass', [0, 0, 5, 5], [])]
    assert document['parts'] == ['Left Lung', 'Heart']


def test_what_does_not_belong_together_in_the_lab_s_file_is_reported(write):
    document, issues = read_lab(write([
        LAB | dict(polygon=[SQUARE]), LAB | dict(file_name='b.png', syms=[['Mass']]),
        LAB | dict(file_name='c.png', parts=['Heart']), LAB | dict(file_name='d.png', polygon=[SQUARE, [1, 2, 'x']]),
        LAB | dict(file_name='e.png', syms=[[], 'Mass'], part_boxes=[[5, 5, 1, 1], None]),
        dict(file_name='f.png', polygon=5)]))
    assert [i['file_name'] for i in document['images']] == ['a.png', 'c.png', 'd.png', 'e.png', 'f.png']
    assert_issues(issues, [
        'record 0: boxes, polygon are not equally many ([2, 1]): box kept without mask',
        'record 1: boxes, syms are not equally many ([2, 1]): dropped',
        'record 2: parts, part_boxes are not equally many ([1, 2]): parts left out',
        'record 3, finding 1: polygon is neither', 'record 4, finding 0: syms is no list of names ([]): dropped',
        'record 4, part 0: box (xyxy) without positive width and height ([5, 5, 1, 1]): dropped',
        'record 4, part 1: box is not four finite numbers (None): dropped',
        'record 5: polygon is no list (5): box kept without mask'])
    masks = {i['id']: [bool(a['segmentation']) for a in document['annotations']
                       if a['image_id'] == i['id'] and 'segmentation' in a] for i in document['images']}
    assert masks == {1: [False] * 3, 3: [True] * 3, 4: [True, True, False], 5: [True], 6: []}


@pytest.mark.parametrize('value, expected', [
    (None, []), ([], []), (SQUARE[:3], [[10, 10, 30, 10, 30, 40]]), ([1, 2, 3, 4, 5, 6], [[1, 2, 3, 4, 5, 6]]),
    ([[1, 2, 3, 4, 5, 6], SQUARE[:2]], [[1, 2, 3, 4, 5, 6], [10, 10, 30, 10]])])
def test_polygons_are_read_as_points_or_flat_one_or_several(value, expected):
    assert flat_polygons(value) == expected


@pytest.mark.parametrize('value', [5, 'x', {}, [1, 2, 3], [[1, 2, 3]], [[1, 'x']], [None], [[[[1, 2]]]], [True, False]])
def test_what_is_no_polygon_is_an_error(value):
    with pytest.raises(Broken, match='polygon'):
        flat_polygons(value)


@pytest.mark.parametrize('text', ['', '{}', '{"images": []}', '[1, 2', '[' * 100_000, 'null'])
def test_a_file_that_is_no_list_of_records_is_refused_by_name(tmp_path, text):
    file = tmp_path / 'films.json'
    file.write_text(text)
    for read in (read_chestx_det, read_lab):
        with pytest.raises(ValueError, match='films.json: (not valid JSON|expected a list of records)'):
            read(file)
    with pytest.raises(FileNotFoundError, match='lost.json'):
        read_lab(tmp_path / 'lost.json')
