"""Exact greedy non-maximum suppression on batches of fixed shape.

All forms give the kept set of the sequential algorithm: boxes in the order of decreasing score, the lower index first
among equal scores, each kept unless a kept one before it overlaps it by an IoU above the threshold (strictly).
"""
import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax.ops.boxes import pairwise_iou

BLOCK = 256


def _float32_below(threshold):
    """The largest float32 <= threshold: `iou > it` in float32 is then the comparison with the threshold as written."""
    nearest = np.float32(threshold)
    return nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf))


def _suppresses(boxes, others, classes, other_classes, iou_threshold):
    """bool [B, N, M]: overlap above the threshold, of equal class if classes are given."""
    over = pairwise_iou(boxes, others) > _float32_below(iou_threshold)
    return over if classes is None else over & (classes[:, :, None] == other_classes[:, None, :])


def _settle(alive, suppresses):
    """Greedy kept set [B, N] of boxes in score order, given suppresses [B, N, N], true only above the diagonal.

    Iterates keep[j] = alive[j] and no kept i suppresses j. Box j is right once all before it are, so this ends at the
    one fixed point, the sequential answer, after as many rounds as the longest chain of suppressions has links.
    """
    def step(state):
        keep, _ = state
        new = alive & ~(suppresses & keep[:, :, None]).any(1)
        return new, (new != keep).any()

    return jax.lax.while_loop(lambda state: state[1], step, (alive, jnp.array(True)))[0]


def nms_sorted(boxes, valid, *, iou_threshold, classes=None):
    """Kept mask bool [B, N] of boxes float32 [B, N, 4] that stand in the order of decreasing score already.

    Works in static blocks of 256: a block is settled within itself, then strikes out later boxes; the IoU matrix is
    never held whole. With classes [B, N], boxes suppress only boxes of their own class.
    """
    kept, alive = [], valid
    for start in range(0, boxes.shape[1], BLOCK):
        stop = min(start + BLOCK, boxes.shape[1])
        block, later = boxes[:, start:stop], boxes[:, stop:]
        block_classes, later_classes = (None, None) if classes is None else (classes[:, start:stop], classes[:, stop:])
        before = jnp.triu(jnp.ones((stop - start,) * 2, bool), 1)
        within = _suppresses(block, block, block_classes, block_classes, iou_threshold) & before
        keep = _settle(alive[:, :stop - start], within)
        kept.append(keep)
        struck = _suppresses(block, later, block_classes, later_classes, iou_threshold) & keep[:, :, None]
        alive = alive[:, stop - start:] & ~struck.any(1)
    return jnp.concatenate(kept, 1) if kept else valid


def _score_order(scores, valid):
    """Permutation int32 [B, N]: valid entries by decreasing score, ties by index, then the invalid ones."""
    index = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    return jax.lax.sort((~valid, -scores, index), dimension=1, is_stable=True, num_keys=2)[2]


def _in_score_order(boxes, scores, classes, valid, iou_threshold):
    order = _score_order(scores, valid)
    take = lambda x: jnp.take_along_axis(x, order, 1)
    keep = nms_sorted(jnp.take_along_axis(boxes, order[..., None], 1), take(valid), iou_threshold=iou_threshold,
                      classes=None if classes is None else take(classes))
    return jnp.zeros_like(valid).at[jnp.arange(boxes.shape[0])[:, None], order].set(keep)


def nms(boxes, scores, valid, *, iou_threshold):
    """Kept mask bool [B, N], in the order given, of boxes float32 [B, N, 4] with scores [B, N] where valid [B, N]."""
    return _in_score_order(boxes, scores, None, valid, iou_threshold)


def class_nms(boxes, scores, classes, valid, *, iou_threshold):
    """As `nms`, for each class by itself: classes int32 [B, N]. Overlaps are those of the boxes as they are."""
    return _in_score_order(boxes, scores, classes, valid, iou_threshold)


def nms_plain(boxes, scores, valid, *, iou_threshold):
    """As `nms`, one box after the other on the whole IoU matrix: slow, obviously right, the reference of the tests."""
    order = _score_order(scores, valid)
    rank = jnp.argsort(order, axis=1)
    suppresses = _suppresses(boxes, boxes, None, None, iou_threshold) & (rank[:, :, None] < rank[:, None, :])
    image = jnp.arange(boxes.shape[0])

    def step(i, keep):
        box = order[:, i]
        strikes = suppresses[image, box] & keep[image, box][:, None]
        return keep & ~strikes

    return jax.lax.fori_loop(0, boxes.shape[1], step, valid)
