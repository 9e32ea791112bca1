import copy
import json
import math

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from relnet_jax.evaluation.coco import NAMES, coco_metrics


def rle(box, size=(40, 50)):
    mask = np.zeros(size, np.uint8, order='F')
    x, y, w, h = box
    mask[y:y + h, x:x + w] = 1
    encoded = coco_mask.encode(mask)
    return dict(size=list(encoded['size']), counts=encoded['counts'].decode())


@pytest.fixture
def truth():
    """Two images of 40 x 50 with three objects of two of three classes; ids start at 0."""
    boxes = [(1, 10, [2, 2, 10, 10]), (1, 20, [20, 5, 12, 8]), (2, 10, [5, 5, 20, 20])]
    return dict(
        images=[dict(id=i, width=50, height=40) for i in (1, 2)],
        categories=[dict(id=10, name='a'), dict(id=20, name='b'), dict(id=30, name='c')],
        annotations=[dict(id=n, image_id=i, category_id=c, bbox=box, area=box[2] * box[3], iscrowd=0,
                          segmentation=rle(box)) for n, (i, c, box) in enumerate(boxes)])


def perfect(truth):
    return [dict(image_id=a['image_id'], category_id=a['category_id'], bbox=a['bbox'], score=0.9,
                 segmentation=rle(a['bbox'])) for a in truth['annotations']]


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_equals_the_known_answers_of_pycocotools(real_data, iou_type):
    folder = real_data / 'eval_known_answers' / 'coco_val2014_100'
    truth = json.loads((folder / 'instances_val2014_100.json').read_text())
    results = json.loads((folder / f'instances_val2014_fake{iou_type}100_results.json').read_text())
    expected = json.loads((folder / 'expected_pycocotools.json').read_text())
    before = copy.deepcopy(truth)
    metrics = coco_metrics(truth, results, iou_type)
    assert [metrics[n] for n in expected['order']] == pytest.approx(expected[iou_type], abs=1e-9)
    per_class = [v['AP'] for v in metrics['per_class'].values() if not math.isnan(v['AP'])]
    assert np.mean(per_class) == pytest.approx(metrics['AP'], abs=1e-9)
    assert truth == before


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_perfect_results_give_1_also_where_annotation_ids_start_at_0(truth, iou_type, capsys):
    metrics = coco_metrics(truth, perfect(truth), iou_type)
    assert [metrics[n] for n in ('AP', 'AP50', 'AR100')] == pytest.approx([1.0] * 3)
    assert metrics['per_class']['a'] == pytest.approx(dict(AP=1.0, AP50=1.0))
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_image_ids_of_text_change_no_number(real_data, iou_type):
    folder = real_data / 'eval_known_answers' / 'coco_val2014_100'
    truth = json.loads((folder / 'instances_val2014_100.json').read_text())
    results = json.loads((folder / f'instances_val2014_fake{iou_type}100_results.json').read_text())
    some = [image['id'] for image in truth['images'][:60]]
    expected = [coco_metrics(truth, results, iou_type), coco_metrics(truth, results, iou_type, image_ids=some)]
    for image in truth['images']:
        image['id'] = f'film {image["id"]:012d}'
    for record in truth['annotations'] + results:
        record['image_id'] = f'film {record["image_id"]:012d}'
    some = [f'film {i:012d}' for i in some]
    found = [coco_metrics(truth, results, iou_type), coco_metrics(truth, results, iou_type, image_ids=some)]
    for a, b in zip(expected, found):
        assert [b[name] for name in NAMES] == pytest.approx([a[name] for name in NAMES], abs=1e-9, nan_ok=True)


def test_no_results_give_0_and_classes_without_objects_stay_out(truth):
    metrics = coco_metrics(truth, [], 'bbox')
    assert metrics['AP'] == metrics['AP50'] == metrics['AR100'] == 0.0
    assert metrics['per_class']['b'] == dict(AP=0.0, AP50=0.0)
    assert math.isnan(metrics['per_class']['c']['AP'])
    assert math.isnan(metrics['APl'])  # no object of 96 x 96 or more


def test_no_objects_are_undefined_not_a_crash(truth):
    results = perfect(truth)
    truth['annotations'] = []
    assert all(math.isnan(coco_metrics(truth, results, 'bbox')[n]) for n in NAMES)


def test_hand_computed_ap50(truth):
    # Class a: right, wrong, right of 2 objects -> on COCO's 101 recalls 51 of 1 and 50 of 2/3. Class b: not found.
    results = [dict(r, score=s) for r, s in zip(perfect(truth), (0.9, 0.0, 0.7)) if s]
    results.append(dict(image_id=2, category_id=10, bbox=[35, 30, 5, 5], score=0.8))
    metrics = coco_metrics(truth, results, 'bbox')
    assert metrics['per_class']['a']['AP50'] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert metrics['AP50'] == pytest.approx((51 + 50 * 2 / 3) / 202)


def test_objects_without_masks_are_ignored_by_mask_ap(truth):
    results = perfect(truth)
    del truth['annotations'][0]['segmentation']
    with_all = coco_metrics(truth, results, 'segm')
    assert with_all['AP'] == pytest.approx(1.0) and with_all['per_class']['a']['AP'] == pytest.approx(1.0)
    without_first = coco_metrics(truth, results[1:], 'segm')
    assert without_first['AP'] == pytest.approx(1.0)
    assert coco_metrics(truth, results[1:], 'bbox')['AP'] < 1.0


def test_mask_size_classes_are_those_of_the_masks_not_of_the_boxes(truth):
    # A false mask that is small inside a box that is not: only small objects may be charged for it.
    big = [0, 0, 50, 40]
    truth['annotations'][2].update(bbox=big, area=2000, segmentation=rle(big))
    results = perfect(truth)
    results.append(dict(image_id=2, category_id=10, bbox=big, score=0.95, segmentation=rle([0, 0, 3, 3])))
    metrics = coco_metrics(truth, results, 'segm')
    assert metrics['APm'] == pytest.approx(1.0)
    assert metrics['APs'] < 1.0


def test_only_the_given_images_are_evaluated(truth):
    results = perfect(truth)[:2]  # nothing found in image 2
    assert coco_metrics(truth, results, 'bbox', image_ids=[1])['AP'] == pytest.approx(1.0)
    assert coco_metrics(truth, results, 'bbox')['AP'] < 1.0


def test_results_that_do_not_fit_are_named(truth):
    results = perfect(truth)
    with pytest.raises(ValueError, match='result 1: image_id 99 is not in the ground truth'):
        coco_metrics(truth, [results[0], dict(results[1], image_id=99)], 'bbox')
    del results[2]['segmentation']
    with pytest.raises(ValueError, match='result 2: has no segmentation'):
        coco_metrics(truth, results, 'segm')
