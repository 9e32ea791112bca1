"""Exact greedy non-maximum suppression on batches of fixed shape.

All forms give the kept set of the sequential algorithm: boxes in the order of decreasing score, the lower index first
among equal scores, each kept unless a kept one before it overlaps it by an IoU above the threshold (strictly).
"""
import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax.ops.boxes import pairwise_iou
from relnet_jax.types import Array

BLOCK = 256


def _float32_below(threshold):
    """The largest float32 <= threshold: `iou > it` in float32 is then the comparison with the threshold as written."""
    nearest = np.float32(threshold)
    return nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf))


def _suppresses(boxes: Array, others: Array, iou_threshold: float) -> Array:
    """bool [B, N, Q]: overlap above the threshold."""
    return pairwise_iou(boxes, others) > _float32_below(iou_threshold)


def _greedy_in_order(alive: Array, suppresses: Array) -> Array:
    """Greedy kept set [B, N] of boxes in score order, given suppresses [B, N, N], true only above the diagonal.

    Iterates keep[j] = alive[j] and no kept i suppresses j. Box j is right once all before it are, so this ends at the
    one fixed point, the sequential answer, after as many rounds as the longest chain of suppressions has links.
    """
    def step(state):
        keep, _ = state
        new = alive & ~(suppresses & keep[:, :, None]).any(1)
        return new, (new != keep).any()

    return jax.lax.while_loop(lambda state: state[1], step, (alive, jnp.array(True)))[0]


def nms_sorted(boxes: Array, valid: Array, *, iou_threshold: float) -> Array:
    """Kept mask bool [B, N] of boxes float32 [B, N, 4] that stand in the order of decreasing score already.

    Works in static blocks of 256: a block is settled within itself, then strikes out later boxes; the IoU matrix is
    never held whole.
    """
    kept, alive = [], valid
    for start in range(0, boxes.shape[1], BLOCK):
        stop = min(start + BLOCK, boxes.shape[1])
        block, later = boxes[:, start:stop], boxes[:, stop:]
        before = jnp.triu(jnp.ones((stop - start,) * 2, bool), 1)
        within = _suppresses(block, block, iou_threshold) & before
        keep = _greedy_in_order(alive[:, :stop - start], within)
        kept.append(keep)
        struck = _suppresses(block, later, iou_threshold) & keep[:, :, None]
        alive = alive[:, stop - start:] & ~struck.any(1)
    return jnp.concatenate(kept, 1) if kept else valid


def _score_order(scores: Array, valid: Array) -> Array:
    """Permutation int32 [B, N]: valid entries by decreasing score, ties by index, then the invalid ones."""
    index = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    return jax.lax.sort((~valid, -scores, index), dimension=1, is_stable=True, num_keys=2)[2]


def nms(boxes: Array, scores: Array, valid: Array, *, iou_threshold: float) -> Array:
    """Kept mask bool [B, N], in the order given, of boxes float32 [B, N, 4] with scores [B, N] where valid [B, N]."""
    order = _score_order(scores, valid)
    keep = nms_sorted(jnp.take_along_axis(boxes, order[..., None], 1), jnp.take_along_axis(valid, order, 1),
                      iou_threshold=iou_threshold)
    return jnp.zeros_like(valid).at[jnp.arange(boxes.shape[0])[:, None], order].set(keep)


def nms_plain(boxes: Array, scores: Array, valid: Array, *, iou_threshold: float) -> Array:
    """As `nms`, one box after the other on the whole IoU matrix: slow, obviously right, the reference of the tests."""
    order = _score_order(scores, valid)
    rank = jnp.argsort(order, axis=1)
    suppresses = _suppresses(boxes, boxes, iou_threshold) & (rank[:, :, None] < rank[:, None, :])
    image = jnp.arange(boxes.shape[0])

    def step(i, keep):
        box = order[:, i]
        strikes = suppresses[image, box] & keep[image, box][:, None]
        return keep & ~strikes

    return jax.lax.fori_loop(0, boxes.shape[1], step, valid)
