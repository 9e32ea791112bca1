"""Lists of detections are compared as sets with labels, and every way to differ shows."""
import numpy as np
import pytest

from relnet_jax.interop.agreement import Agreement, compare, match, rows, total
from relnet_jax.types import Detections


def detections(n=4):
    """n boxes of 10 x 10, 20 apart, of labels 1, 2, 1, 2, ..."""
    corner = 20.0 * np.arange(n)[:, None] * [1, 0]
    return dict(boxes=np.float32(np.concatenate([corner, corner + 10], 1)), scores=np.float32(0.9 - 0.1 * np.arange(n)),
                labels=np.int32(np.arange(n) % 2 + 1), masks=np.full((n, 3, 3), 0.25, np.float32))


def changed(name, rows, change):
    found = detections()
    found[name][rows] += np.asarray(change, found[name].dtype)
    return found


def test_equal_lists_agree():
    assert compare(detections(), detections()) == Agreement(4, 4, 4, True, 0.0, 0.0, 0.0, 4)
    assert compare(detections(), detections()).complete


def test_order_does_not_matter_but_is_told():
    found = {name: value[[2, 1, 0, 3]] for name, value in detections().items()}
    assert compare(detections(), found) == Agreement(4, 4, 4, False, 0.0, 0.0, 0.0, 4)


@pytest.mark.parametrize('name, change, field', [('boxes', [0.5, 0, 0, 0], 'box'), ('scores', 0.125, 'score'),
                                                 ('masks', 0.5, 'mask')])
def test_the_largest_difference_of_each_kind(name, change, field):
    result = compare(detections(), changed(name, 2, change))
    assert getattr(result, field) == pytest.approx(np.max(change), abs=1e-6) and result.complete and result.ordered
    assert [getattr(result, other) for other in ('box', 'score', 'mask') if other != field] == [0, 0]


def test_another_label_or_place_is_no_match():
    assert compare(detections(), changed('labels', 1, 5))[:4] == (4, 4, 3, False)
    assert compare(detections(), changed('boxes', 1, 6))[:4] == (4, 4, 3, False)        # IoU 16 / 184
    assert compare(detections(), changed('boxes', 1, [3, 0, 3, 0]))[:3] == (4, 4, 4)    # 70 / 130
    assert compare(detections(), changed('boxes', 1, [3, 0, 3, 0])).over_90 == 3


def test_more_or_fewer_detections_are_not_complete():
    fewer = {name: value[:3] for name, value in detections().items()}
    nothing = {name: value[:0] for name, value in detections().items()}
    for pair in ((detections(), fewer), (fewer, detections()), (detections(), nothing), (nothing, detections())):
        assert not compare(*pair).complete and not compare(*pair).ordered
    assert compare(nothing, nothing) == Agreement(0, 0, 0, True, 0.0, 0.0, 0.0, 0)


def test_one_detection_is_partner_once_and_of_the_best_scored():
    twice = dict(boxes=np.float32([[0, 0, 10, 10], [0, 0, 10, 9]]), scores=np.float32([0.9, 0.8]),
                 labels=np.int32([1, 1]))
    partner, iou = match(twice, {name: value[1:] for name, value in twice.items()})
    assert partner.tolist() == [0, -1] and iou.tolist() == [0.9, 0.0]


def test_masks_on_one_side_only_are_an_error():
    found = detections()
    del found['masks']
    with pytest.raises(ValueError, match=r'masks: expected \(3, 3\), got None'):
        compare(detections(), found)


def test_without_masks_there_is_no_difference_of_masks():
    plain = {name: value for name, value in detections().items() if name != 'masks'}
    assert compare(plain, plain) == Agreement(4, 4, 4, True, 0.0, 0.0, None, 4)


def test_rows_are_the_valid_ones():
    one = detections(2)
    padded = Detections(*(np.stack([one[name], one[name]]) for name in ('boxes', 'scores', 'labels')),
                        valid=np.array([[True, False], [False, False]]), masks=np.zeros((2, 2, 0, 0)))
    first, second = rows(padded, 0), rows(padded, 1)
    assert first.keys() == {'boxes', 'scores', 'labels'} and len(first['boxes']) == 1 and len(second['boxes']) == 0


def test_a_total_adds_counts_and_keeps_the_largest_differences():
    parts = [Agreement(2, 3, 2, True, 0.5, 0.1, 0.0, 1), Agreement(4, 4, 4, False, 0.25, 0.2, 0.3, 4)]
    assert total(parts) == Agreement(6, 7, 6, False, 0.5, 0.2, 0.3, 5)
    assert total([part._replace(mask=None) for part in parts]).mask is None
    assert total([]).complete
