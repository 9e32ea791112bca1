import json
import math

import numpy as np
import pytest

from relnet_jax.evaluation.matching import pairwise_iou
from relnet_jax.evaluation.voc import voc_metrics


def coco_dict(objects, *, num_images=1, classes=('a',), difficult=()):
    """Ground truth from (image_id, category_id, xyxy) tuples; `difficult` holds positions in the list."""
    return dict(
        images=[dict(id=i) for i in range(1, num_images + 1)],
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(classes)],
        annotations=[dict(id=n, image_id=i, category_id=c, bbox=xywh(box), difficult=n in difficult)
                     for n, (i, c, box) in enumerate(objects)])


def found(*rows):
    return [dict(image_id=i, category_id=c, bbox=xywh(box), score=score) for i, c, box, score in rows]


def xywh(box):
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def single(truth, results, iou=0.5, convention='continuous'):
    return voc_metrics(truth, results, iou_thresholds=(iou,), convention=convention)[iou]


def reference_ap(objects, results, category, iou_threshold, extra):
    """The devkit's way: plain loops over detections sorted by score, and over the recall steps."""
    truth = [(i, box) for i, c, box in objects if c == category]
    used, right = set(), []
    mine = [r for r in results if r['category_id'] == category]
    for r in sorted(sorted(mine, key=lambda r: r['image_id']), key=lambda r: -r['score']):
        x, y, w, h = r['bbox']
        best, best_iou = None, 0.0
        for g, (image, (x1, y1, x2, y2)) in enumerate(truth):
            if image != r['image_id']:
                continue
            iw = min(x + w, x2) - max(x, x1) + extra
            ih = min(y + h, y2) - max(y, y1) + extra
            if iw > 0 and ih > 0:
                union = (w + extra) * (h + extra) + (x2 - x1 + extra) * (y2 - y1 + extra) - iw * ih
                if iw * ih / union > best_iou:
                    best, best_iou = g, iw * ih / union
        right.append(best_iou >= iou_threshold and best not in used)
        if right[-1]:
            used.add(best)
    area, hits = 0.0, 0
    precisions = [sum(right[:n + 1]) / (n + 1) for n in range(len(right))]
    for n, r in enumerate(right):
        hits += r
        area += r / len(truth) * max(precisions[n:])
    return area


def test_equals_the_known_answers_of_cartucho_map(real_data):
    folder = real_data / 'eval_known_answers' / 'cartucho_map'
    expected = json.loads((folder / 'expected_by_iou.json').read_text())
    classes = sorted(expected['0.5']['per_class'])
    objects, results = [], []
    files = sorted((folder / 'ground-truth').glob('*.txt'))
    for image_id, path in enumerate(files, start=1):
        for line in path.read_text().splitlines():
            name, *box = line.split()
            objects.append((image_id, classes.index(name) + 1, [float(v) for v in box]))
        for line in (folder / 'detection-results' / path.name).read_text().splitlines():
            name, score, *box = line.split()
            if name in classes:
                results.append((image_id, classes.index(name) + 1, [float(v) for v in box], float(score)))
    truth = coco_dict(objects, num_images=len(files), classes=classes)
    got = voc_metrics(truth, found(*results), iou_thresholds=[float(t) for t in expected],
                      convention='pixel_inclusive')
    for threshold, answer in expected.items():
        at = got[float(threshold)]
        assert at['mAP'] == pytest.approx(answer['mAP'], abs=1e-6)
        assert at['per_class'] == pytest.approx(answer['per_class'], abs=1e-6)
        assert at['true_positives'] == {name: answer['tp'][name] for name in classes}


@pytest.mark.parametrize('convention, extra', [('pixel_inclusive', 1), ('continuous', 0)])
@pytest.mark.parametrize('iou', [0.01, 0.3, 0.5])
def test_equals_the_sequential_reference_on_random_boxes_with_tied_scores(convention, extra, iou):
    rng = np.random.default_rng(3)

    def boxes(n):
        corner, size = rng.integers(0, 30, (n, 2)), rng.integers(4, 20, (n, 2))
        return np.concatenate([corner, corner + size], 1).tolist()
    objects = [(int(i), int(c), b) for i, c, b in zip(rng.integers(1, 6, 40), rng.integers(1, 4, 40), boxes(40))]
    results = found(*[(int(i), int(c), b, float(s)) for i, c, b, s in zip(
        rng.integers(1, 6, 200), rng.integers(1, 4, 200), boxes(200), rng.integers(1, 30, 200) / 30)])
    got = single(coco_dict(objects, num_images=5, classes='abc'), results, iou, convention)
    for category, name in enumerate('abc', start=1):
        want = reference_ap(objects, results, category, iou, extra)
        assert got['per_class'][name] == pytest.approx(want, abs=1e-12)
        assert 0 < want < 1


def test_a_repeated_match_is_a_false_positive():
    truth = coco_dict([(1, 1, [0, 0, 10, 10]), (1, 1, [50, 50, 60, 60])])
    results = found((1, 1, [0, 0, 10, 10], 0.9), (1, 1, [0, 0, 10, 9], 0.8), (1, 1, [50, 50, 60, 60], 0.7))
    # right, wrong, right of 2: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1 -> 1/2 * 1 + 1/2 * 2/3
    assert single(truth, results)['mAP'] == pytest.approx(5 / 6)


def test_a_detection_does_not_fall_back_to_its_second_best_object():
    # Both detections overlap the first object most; the second one also overlaps the free object by IoU 2/3.
    truth = coco_dict([(1, 1, [0, 0, 10, 10]), (1, 1, [0, 2, 10, 12])])
    results = found((1, 1, [0, 0, 10, 10], 0.9), (1, 1, [0, 0, 10, 11], 0.8))
    at = single(truth, results)
    assert at['true_positives']['a'] == 1
    assert at['mAP'] == pytest.approx(0.5)


def test_difficult_objects_count_neither_way():
    truth = coco_dict([(1, 1, [0, 0, 10, 10]), (1, 1, [50, 50, 60, 60])], difficult=[0])
    results = found((1, 1, [0, 0, 10, 10], 0.9), (1, 1, [0, 0, 10, 9], 0.8), (1, 1, [50, 50, 60, 60], 0.7))
    at = single(truth, results)
    assert at['mAP'] == 1.0 and at['true_positives']['a'] == 1


def test_crowd_regions_are_difficult():
    truth = coco_dict([(1, 1, [0, 0, 10, 10]), (1, 1, [50, 50, 60, 60])])
    truth['annotations'][0]['iscrowd'] = 1
    assert single(truth, found((1, 1, [0, 0, 10, 10], 0.9)))['mAP'] == 0.0
    assert single(truth, found((1, 1, [0, 0, 10, 10], 0.9), (1, 1, [50, 50, 60, 60], 0.1)))['mAP'] == 1.0


def test_classes_without_detections_are_0_and_without_objects_stay_out_of_the_mean():
    truth = coco_dict([(1, 1, [0, 0, 9, 9]), (1, 2, [0, 0, 9, 9])], classes='abc')
    at = single(truth, found((1, 1, [0, 0, 9, 9], 0.9), (1, 3, [0, 0, 9, 9], 0.9)))
    assert at['per_class']['a'] == 1.0 and at['per_class']['b'] == 0.0 and math.isnan(at['per_class']['c'])
    assert at['mAP'] == 0.5


def test_no_objects_at_all_is_undefined():
    assert math.isnan(single(coco_dict([]), found((1, 1, [0, 0, 9, 9], 0.9)))['mAP'])


def test_the_two_conventions_differ_by_the_last_pixel():
    # inclusive 10 x 5 of 10 x 10 pixels: IoU 1/2; continuous 9 x 4 of 9 x 9: 4/9
    truth, results = coco_dict([(1, 1, [0, 0, 9, 9])]), found((1, 1, [0, 0, 9, 4], 0.9))
    assert single(truth, results, 0.5, 'pixel_inclusive')['mAP'] == 1.0
    assert single(truth, results, 0.5, 'continuous')['mAP'] == 0.0
    assert single(truth, results, 4 / 9, 'continuous')['mAP'] == 1.0


def test_equal_scores_keep_the_order_of_the_images():
    truth = coco_dict([(1, 1, [0, 0, 9, 9])], num_images=2)
    right, wrong = (1, 1, [0, 0, 9, 9], 0.5), (2, 1, [0, 0, 9, 9], 0.5)
    assert single(truth, found(wrong, right))['mAP'] == 1.0
    truth['images'].reverse()
    assert single(truth, found(right, wrong))['mAP'] == 0.5


def test_boxes_in_other_images_never_match():
    truth = coco_dict([(1, 1, [0, 0, 9, 9])], num_images=2)
    assert single(truth, found((2, 1, [0, 0, 9, 9], 0.9)), 0.01)['mAP'] == 0.0


def test_iou_of_boxes_without_area_is_0_not_nan():
    iou = pairwise_iou([[3, 3, 3, 3], [0, 0, 4, 4]], [[3, 3, 3, 3], [2, 0, 6, 4]], convention='continuous')
    np.testing.assert_allclose(iou, [[0, 0], [0, 1 / 3]])


def test_wrong_arguments_are_named():
    truth = coco_dict([(1, 1, [0, 0, 9, 9])])
    with pytest.raises(ValueError, match="expected one of .*'continuous'.* got 'voc'"):
        voc_metrics(truth, [], iou_thresholds=(0.5,), convention='voc')
    with pytest.raises(ValueError, match=r'expected values in \(0, 1\], got \(0.0,\)'):
        voc_metrics(truth, [], iou_thresholds=(0.0,))
    with pytest.raises(ValueError, match='result 0: image_id 7 is not in the ground truth'):
        single(truth, found((7, 1, [0, 0, 9, 9], 0.9)))
