import json

import numpy as np
import pytest

from relnet_jax.evaluation import curves
from relnet_jax.evaluation.voc import voc_metrics


def truth_of(boxes, categories=('a', 'b')):
    """One image per box list: [(category, x)], boxes 10 x 10 at y = 0."""
    annotations = [dict(id=n, image_id=image, category_id=categories.index(name) + 1, bbox=[x, 0, 10, 10], iscrowd=0)
                   for image, found in enumerate(boxes) for n, (name, x) in enumerate(found)]
    return dict(images=[dict(id=i) for i in range(len(boxes))], annotations=annotations,
                categories=[dict(id=i + 1, name=name) for i, name in enumerate(categories)])


def result(image, category, x, score):
    return dict(image_id=image, category_id=category, bbox=[x, 0, 10, 10], score=score)


def test_the_curve_of_a_case_counted_by_hand():
    """Two objects of class a; by score: right, wrong, right. Recall 1/2, 1/2, 1; precision 1, 1/2, 2/3."""
    truth = truth_of([[('a', 0)], [('a', 50)]])
    results = [result(1, 1, 50, 0.3), result(0, 1, 0, 0.9), result(0, 1, 80, 0.5)]
    found = curves.precision_recall(truth, results)
    assert list(found) == ['a'], 'a class without objects has no curve'
    recall, precision, ap = found['a']
    assert recall == pytest.approx([0.5, 0.5, 1.0]) and precision == pytest.approx([1, 1 / 2, 2 / 3])
    assert ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_the_area_is_the_average_precision_of_the_report():
    rng = np.random.default_rng(0)
    truth = truth_of([[('ab'[rng.integers(2)], 20 * n) for n in range(3)] for _ in range(20)])
    results = [result(int(rng.integers(20)), int(rng.integers(1, 3)), float(20 * rng.integers(4) + rng.normal()),
                      float(rng.integers(10) / 10)) for _ in range(200)]
    expected = voc_metrics(truth, results, iou_thresholds=[0.5])[0.5]['per_class']
    found = curves.precision_recall(truth, results)
    assert {name: ap for name, (_, _, ap) in found.items()} == pytest.approx(expected)


def test_a_class_without_detections_has_an_empty_curve():
    recall, precision, ap = curves.precision_recall(truth_of([[('b', 0)]]), [])['b']
    assert len(recall) == len(precision) == 0 and ap == 0
    figure = curves.precision_recall_figure(truth_of([[('b', 0)]]), [])
    assert [t.get_text() for t in figure.axes[1].get_yticklabels()] == ['b']


def test_the_figure_ranks_the_classes():
    truth = truth_of([[('a', 0)], [('b', 50)]])
    figure = curves.precision_recall_figure(truth, [result(1, 2, 50, 0.9)])
    assert [t.get_text() for t in figure.axes[1].get_yticklabels()] == ['b', 'a']
    assert [round(bar.get_width()) for bar in figure.axes[1].patches] == [100, 0]


@pytest.fixture
def workdir(tmp_path):
    lines = [dict(step=2, split='train', loss=2.0, loss_cls=1.0, rpn_cls=0.5, rpn_cls_p2=0.5, lr=0.1,
                  accuracy_cls=0.8),
             dict(step=4, split='train', loss=1.0, loss_cls=None, rpn_cls=0.25, rpn_cls_p2=0.2, lr=0.2,
                  accuracy_cls=0.9),
             dict(step=4, split='val', box_AP50=0.25)]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return tmp_path


def test_metrics_are_read_by_name(workdir):
    found = curves.read_metrics(workdir)
    steps, values = found['loss_cls']
    assert steps.tolist() == [2, 4] and values[0] == 1 and np.isnan(values[1])
    assert 'box_AP50' not in found and curves.read_metrics(workdir, 'val')['box_AP50'][1].tolist() == [0.25]


def test_the_losses_are_drawn_without_those_of_single_levels(workdir):
    left, middle, right = curves.loss_figure(workdir).axes
    assert [line.get_label() for line in left.lines] == ['loss', 'loss_cls', 'rpn_cls']
    assert middle.lines[0].get_ydata().tolist() == [0.8, 0.9] and right.lines[0].get_ydata().tolist() == [0.1, 0.2]
