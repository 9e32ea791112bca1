"""Assignment of boxes (anchors, proposals) to ground truths by their overlap."""
import jax.numpy as jnp

from relnet_jax.types import Array

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def match(iou: Array, gt_valid: Array, *, high: float, low: float, allow_low_quality: bool) -> tuple[Array, Array]:
    """Best ground truth and label of each box (Faster R-CNN, section 3.1.2).

    Args:
        iou: float32 [B, G, N] overlap of each ground truth with each box.
        gt_valid: bool [B, G]; other rows are never matched, and an image without any makes every box negative.
        high: overlap from which (inclusive) a box is positive.
        low: overlap below which (exclusive) a box is negative; between the two it is ignored.
        allow_low_quality: make the best boxes of every ground truth positive too, all of them where several tie. They
            keep the ground truth they overlap most, which need not be the one they are best for. A ground truth that
            overlaps no box at all makes none positive (torchvision would make all of them so).

    Returns:
        (matched int32 [B, N], label int8 [B, N]): index of the ground truth with the largest overlap (the first of
        several; 0 if there is none) and 1 positive, 0 negative, -1 ignored.
    """
    batch, count, boxes = iou.shape
    if count == 0:
        return jnp.zeros((batch, boxes), jnp.int32), jnp.full((batch, boxes), NEGATIVE, jnp.int8)
    iou = jnp.where(gt_valid[..., None], iou, -1)
    best = iou.max(1)
    positive = best >= high
    if allow_low_quality:
        best_of_gt = iou.max(2, keepdims=True)
        positive |= ((iou == best_of_gt) & (best_of_gt > 0)).any(1)
    label = jnp.where(positive, POSITIVE, jnp.where(best < low, NEGATIVE, IGNORED))
    # The first of several best. XLA's argmax, a reduction of pairs, is many times slower on CPU than this one.
    index = jnp.arange(count, dtype=jnp.int32)[None, :, None]
    matched = jnp.where(iou == best[:, None], index, count).min(1)
    return matched, label.astype(jnp.int8)
