"""Two result files on the same images: what is measured, the paired interval, and what is refused by name."""
import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from rich.console import Console

from relnet_jax import compare
from relnet_jax.evaluation import report
from tests.evaluation.made import film_set


@pytest.fixture
def films(tmp_path):
    """A folder of an evaluation, and another with a third of the boxes moved: a worse detector."""
    truth, results = film_set(1, 60, 0.4)
    rng = np.random.default_rng(0)
    worse = [dict(r, bbox=[r['bbox'][0] + 60, *r['bbox'][1:]]) if rng.random() < 0.3 else r for r in results]
    for image in truth['images']:
        image['patient'] = image['id'] // 2
    truth['annotations'] = [a for a in truth['annotations'] if a['image_id'] % 7]
    for name, value in (('a/ground_truth', truth), ('a/detections', results), ('b/detections', worse)):
        path = tmp_path / f'{name}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value))
    return tmp_path


def run(folder, *arguments, a='a', b='b', capsys):
    code = compare.main([f'{folder}/{a}/detections.json', f'{folder}/{b}/detections.json', *arguments])
    return code, capsys.readouterr()


def test_both_are_measured_as_evaluation_does_and_the_difference_has_an_interval(films, capsys):
    code, said = run(films, f'--out={films}/out.json', '--resamples=200', capsys=capsys)
    assert code == 0 and '60 images' in said.out and '200 resamples of patients (patient)' in said.out
    written = json.loads((films / 'out.json').read_text())
    truth = json.loads((films / 'a' / 'ground_truth.json').read_text())
    for side in 'ab':
        expected = report.evaluate(truth, json.loads((films / side / 'detections.json').read_text()))
        for name in ('box_AP', 'box_AP50', 'voc_AP_0.50', 'froc_mean', 'image_AUC', 'ECE', 'lab_recall_0.20'):
            assert written['metrics'][name][side] == pytest.approx(expected[name], abs=1e-12)
    for row in written['metrics'].values():
        assert row['difference'] == pytest.approx(row['b'] - row['a'])
    worse = written['metrics']['box_AP50']
    assert worse['low'] < worse['difference'] < worse['high'] < 0
    line, = [line for line in said.out.splitlines() if 'box_AP50' in line]
    assert f"{100 * worse['difference']:+.1f}" in line and line.rstrip().endswith('*')


def test_the_same_file_twice_differs_by_nothing(films, capsys):
    code, said = run(films, f'--out={films}/out.json', '--resamples=50', b='a', capsys=capsys)
    rows = json.loads((films / 'out.json').read_text())['metrics'].values()
    assert code == 0 and all(row['difference'] == row['low'] == row['high'] == 0 for row in rows)
    assert '*' not in said.out


def test_a_paired_interval_is_narrower_than_two_that_were_drawn_apart(films):
    truth, a, b = (json.loads((films / name).read_text()) for name in (
        'a/ground_truth.json', 'a/detections.json', 'b/detections.json'))
    row = compare.compare(truth, a, b, resamples=300)['voc_AP_0.50']
    apart = [report.evaluate(truth, r, resamples=300)['intervals']['voc_AP_0.50'] for r in (a, b)]
    assert row['high'] - row['low'] < 0.9 * np.hypot(*(high - low for low, high in apart))


def test_masks_are_compared_where_both_have_them(films):
    truth, a, b = (json.loads((films / name).read_text()) for name in (
        'a/ground_truth.json', 'a/detections.json', 'b/detections.json'))
    for image in truth['images']:
        image.update(width=300, height=300)
    for record in (*truth['annotations'], *a, *b):
        x, y, w, h = record['bbox']
        polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        encoded = coco_mask.merge(coco_mask.frPyObjects(polygon, 300, 300))
        record['segmentation'] = dict(size=encoded['size'], counts=encoded['counts'].decode())
    both = compare.compare(truth, a, b, resamples=5)
    assert both['mask_AP50']['a'] == report.evaluate(truth, a)['mask_AP50']
    del a[3]['segmentation']
    assert 'mask_AP50' not in compare.compare(truth, a, b, resamples=5)


def test_what_is_undefined_is_shown_as_such():
    table = {'box_AP': dict(a=float('nan'), b=0.5, difference=float('nan'), low=float('nan'), high=float('nan'))}
    console = Console(file=io.StringIO(), width=100)
    compare.print_table(table, console=console)
    row, = [line for line in console.file.getvalue().splitlines() if 'box_AP' in line]
    assert row.split() == ['box_AP', '-', '50.0', '-', '-', 'to', '-']


@pytest.mark.parametrize('file, value, said', [
    ('a/detections', {}, 'a/detections.json: expected COCO results'),
    ('b/detections', [dict(image_id=0)], 'b/detections.json: results[0]: expected a dict with image_id, category_id'),
    ('b/detections', [dict(image_id=0, category_id=1, bbox=[1, 2, 3, 4], score=1, segmentation=[[1, 1, 2, 2, 3, 3]])],
     'results[0]: expected run lengths, a dict with size and counts, as segmentation'),
    ('b/detections', [dict(image_id=0, category_id=1, bbox=[1, 2, 3], score=1)], 'results[0]: expected four numbers'),
    ('b/detections', [dict(image_id=0, category_id=1, bbox=[1, 2, 3, 4], score='x')], 'results[0]: expected four'),
    ('b/detections', [dict(image_id=99, category_id=1, bbox=[1, 2, 3, 4], score=1)],
     'results[0]: image_id 99 is none of the 60 images'),
    ('b/detections', [dict(image_id=0, category_id=7, bbox=[1, 2, 3, 4], score=1)],
     'results[0]: category_id 7 is none of the 2 categories'),
    ('a/ground_truth', [], 'a/ground_truth.json: expected a COCO file'),
    ('a/ground_truth', dict(images=[dict(id=0)]), 'a/ground_truth.json: expected a list of categories'),
    ('a/ground_truth', dict(images=[dict(id=0)], categories=[dict(id=1, name='a')], annotations=[]), 'no annotations')])
def test_a_file_that_does_not_fit_is_named_with_the_record(films, capsys, file, value, said):
    (films / f'{file}.json').write_text(json.dumps(value))
    code, out = run(films, capsys=capsys)
    assert code == 2 and len(out.err.splitlines()) == 1 and said in out.err


def test_annotations_that_are_not_there_and_keys_that_images_lack_are_named(films, capsys):
    (films / 'a' / 'ground_truth.json').rename(films / 'truth.json')
    code, out = run(films, capsys=capsys)
    assert code == 2 and f'--annotations: expected the COCO file, as there is no {films}/a/ground_truth.json' in out.err
    code, out = run(films, f'--annotations={films}/truth.json', '--by=ward', capsys=capsys)
    assert code == 2 and '--by=ward: ' in out.err and 'id, patient' in out.err
    assert run(films, f'--annotations={films}/truth.json', '--resamples=5', '--by=patient', capsys=capsys)[0] == 0
