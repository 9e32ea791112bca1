import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.ops import nms as forms

nms, nms_plain, nms_sorted = (
    jax.jit(form, static_argnames='iou_threshold')
    for form in (forms.nms, forms.nms_plain, forms.nms_sorted))


def clustered(rng, batch, count, *, clusters=12):
    """Whole-number boxes in clusters with coarse scores: long chains of suppression, many ties, IoUs on thresholds."""
    centre = rng.integers(0, 200, (batch, clusters, 2))[:, rng.integers(0, clusters, count)]
    low = centre + rng.integers(-12, 13, (batch, count, 2))
    boxes = np.concatenate([low, low + rng.integers(10, 40, (batch, count, 2))], -1).astype(np.float32)
    return boxes, (rng.integers(0, 50, (batch, count)) / 50).astype(np.float32), rng.random((batch, count)) < 0.9


def greedy(boxes, scores, valid, threshold):
    """Sequential algorithm of one image in numpy: IoU in float32, compared with the threshold in float64."""
    sides = np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - np.maximum(boxes[:, None, :2], boxes[:, :2])
    inter = np.maximum(sides, 0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    close = (inter / (areas[:, None] + areas - inter)).astype(np.float64) > threshold
    kept = []
    for i in sorted(np.flatnonzero(valid), key=lambda i: (-scores[i], i)):
        if not close[i, kept].any():
            kept.append(i)
    return np.isin(np.arange(len(boxes)), kept)


@pytest.mark.parametrize('form', [nms, nms_plain])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
def test_kept_set_matches_torchvision(golden, form, threshold):
    boxes, scores = golden['nms/boxes'][None], golden['nms/scores'][None]
    keep = form(boxes, scores, jnp.ones(scores.shape, bool), iou_threshold=threshold)[0]
    assert set(np.flatnonzero(keep)) == set(golden[f'nms/keep_{threshold}'])


def test_class_wise_kept_set_matches_torchvision(golden):
    boxes, scores, labels = (golden[f'nms/{k}'][None] for k in ('boxes', 'scores', 'labels'))
    keep = sum(nms(boxes, scores, labels == c, iou_threshold=0.5)[0].astype(int) for c in np.unique(labels))
    assert set(np.flatnonzero(keep)) == set(golden['nms/batched_keep_0.5'])


@pytest.mark.parametrize('count, threshold', [(1, 0.5), (256, 0.5), (257, 0.7), (600, 0.3)])
def test_blocked_form_equals_plain_form_and_sequential_algorithm(count, threshold):
    boxes, scores, valid = clustered(np.random.default_rng(count), 2, count)
    keep = nms(boxes, scores, valid, iou_threshold=threshold)
    np.testing.assert_array_equal(keep, nms_plain(boxes, scores, valid, iou_threshold=threshold))
    expected = np.stack([greedy(*image, threshold) for image in zip(boxes, scores, valid)])
    np.testing.assert_array_equal(keep, expected)
    assert count == 1 or 0 < expected.sum() < valid.sum()



def test_long_chain_of_suppressions_is_settled():
    """Each box overlaps only its neighbours: every second one stays, which takes as many rounds as there are boxes."""
    count = 300
    left = 3.0 * np.arange(count, dtype=np.float32)
    boxes = np.broadcast_to(np.stack([left, 0 * left, left + 10, 0 * left + 10], -1), (2, count, 4))
    scores = np.broadcast_to(np.linspace(1, 0, count, dtype=np.float32), (2, count))
    keep = nms(boxes, scores, np.ones((2, count), bool), iou_threshold=0.5)
    np.testing.assert_array_equal(keep, np.broadcast_to(np.arange(count) % 2 == 0, (2, count)))


def test_among_equal_scores_the_lower_index_wins_and_threshold_is_strict():
    boxes = jnp.array([[[0., 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5]]])  # IoU 1 and exactly 1/2
    scores, valid = jnp.ones((1, 3)), jnp.ones((1, 3), bool)
    np.testing.assert_array_equal(nms(boxes, scores, valid, iou_threshold=0.5)[0], [True, False, True])
    np.testing.assert_array_equal(nms(boxes, scores, valid, iou_threshold=0.499)[0], [True, False, False])


def test_threshold_is_compared_as_written():
    """float32(0.3) lies above 0.3, so that an IoU of 3/10 exceeds it, as in torchvision; 0.7 is the opposite."""
    boxes = jnp.array([[[0., 0, 10, 10], [0, 0, 10, 3], [20, 0, 30, 10], [20, 0, 30, 7]]])
    scores, valid = jnp.array([[0.9, 0.8, 0.7, 0.6]]), jnp.ones((1, 4), bool)
    np.testing.assert_array_equal(nms(boxes, scores, valid, iou_threshold=0.3)[0], [True, False, True, False])
    np.testing.assert_array_equal(nms(boxes, scores, valid, iou_threshold=0.7)[0], [True, True, True, True])


def test_permuting_the_boxes_permutes_the_kept_set():
    rng = np.random.default_rng(6)
    boxes, _, valid = clustered(rng, 2, 300)
    scores = rng.permutation(600).reshape(2, 300).astype(np.float32)
    order = rng.permutation(300)
    keep = nms(boxes, scores, valid, iou_threshold=0.5)
    moved = nms(boxes[:, order], scores[:, order], valid[:, order], iou_threshold=0.5)
    np.testing.assert_array_equal(moved, keep[:, order])


def test_padding_changes_nothing_whatever_it_holds():
    rng = np.random.default_rng(7)
    boxes, scores, valid = clustered(rng, 2, 200)
    wild = np.broadcast_to(np.float32([-1e6, -1e6, 1e6, 1e6]), (2, 100, 4))
    padded = nms(np.concatenate([boxes, wild], 1), np.pad(scores, ((0, 0), (0, 100)), constant_values=99),
                 np.pad(valid, ((0, 0), (0, 100))), iou_threshold=0.5)   # more than one block, against one
    np.testing.assert_array_equal(padded[:, :200], nms(boxes, scores, valid, iou_threshold=0.5))
    assert not padded[:, 200:].any()


def test_nothing_valid_or_nothing_at_all_keeps_nothing():
    boxes, scores, _ = clustered(np.random.default_rng(8), 2, 300)
    assert not nms(boxes, scores, np.zeros((2, 300), bool), iou_threshold=0.5).any()
    assert nms(jnp.zeros((2, 0, 4)), jnp.zeros((2, 0)), jnp.zeros((2, 0), bool), iou_threshold=0.5).shape == (2, 0)


def test_compiled_equals_not_compiled(monkeypatch):
    monkeypatch.setattr(forms, 'BLOCK', 32)
    boxes, _, valid = clustered(np.random.default_rng(9), 1, 70)
    with jax.disable_jit():
        expected = forms.nms_sorted(jnp.asarray(boxes), jnp.asarray(valid), iou_threshold=0.5)
    np.testing.assert_array_equal(nms_sorted(boxes, valid, iou_threshold=0.5), expected)
    np.testing.assert_array_equal(expected[0], greedy(boxes[0], -np.arange(70), valid[0], 0.5))
