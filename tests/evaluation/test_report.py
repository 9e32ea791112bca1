import io
import json
import math
from types import SimpleNamespace

import pytest
from pycocotools import mask as coco_mask
from rich.console import Console

from configs import base
from relnet_jax.evaluation import report

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
    assert set(metrics) == METRICS | {'voc_AP_0.01', 'voc_AP_0.50', 'per_class'}
    for name in ('box_AP', 'box_AP50', 'mask_AP', 'mask_AP50', 'voc_AP_0.01', 'voc_AP_0.50'):
        assert metrics[name] == pytest.approx(0.5)
    assert metrics['per_class']['Mass'] == pytest.approx(
        dict(objects=1, box_AP=1, box_AP50=1, mask_AP=1, mask_AP50=1) | {'voc_AP_0.01': 1, 'voc_AP_0.50': 1})
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
    assert set(metrics) == {m for m in METRICS if m.startswith('box')} | {'voc_AP_0.01', 'voc_AP_0.50', 'per_class'}
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
    mean, = [line for line in text.splitlines() if 'mean' in line]
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
    metrics, about = report.evaluate(truth, results), about_of(truth)
    path = report.write_report(tmp_path / 'new' / 'eval', metrics=metrics, results=results, about=about)
    written = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f'{name} is no JSON'))
    assert written['about'] == about
    assert written['metrics']['box_AP50'] == metrics['box_AP50']
    assert written['metrics']['per_class']['Fracture']['box_AP'] is None
    assert json.loads((path.parent / 'detections.json').read_text()) == results
