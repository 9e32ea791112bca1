import io
import json
import math
from types import SimpleNamespace

import pytest
from pycocotools import mask as coco_mask
from rich.console import Console

from configs import base
from relnet_jax.evaluation import report
from relnet_jax.runs.operating_points import OperatingPoints

OTHERS = {'voc_AP_0.01', 'voc_AP_0.50', 'voc_AP_0.40', 'voc_AP_0.40_no_finding', 'voc_AP_0.40_0.75',
          'voc_AP_0.40_0.75_no_finding', 'froc_0.125', 'froc_0.25', 'froc_0.5', 'froc_1', 'froc_2', 'froc_4', 'froc_8',
          'froc_mean', 'chestx_det10_recall_0.05', 'chestx_det10_recall_0.10', 'chestx_det10_recall_0.20',
          'chestx_det10_recall_mean', 'lab_recall_0.20', 'image_AUC', 'no_finding_AUC', 'ECE', 'per_class'}
METRICS = {f'{prefix}_{name}' for prefix in ('box', 'mask') for name in (
    'AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl')}


def square(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


@pytest.fixture
def truth():
    """Three images, the last without a finding; a class in each of the first two, one class unused."""
    boxes = [(1, 1, [2, 2, 10, 10]), (2, 2, [20, 5, 12, 8])]
    return dict(
        images=[dict(id=i, width=50, height=40) for i in (1, 2, 3)],
        categories=[dict(id=1, name='Mass'), dict(id=2, name='Pleural Thickening'), dict(id=3, name='Fracture')],
        annotations=[dict(id=n, image_id=i, category_id=c, bbox=b, area=b[2] * b[3], iscrowd=0,
                          segmentation=square(b)) for n, (i, c, b) in enumerate(boxes, start=1)])


@pytest.fixture
def results(truth):
    out = []
    for a in truth['annotations'][:1]:
        encoded = coco_mask.merge(coco_mask.frPyObjects(a['segmentation'], 40, 50))
        out.append(dict(image_id=a['image_id'], category_id=a['category_id'], bbox=a['bbox'], score=0.75,
                        segmentation=dict(size=encoded['size'], counts=encoded['counts'].decode())))
    return out


def about_of(truth, **options):
    source = SimpleNamespace(name='toy val')
    return report.describe(source, truth, base.get_config(), checkpoint='runs/toy/100', **options)


def test_metrics_are_flat_with_the_agreed_names(truth, results):
    metrics = report.evaluate(truth, results)
    assert set(metrics) == METRICS | OTHERS
    for name in ('box_AP', 'box_AP50', 'mask_AP', 'mask_AP50', 'voc_AP_0.01', 'voc_AP_0.50'):
        assert metrics[name] == pytest.approx(0.5)
    assert metrics['per_class']['Mass'] == pytest.approx(
        dict(objects=1, box_AP=1, box_AP50=1, mask_AP=1, mask_AP50=1, froc_mean=1, image_AUC=1)
        | {'voc_AP_0.01': 1, 'voc_AP_0.40': 1, 'voc_AP_0.50': 1, 'chestx_det10_recall_0.20': 1})
    assert metrics['per_class']['Pleural Thickening']['box_AP'] == 0.0
    assert math.isnan(metrics['per_class']['Fracture']['box_AP'])
    assert metrics['per_class']['Fracture']['objects'] == 0


def test_no_results_give_0_for_boxes_and_masks(truth):
    metrics = report.evaluate(truth, [])
    assert metrics['box_AP50'] == metrics['mask_AP50'] == metrics['voc_AP_0.01'] == 0.0


def test_data_without_masks_has_no_mask_metrics(truth, results):
    for a in truth['annotations']:
        a['segmentation'] = []
    metrics = report.evaluate(truth, results)
    assert set(metrics) == {m for m in METRICS if m.startswith('box')} | OTHERS
    assert metrics['box_AP50'] == pytest.approx(0.5)


def test_a_detector_without_masks_has_no_mask_metrics(truth, results):
    del results[0]['segmentation']
    assert 'mask_AP' not in report.evaluate(truth, results)


def test_the_convention_reaches_the_voc_numbers(truth):
    # IoU 40/80 = 1/2 continuous, (11 * 5)/(11 * 9) > 1/2 inclusive
    truth['annotations'] = [dict(truth['annotations'][0], bbox=[0, 0, 10, 8])]
    results = [dict(image_id=1, category_id=1, bbox=[0, 0, 10, 3.9], score=0.5)]
    assert report.evaluate(truth, results)['voc_AP_0.50'] == 1.0
    assert report.evaluate(truth, results, convention='continuous')['voc_AP_0.50'] == 0.0


def test_a_number_is_never_read_without_what_it_means(truth, results):
    screen = io.StringIO()
    about = about_of(truth, convention='continuous')
    report.print_report(report.evaluate(truth, results), about, console=Console(file=screen, width=200))
    text = screen.getvalue()
    for fact in ('toy val: 3 images (2 with and 1 without findings), 2 objects', 'runs/toy/100 (config base)',
                 '1000 proposals, score > 0.05, per-class NMS IoU 0.5, 100 detections per image',
                 'pixels of the original image, VOC boxes continuous', 'Pleural Thickening', 'mean'):
        assert fact in text
    mean, = [line for line in text.splitlines() if line.split()[:1] == ['mean']]
    assert '95 % interval' not in text
    assert mean.replace('│', ' ').split() == ['mean', '2'] + ['50.0'] * 6
    unused, = [line for line in text.splitlines() if 'Fracture' in line]
    assert unused == 'without objects here, so neither shown nor averaged: Fracture'
    assert 'PHANTOM' not in text


def test_the_phantom_is_named_as_such(truth, results):
    config = base.get_config()
    config.data.format = 'phantom'
    about = report.describe(SimpleNamespace(name='phantom val'), truth, config, checkpoint='x')
    screen = io.StringIO()
    report.print_report(report.evaluate(truth, results), about, console=Console(file=screen, width=200))
    assert about['synthetic'] and 'PHANTOM: synthetic images' in screen.getvalue()


def test_objects_without_masks_are_counted_on_the_screen(truth, results):
    del truth['annotations'][1]['segmentation']
    screen = io.StringIO()
    report.print_report(report.evaluate(truth, results), about_of(truth), console=Console(file=screen, width=200))
    assert '1 objects without a mask are ignored in mask AP' in screen.getvalue()


def test_report_files_are_plain_json_and_hold_the_results(truth, results, tmp_path):
    metrics, about = report.evaluate(truth, results, resamples=20), about_of(truth, resamples=20)
    path = report.write_report(tmp_path / 'new' / 'eval', metrics=metrics, results=results, about=about,
                               ground_truth=truth, curves=dict(iou=math.nan))
    written = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f'{name} is no JSON'))
    assert written['about'] == about
    assert written['metrics']['box_AP50'] == metrics['box_AP50']
    assert written['metrics']['per_class']['Fracture']['box_AP'] is None
    assert written['metrics']['intervals']['box_AP50'] == list(metrics['intervals']['box_AP50'])
    assert json.loads((path.parent / 'detections.json').read_text()) == results
    assert json.loads((path.parent / 'ground_truth.json').read_text()) == truth
    assert json.loads((path.parent / 'curves.json').read_text()) == dict(iou=None)


def test_intervals_surround_what_was_measured_and_stand_beside_it(truth, results):
    patients = [('p', 1), ('p', 2), ('q', 3)]
    for image, (patient, _) in zip(truth['images'], patients):
        image['patient'] = patient
    metrics = report.evaluate(truth, results, resamples=50)
    assert set(metrics['intervals']) == {m for m in METRICS if m.endswith(('AP', 'AP50', 'AP75'))} | OTHERS - {
        'per_class'}
    low, high = metrics['intervals']['no_finding_AUC']
    assert low <= metrics['no_finding_AUC'] <= high
    screen = io.StringIO()
    report.print_report(metrics, about_of(truth, resamples=50), console=Console(file=screen, width=200))
    assert '50 resamples of patients (patient)' in screen.getvalue()
    row, = [line for line in screen.getvalue().splitlines() if line.split()[:1] == ['box_AP50']]
    assert row.split()[1:5] == ['50.0', '50.0', 'to', '50.0']       # both images with objects are of one patient
    assert {k: v for k, v in metrics.items() if k not in ('intervals', 'per_class')} == pytest.approx(
        {k: v for k, v in report.evaluate(truth, results).items() if k != 'per_class'}, nan_ok=True)


def test_the_operating_points_are_named_with_what_they_give(truth, results):
    points = OperatingPoints({'Mass': 0.8, 'Pleural Thickening': 0.1}, 1.25, 0.2, 'toy val')
    screen = io.StringIO()
    report.print_report(report.evaluate(truth, results, points=points), about_of(truth, points=points),
                        console=Console(file=screen, width=200))
    assert '0.2 false positives per film and class wanted, temperature 1.25, chosen on toy val' in screen.getvalue()
    lines = {line.split()[0]: line.split()[1] for line in screen.getvalue().splitlines() if len(line.split()) > 1}
    assert lines['operating_sensitivity'] == '0.0' and lines['operating_fp_per_film'] == '0.00'
