import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models import box_head
from relnet_jax.ops import boxes as box_ops
from relnet_jax.types import Proposals

SIZE = jnp.array([[128.0, 128.0], [100.0, 90.0]])


def random_boxes(rng, *shape):
    corner = rng.uniform(0, 60, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(8, 60, (*shape, 2))], -1).astype(np.float32)


@pytest.fixture(scope='module')
def outputs():
    """(logits, deltas, proposals): 40 RoIs of which the last 5 are padding, 4 classes."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 40, 4)) * 2, jnp.float32)
    deltas = jnp.asarray(rng.normal(size=(2, 40, 4, 4)), jnp.float32)
    valid = jnp.broadcast_to(jnp.arange(40) < 35, (2, 40))
    return logits, deltas, Proposals(jnp.asarray(random_boxes(rng, 2, 40)), jnp.zeros((2, 40)), valid)


def iou(a, b):
    side = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    shared = side[0] * side[1]
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize('jit', [True, False])
@pytest.mark.parametrize('num', [100, 10])
def test_detections_are_those_of_a_loop_over_classes(outputs, num, jit):
    logits, deltas, rois = outputs

    def select():
        return box_head.select_detections(logits, deltas, rois, SIZE, score_threshold=0.1, nms_iou=0.5, num=num)

    got = jax.jit(select)() if jit else select()
    for image in range(2):
        scores = np.exp(logits[image]) / np.exp(logits[image]).sum(-1, keepdims=True)
        boxes = np.asarray(box_ops.decode(deltas[image], rois.boxes[image][:, None], weights=(10., 10., 5., 5.)))
        height, width = SIZE[image]
        boxes = np.clip(boxes, 0, np.array([width, height, width, height]))
        expected = []
        for label in (1, 2, 3):
            kept = []
            for i in np.argsort(-scores[:35, label], kind='stable'):
                if scores[i, label] > 0.1 and all(iou(boxes[i, label], boxes[j, label]) <= 0.5 for j in kept):
                    kept.append(i)
            expected += [(scores[i, label], label, *boxes[i, label]) for i in kept]
        expected = np.array(sorted(expected, reverse=True)[:num])
        valid = np.asarray(got.valid[image])
        assert valid.sum() == len(expected) > 5 and valid[:len(expected)].all()
        np.testing.assert_allclose(got.scores[image][valid], expected[:, 0], rtol=1e-5)
        np.testing.assert_array_equal(got.labels[image][valid], expected[:, 1])
        np.testing.assert_allclose(got.boxes[image][valid], expected[:, 2:], atol=1e-4)


def test_padded_rois_change_no_detection(outputs):
    logits, deltas, rois = outputs
    junk = [jnp.asarray(np.random.default_rng(1).normal(size=x.shape) * 9, jnp.float32) for x in (logits, deltas)]
    changed = [jnp.where(rois.valid.reshape(2, 40, *[1] * (x.ndim - 2)), x, y) for x, y in zip((logits, deltas), junk)]
    options = dict(score_threshold=0.1, nms_iou=0.5, num=20)
    expected = box_head.select_detections(logits, deltas, rois, SIZE, **options)
    for got, want in zip(box_head.select_detections(*changed, rois, SIZE, **options), expected):
        np.testing.assert_array_equal(got, want)


def make_proposals(batch, valid=30):
    """Jittered ground truths and random boxes."""
    rng = np.random.default_rng(2)
    near = np.tile(np.asarray(batch.gt_boxes[:, :3]), (1, 4, 1)) + rng.uniform(-6, 6, (2, 12, 4))
    boxes = np.concatenate([near, random_boxes(rng, 2, 28)], 1).astype(np.float32)
    return Proposals(jnp.asarray(boxes), jnp.zeros((2, 40)), jnp.broadcast_to(jnp.arange(40) < valid, (2, 40)))


def test_samples_are_matched_by_overlap_and_positives_come_first(tiny_batch):
    batch = tiny_batch()
    keys = jax.random.split(jax.random.key(0), 2)
    sample = box_head.sample_rois(make_proposals(batch), batch, keys, num=40, max_positive=20)
    for image in range(2):
        assert int(sample.valid[image].sum()) == 33     # 30 proposals and 3 objects: everything fits
        for box, matched, label, positive, valid in zip(*(np.asarray(f[image]) for f in sample[:5])):
            if not valid:
                continue
            overlaps = [iou(box, np.asarray(gt)) for gt in batch.gt_boxes[image, :3]]
            assert positive == (max(overlaps) >= 0.5)
            assert label == (batch.gt_labels[image, matched] if positive else 0)
            assert not positive or matched == np.argmax(overlaps)
    positive = np.asarray(sample.positive).astype(int)
    assert (np.diff(positive, axis=1) <= 0).all() and (positive.sum(1) >= 3).all()
    few = box_head.sample_rois(make_proposals(batch), batch, keys, num=8, max_positive=2)
    assert (few.positive.sum(1) == 2).all() and (few.valid.sum(1) == 8).all()


def test_padded_proposals_and_ground_truths_change_no_sample(tiny_batch):
    keys = jax.random.split(jax.random.key(0), 2)
    batch, more = tiny_batch(), tiny_batch(objects=7)
    proposals = make_proposals(batch)
    junk = proposals._replace(boxes=jnp.where(proposals.valid[..., None], proposals.boxes, 33.0))
    expected = box_head.sample_rois(proposals, batch, keys, num=16, max_positive=4)
    for other in (box_head.sample_rois(junk, batch, keys, num=16, max_positive=4),
                  box_head.sample_rois(proposals, more, keys, num=16, max_positive=4)):
        jax.tree.map(np.testing.assert_array_equal, other, expected)


@pytest.mark.parametrize('background_weight, class_weights, gamma', [
    (1.0, (), 0.0), (0.2, (), 0.0), (0.5, (1.0, 3.0, 0.0), 0.0), (1.0, (), 2.0), (0.5, (2.0, 0.5, 1.0), 1.5)])
def test_box_losses_are_those_of_a_loop_over_rois(tiny_batch, background_weight, class_weights, gamma):
    batch, rng = tiny_batch(), np.random.default_rng(3)
    logits = jnp.asarray(rng.normal(size=(2, 40, 4)), jnp.float32)
    deltas = jnp.asarray(rng.normal(size=(2, 40, 4, 4)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    sample = box_head.sample_rois(make_proposals(batch), batch, keys, num=40, max_positive=20)
    terms, metrics = box_head.box_losses(logits, deltas, sample, batch, beta=1.0, background_weight=background_weight,
                                         class_weights=class_weights, focal_gamma=gamma)
    cls = weights = bbox = correct = 0.0
    for image, i in zip(*np.nonzero(sample.valid)):
        label = int(sample.labels[image, i])
        weight = background_weight if label == 0 else class_weights[label - 1] if class_weights else 1.0
        weights += weight
        share = np.exp(logits[image, i, label]) / np.exp(logits[image, i]).sum()
        cls -= weight * (1 - share) ** gamma * np.log(share)
        correct += int(logits[image, i].argmax() == label)
        if label:
            gt = batch.gt_boxes[image, sample.matched[image, i]]
            target = box_ops.encode(gt, sample.boxes[image, i], weights=(10., 10., 5., 5.))
            away = np.abs(deltas[image, i, label] - target)
            bbox += np.where(away < 1, away ** 2 / 2, away - 0.5).sum()
    np.testing.assert_allclose(terms['loss_cls'], (cls, weights), rtol=1e-4)
    np.testing.assert_allclose(terms['loss_bbox'], (bbox, 66), rtol=1e-4)
    np.testing.assert_allclose(metrics['accuracy_cls'], (correct, 66))


def test_dropout_keeps_the_mean_and_drops_its_share():
    keys = jax.random.split(jax.random.key(0), 3)
    out = np.asarray(box_head.dropout(jnp.ones((3, 50, 40)), keys, 0.25))
    assert set(np.unique(out)) == {0, np.float32(1 / 0.75)}
    assert abs((out == 0).mean() - 0.25) < 0.02
    alone = box_head.dropout(jnp.ones((1, 50, 40)), keys[1:2], 0.25)
    np.testing.assert_array_equal(alone[0], out[1])
