"""Submissions as the competitions describe them, and back through the readers of their own files."""
import csv

import pytest

from configs import base
from relnet_jax.data.formats import rsna, vindr
from relnet_jax.data.source import Source
from relnet_jax.errors import UserError
from relnet_jax.evaluation.submissions import check_form, rsna_submission, vindr_submission, write_submission

FILMS = {1: '004f33259ee4', 2: '004f33259ee5', 'x': '004f33259ee6'}
RESULTS = [dict(image_id=2, category_id=30, bbox=[10, 10, 10, 10], score=0.7),
           dict(image_id='x', category_id=31, bbox=[1.26, 2, 3, 4.5], score=0.123456789),
           dict(image_id=2, category_id=31, bbox=[100, 100, 100, 100], score=0.75)]


def test_the_form_of_vindr_goes_by_class_name_and_says_when_nothing_was_found():
    text = vindr_submission(RESULTS, FILMS, {30: 'Pulmonary fibrosis', 31: 'Pleural thickening'})
    assert text == ('image_id,PredictionString\n'
                    '004f33259ee4,14 1 0 0 1 1\n'
                    '004f33259ee5,11 0.75 100.0 100.0 200.0 200.0 13 0.7 10.0 10.0 20.0 20.0\n'
                    '004f33259ee6,11 0.123457 1.3 2.0 4.3 6.5\n')
    check_form('vindr', vindr.CLASSES)
    with pytest.raises(UserError, match="VinDr-CXR has no class 'Effusion', 'Rib'; it has Aortic"):
        check_form('vindr', ('Effusion', 'ILD', 'Rib'))


def test_the_form_of_rsna_has_width_and_height_and_an_empty_cell_for_nothing():
    text = rsna_submission(RESULTS, FILMS, {30: 'Lung Opacity'})
    assert text == ('patientId,PredictionString\n004f33259ee4,\n'
                    '004f33259ee5,0.75 100.0 100.0 100.0 100.0 0.7 10.0 10.0 10.0 10.0\n'
                    '004f33259ee6,0.123457 1.3 2.0 3.0 4.5\n')
    with pytest.raises(ValueError, match="image 9, which is none of the 3 films"):
        rsna_submission([dict(image_id=9, category_id=1, bbox=[1, 2, 3, 4], score=1)], FILMS, {1: 'a'})


@pytest.mark.parametrize('form, reader, file', [
    ('vindr', vindr, 'vinbigdata-train_excerpt.csv'), ('rsna', rsna, 'rsna_stage_2_train_labels_excerpt.csv')])
def test_the_real_annotations_come_back_from_a_submission_of_them(real_data, tmp_path, form, reader, file):
    path = real_data / 'annotation_formats' / file
    document, _ = reader.read(path, path.parent, base.get_config().data)
    ids = {c['name']: c['id'] for c in document['categories']}
    source = Source(name='truth', classes=tuple(ids), category_ids=tuple(ids.values()), parts=(), load=None,
                    records=document['images'], ground_truth=lambda: document)
    write_submission(tmp_path / 'out.csv', form, [a | dict(score=1.0) for a in document['annotations']], source)
    with open(tmp_path / 'out.csv', newline='') as opened:
        rows = [(row[0], row[1].split()) for row in list(csv.reader(opened))[1:]]
    assert [name for name, _ in rows] == [record['id'] for record in document['images']]
    size = 6 if form == 'vindr' else 5
    found = sorted((name, *map(float, cell[i:i + size])) for name, cell in rows for i in range(0, len(cell), size))
    expected = []
    for a in document['annotations']:
        x, y, w, h = a['bbox']
        expected.append((a['image_id'], a['category_id'], 1, x, y, x + w, y + h) if form == 'vindr'
                        else (a['image_id'], 1, x, y, w, h))
    if form == 'vindr':
        empty = {r['id'] for r in document['images']} - {a['image_id'] for a in document['annotations']}
        expected += [(name, 14, 1, 0, 0, 1, 1) for name in empty]
    assert found == sorted(expected)


def test_a_film_with_a_number_for_an_id_is_called_by_its_file(tmp_path):
    source = Source(name='films', classes=('Lung Opacity',), category_ids=(1,), parts=(), load=None,
                    records=[dict(id=1, file_name='test/00a1.dcm'), dict(id=2)], ground_truth=dict)
    write_submission(tmp_path / 'out.csv', 'rsna', [], source)
    assert (tmp_path / 'out.csv').read_text() == 'patientId,PredictionString\n00a1,\n2,\n'
