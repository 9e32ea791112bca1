import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models import rpn
from relnet_jax.ops import boxes as box_ops

CANVAS, STRIDES, SIZES, RATIOS = (128, 128), (16, 32), (24, 48), (0.5, 1.0, 2.0)
SIZE = jnp.array([[128.0, 128.0], [90.0, 70.0]])


@pytest.fixture(scope='module')
def outputs():
    """(logits, deltas, anchors) of two levels for random outputs of the head."""
    rng = np.random.default_rng(0)
    anchors = rpn.make_anchors(SIZE, CANVAS, strides=STRIDES, sizes=SIZES, ratios=RATIOS, mask_padding=True)
    logits = [jnp.asarray(rng.normal(size=(2, len(level))), jnp.float32) for level in anchors.boxes]
    deltas = [jnp.asarray(rng.normal(size=(2, len(level), 4)) * 0.3, jnp.float32) for level in anchors.boxes]
    return logits, deltas, anchors


def picked(outputs):
    return functools.partial(rpn.at_index, *outputs[:2])


def iou(a, b):
    side = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    shared = side[0] * side[1]
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def proposals_one_by_one(logits, deltas, anchors, image, pre_nms, post_nms):
    """List of (score, box), best first, for one image."""
    found = []
    for level_logits, level_deltas, level_boxes, level_valid in zip(logits, deltas, *anchors):
        boxes = np.asarray(box_ops.decode(level_deltas[image], jnp.asarray(level_boxes)))
        height, width = SIZE[image]
        boxes = np.clip(boxes, 0, np.array([width, height, width, height]))
        inside = np.flatnonzero(level_valid[image])
        order = inside[np.argsort(-np.asarray(level_logits[image])[inside], kind='stable')][:pre_nms]
        kept = []
        for i in order:
            if (boxes[i, 2:] - boxes[i, :2] >= 1e-3).all() and all(iou(boxes[i], boxes[j]) <= 0.7 for j in kept):
                kept.append(i)
        found += [(float(level_logits[image, i]), boxes[i]) for i in kept]
    return sorted(found, key=lambda item: -item[0])[:post_nms]


@pytest.mark.parametrize('jit', [True, False])
@pytest.mark.parametrize('pre_nms, post_nms', [(500, 500), (30, 25)])
def test_proposals_are_those_of_the_sequential_algorithm(outputs, pre_nms, post_nms, jit):
    def select():
        return rpn.select_proposals(*outputs, SIZE, pre_nms=pre_nms, post_nms=post_nms)

    proposals = jax.jit(select)() if jit else select()
    for image in range(2):
        expected = proposals_one_by_one(*outputs, image, pre_nms, post_nms)
        valid = np.asarray(proposals.valid[image])
        assert valid.sum() == len(expected) and valid[:len(expected)].all()
        np.testing.assert_allclose(proposals.scores[image][valid], [score for score, _ in expected])
        np.testing.assert_allclose(proposals.boxes[image][valid], [box for _, box in expected], atol=1e-4)


def test_no_gradient_flows_through_proposals(outputs):
    logits, deltas, anchors = outputs

    def total(logits, deltas):
        proposals = rpn.select_proposals(logits, deltas, anchors, SIZE, pre_nms=20, post_nms=20)
        return proposals.boxes.sum() + proposals.scores.sum()

    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.grad(total, (0, 1))(logits, deltas)))


def test_anchors_of_padded_cells_are_invalid_unless_padding_counts(outputs):
    valid = outputs[2].valid
    # 90 x 70 pixels: 6 x 5 cells of stride 16 and 3 x 3 of stride 32, three anchors each
    assert [int(level[1].sum()) for level in valid] == [90, 27]
    assert all(level[0].all() for level in valid)
    all_valid = rpn.make_anchors(SIZE, CANVAS, strides=STRIDES, sizes=SIZES, ratios=RATIOS, mask_padding=False).valid
    assert all(level.all() for level in all_valid)


def losses_one_by_one(logits, deltas, anchors, batch, beta):
    """(classification sum, box sum, anchors used) per level when every anchor is sampled."""
    sums = np.zeros((len(logits), 2))
    used = 0
    for image in range(2):
        gts = np.asarray(batch.gt_boxes[image])[np.asarray(batch.gt_valid[image])]
        overlap = [np.array([[iou(box, gt) for gt in gts] for box in level]) for level in anchors.boxes]
        inside = [np.asarray(level[image])[:, None] for level in anchors.valid]
        overlap = [np.where(mask, level, 0) for mask, level in zip(inside, overlap)]
        best = np.concatenate(overlap).max(0)
        for level, table in enumerate(overlap):
            for i in np.flatnonzero(anchors.valid[level][image]):
                positive = table[i].max() >= 0.7 or (table[i] == best).any()
                if not positive and table[i].max() >= 0.3:
                    continue
                used += 1
                x = float(logits[level][image, i])
                sums[level, 0] += np.log1p(np.exp(-x if positive else x))
                if positive:
                    target = box_ops.encode(jnp.asarray(gts[table[i].argmax()]), jnp.asarray(anchors.boxes[level][i]))
                    away = np.abs(np.asarray(deltas[level][image, i] - target))
                    sums[level, 1] += np.where(away < beta, 0.5 * away ** 2 / beta, away - beta / 2).sum()
    return sums, used


def test_losses_are_those_of_a_loop_over_anchors(outputs, tiny_batch):
    batch = tiny_batch()._replace(image_size=SIZE)
    keys = jax.random.split(jax.random.key(0), 2)
    terms, metrics = jax.jit(lambda: rpn.rpn_losses(picked(outputs), outputs[2], batch, keys, samples=10_000,
                                                    max_positive=5000, beta=1 / 9))()
    sums, used = losses_one_by_one(*outputs, batch, 1 / 9)
    for level in range(2):
        for kind, expected in zip(('cls', 'bbox'), sums[level]):
            total, count = terms[f'rpn_{kind}_p{level + 2}']
            assert float(total) == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert count == used
    assert metrics['num_positive_anchors'][0] > 0


def test_samples_are_as_many_as_asked_and_at_most_half_positive(outputs, tiny_batch):
    batch = tiny_batch()._replace(image_size=SIZE)
    keys = jax.random.split(jax.random.key(0), 2)
    terms, metrics = jax.jit(lambda: rpn.rpn_losses(picked(outputs), outputs[2], batch, keys, samples=8,
                                                    max_positive=2, beta=1 / 9))()
    assert terms['rpn_cls_p2'][1] == 16
    assert metrics['num_positive_anchors'][0] <= 4


@pytest.mark.parametrize('dtype, close', [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_single_anchors_get_what_the_maps_hold_there_and_the_same_gradients(dtype, close):
    rng = np.random.default_rng(1)
    sizes = [(6, 5), (3, 3), (2, 1)]        # rows, columns
    pyramid = [jnp.asarray(rng.normal(size=(2, *size, 8)), dtype) for size in sizes]
    valid = [jnp.asarray(rng.random((2, *size, 1)) < 0.8) for size in sizes[:2]] + [None]
    head = rpn.RPNHead(3, 16, dtype=dtype)
    params = head.init(jax.random.key(0), pyramid, valid)
    params = jax.tree.map(lambda p: p + 0.1, params)
    index = jnp.asarray(np.stack([rng.permutation(3 * 41)[:80] for _ in range(2)]), jnp.int32)
    weight = jnp.asarray(rng.normal(size=(2, 80, 5)), jnp.float32)

    def total(params, pyramid, sparse):
        if sparse:
            logits, deltas = head.apply(params, pyramid, valid, index, method='at_anchors')
        else:
            logits, deltas = rpn.at_index(*head.apply(params, pyramid, valid), index)
        out = jnp.concatenate([logits[..., None], deltas], -1)
        return (out * weight).sum(), out

    results = [jax.jit(jax.grad(total, (0, 1), has_aux=True), static_argnums=2)(params, pyramid, sparse)
               for sparse in (True, False)]
    for ours, dense in zip(*map(jax.tree.leaves, results)):
        largest = float(jnp.abs(dense).max())
        np.testing.assert_allclose(np.float32(ours), np.float32(dense), atol=close * largest)
        assert largest > 0
