"""Weighted box fusion against the answers of its authors' package, and what the readers' votes do."""
import numpy as np
import pytest

from relnet_jax.data.formats.fusion import fuse_readers, weighted_box_fusion

# Answers of ensemble-boxes 1.0.9, recorded in an environment of its own (`pip install ensemble-boxes`) as
#   weighted_boxes_fusion([[[v / 2048 for v in box] for box in model] for model in boxes], scores, labels, iou_thr=iou)
# with the boxes multiplied by 2048 again. READERS: everybody is sure, as in VinDr-CXR; DETECTORS: scores of their own.
READERS = dict(
    boxes=[[[691, 1375, 1653, 1831], [1264, 743, 1611, 1019]],
           [[700, 1380, 1600, 1850], [1250, 760, 1600, 1000], [300, 300, 350, 360]],
           [[720, 1340, 1700, 1800], [320, 310, 370, 380]]],
    labels=[[3, 0], [3, 0, 8], [3, 8]], scores=[[1, 1], [1, 1, 1], [1, 1]], iou=0.5,
    fused=[([703.667, 1365, 1651, 1827], 1, 3), ([1257, 751.5, 1605.5, 1009.5], 0.666667, 0),
           ([320, 310, 370, 380], 0.333333, 8), ([300, 300, 350, 360], 0.333333, 8)])
DETECTORS = dict(
    boxes=[[[874, 1108, 1403, 1414], [1185, 1350, 1590, 1544], [904, 402, 1374, 512], [73, 30, 470, 136]],
           [[822, 1392, 1074, 1735], [1048, 421, 1400, 491], [1220, 1383, 1551, 1547], [84, 34, 441, 129]],
           [[857, 1445, 1052, 1601], [913, 1120, 1409, 1387], [1049, 389, 1348, 517], [64, 52, 514, 130]]],
    labels=[[1, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 1]], iou=0.4,
    scores=[[0.95, 0.49, 0.66, 0.46], [0.52, 0.36, 0.27, 0.66], [0.53, 0.79, 0.77, 0.95]],
    fused=[([72.377, 41.372, 480.947, 131.014], 0.69, 1), ([995.335, 400.229, 1368.045, 509.927], 0.596667, 0),
           ([891.707, 1113.448, 1405.724, 1401.741], 0.58, 1), ([1197.434, 1361.724, 1576.145, 1545.066], 0.253333, 0),
           ([857, 1445, 1052, 1601], 0.176667, 0), ([822, 1392, 1074, 1735], 0.173333, 0)])


def together(lists):
    return np.array([value for one in lists for value in one], float)


@pytest.mark.parametrize('case', [READERS, DETECTORS], ids=['readers', 'detectors'])
def test_fused_boxes_and_scores_are_those_of_ensemble_boxes(case):
    fused = weighted_box_fusion(together(case['boxes']), together(case['scores']), together(case['labels']).astype(int),
                                models=3, iou=case['iou'])
    def key(row):
        return row[2], -row[1], row[0]
    rows = sorted(zip(fused.boxes.tolist(), fused.scores.tolist(), fused.labels.tolist()), key=key)
    for (box, score, label), expected in zip(rows, sorted(case['fused'], key=key), strict=True):
        assert label == expected[2] and score == pytest.approx(expected[1], abs=1e-6)
        np.testing.assert_allclose(box, expected[0], atol=2e-3)       # the package computes boxes in float32
    assert sorted(i for members in fused.members for i in members) == list(range(len(together(case['scores']))))
    assert (np.diff(fused.scores) <= 0).all()


def test_two_boxes_are_averaged_by_their_scores():
    fused = weighted_box_fusion(np.array([[0, 0, 10, 10], [0, 0, 10, 14.]]), np.array([0.9, 0.3]), np.array([5, 5]),
                                models=2, iou=0.5)
    np.testing.assert_allclose(fused.boxes, [[0, 0, 10, 11]])       # (0.9 * 10 + 0.3 * 14) / 1.2
    np.testing.assert_allclose(fused.scores, [0.6])
    assert fused.members == [[0, 1]] and fused.labels.tolist() == [5]


BOXES, LABELS = np.array([[0, 0, 10, 10], [0, 0, 10, 12], [1, 0, 10, 10], [50, 50, 60, 60.]]), np.array([1, 1, 2, 1])


def test_a_majority_is_more_than_half_of_those_who_looked():
    def fuse(fusion, readers, drawn_by=('a', 'b', 'a', 'b')):
        return fuse_readers(BOXES, LABELS, list(drawn_by), readers=readers, fusion=fusion, iou=0.5)

    assert fuse('none', 3).boxes.tolist() == BOXES.tolist() and fuse('none', 3).members == [[0], [1], [2], [3]]
    assert [sorted(m) for m in fuse('wbf', 3).members] == [[0, 1], [3], [2]]
    assert fuse('wbf', 3).scores == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert fuse('majority', 3).boxes.tolist() == [[0, 0, 10, 11]]
    assert len(fuse('majority', 4).boxes) == 0                              # two of four are a half
    assert len(fuse('majority', 3, 'aaab').boxes) == 0                      # one reader who draws twice has one vote
    assert len(fuse('majority', 1, 'aaaa').boxes) == 3                      # a single reader is a majority
    with pytest.raises(ValueError, match="data.fusion: expected one of .*, got 'mean'"):
        fuse('mean', 3)


def test_no_boxes_fuse_to_none():
    fused = weighted_box_fusion(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), models=3, iou=0.5)
    assert fused.boxes.shape == (0, 4) and fused.scores.shape == (0,) and fused.members == []
