"""Second stage: RoI sampling, the two-layer box head, its losses, and final boxes per class.

Class-specific deltas with weights (10, 10, 5, 5), Girshick, ICCV 2015. K classes with background 0.
"""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax import losses
from relnet_jax.models.layers import lecun_uniform
from relnet_jax.models.rpn import image_count, in_crowd, usable_boxes
from relnet_jax.ops import boxes as box_ops
from relnet_jax.ops.matching import match
from relnet_jax.ops.nms import nms
from relnet_jax.ops.sampling import fold, sample_indices
from relnet_jax.types import Batch, Detections, Proposals

DELTA_WEIGHTS = (10., 10., 5., 5.)
FOREGROUND_IOU = 0.5
MIN_SIZE = 1e-2     # pixels; smaller final boxes are dropped


def dropout(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
    """Inverted dropout of [B, N, F] with one PRNG key per image, independent of the other images."""
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)


class BoxHead(nn.Module):
    """RoI features [B, N, 7, 7, C] -> [B, N, dim] by two fully connected layers with ReLU (no norm of its own)."""
    dim: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None = None,
                 residuals: Sequence[Callable[[jax.Array], jax.Array]] = ()) -> jax.Array:
        """`keys`: per-image keys [B] of the dropout after both layers; None = no dropout (inference).

        `residuals`: one function [B, N, dim] -> [B, N, dim] per layer, added to its output; () = none.
        """
        x = x.reshape(*x.shape[:2], -1)
        for tag, name in enumerate(('fc6', 'fc7')):
            x = nn.relu(nn.Dense(self.dim, kernel_init=lecun_uniform, dtype=self.dtype, name=name)(x))
            x = x + residuals[tag](x) if residuals else x
            if self.dropout > 0 and keys is not None:
                x = dropout(x, fold(keys, tag), self.dropout)
        return x


class BoxPredictor(nn.Module):
    """[B, N, in] -> class logits [B, N, K] and deltas [B, N, K, 4], float32; deltas None without `boxes`."""
    num_classes: int
    boxes: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        k = self.num_classes
        logits = nn.Dense(k, kernel_init=nn.initializers.normal(0.01), dtype=self.dtype, name='cls_score')(x)
        if not self.boxes:
            return logits.astype(jnp.float32), None
        deltas = nn.Dense(4 * k, kernel_init=nn.initializers.normal(0.001), dtype=self.dtype, name='bbox_pred')(x)
        return logits.astype(jnp.float32), deltas.astype(jnp.float32).reshape(*x.shape[:2], k, 4)


class RoISample(NamedTuple):
    """S RoIs per image to learn from, positives first."""
    boxes: jax.Array        # float32 [B, S, 4]
    matched: jax.Array      # int32 [B, S] index of the ground truth
    labels: jax.Array       # int32 [B, S], 0 = background
    positive: jax.Array     # bool [B, S]
    valid: jax.Array        # bool [B, S]
    proposed: jax.Array     # bool [B, S] valid and a proposal, not a ground truth that joined them
    scores: jax.Array       # float32 [B, S] objectness logit of the proposal; 0 for ground truths


def sample_rois(proposals: Proposals, batch: Batch, keys: jax.Array, *, num: int, max_positive: int,
                iou: float = FOREGROUND_IOU) -> RoISample:
    """`num` RoIs per image of proposals and ground truths: at most `max_positive` of IoU >= `iou`, the rest background.

    Boxes that lie in a crowd are neither, and crowds themselves do not join.
    """
    objects, crowds = usable_boxes(batch)
    # Ground truths last: more padding of them must not move a proposal's place, on which its chance depends.
    boxes = jax.lax.stop_gradient(jnp.concatenate([proposals.boxes, batch.gt_boxes], axis=1))
    usable = jnp.concatenate([proposals.valid & batch.image_valid[:, None], objects], axis=1)
    overlaps = box_ops.pairwise_iou(batch.gt_boxes, boxes)
    matched, label = match(overlaps, objects, high=iou, low=iou, allow_low_quality=False)
    positive = usable & (label == 1)
    negative = usable & (label == 0) & ~in_crowd(boxes, batch, crowds)
    index, positive, valid = sample_indices(keys, positive, negative, num=num, max_positive=max_positive)

    boxes = jnp.take_along_axis(boxes, index[..., None], axis=1)
    matched = jnp.take_along_axis(matched, index, axis=1)
    labels = jnp.where(positive, jnp.take_along_axis(batch.gt_labels, matched, axis=1), 0)
    proposed = valid & (index < proposals.boxes.shape[1])
    scores = jnp.take_along_axis(proposals.scores, jnp.where(proposed, index, 0), axis=1)
    return RoISample(jnp.where(valid[..., None], boxes, 0), matched, labels, positive, valid, proposed,
                     jnp.where(proposed, scores, 0))


def box_losses(logits: jax.Array, deltas: jax.Array | None, sample: RoISample, batch: Batch, *, beta: float,
               background_weight: float, class_weights: tuple[float, ...] = (),
               focal_gamma: float = 0.0) -> tuple[dict, dict]:
    """loss_cls and loss_bbox and metrics, each (sum, count): logits [B, S, K], deltas [B, S, K, 4].

    loss_cls, with `focal_gamma` a focal loss, counts a background RoI `background_weight` times in sum and count, one
    of class k `class_weights[k - 1]` times (() = once); loss_bbox sums over foreground RoIs and counts all sampled ones
    (Fast R-CNN, eq. 1, normalised as torchvision does); it is missing without deltas. Metrics: accuracy_cls (share of
    RoIs classified right), and per image num_positive and num_rois.
    """
    foreground = jnp.asarray(class_weights, jnp.float32)[sample.labels - 1] if class_weights else 1.0
    weight = jnp.where(sample.valid, jnp.where(sample.labels == 0, background_weight, foreground), 0.0)
    cross_entropy = losses.softmax_focal_loss(logits, sample.labels, gamma=focal_gamma)
    count = sample.valid.sum().astype(jnp.float32)

    terms = {'loss_cls': (losses.masked_sum(weight * cross_entropy, sample.valid), weight.sum())}
    if deltas is not None:
        gt = jnp.take_along_axis(batch.gt_boxes, sample.matched[..., None], axis=1)
        targets = box_ops.encode(gt, sample.boxes, weights=DELTA_WEIGHTS)
        own = jnp.take_along_axis(deltas, sample.labels[..., None, None], axis=2)[:, :, 0]
        distance = losses.smooth_l1(own, targets, beta=beta)
        terms['loss_bbox'] = (losses.masked_sum(distance, sample.positive[..., None]), count)
    correct = ((logits.argmax(-1) == sample.labels) & sample.valid).sum().astype(jnp.float32)
    images = image_count(batch)
    metrics = {'accuracy_cls': (correct, count),
               'num_positive': (sample.positive.sum().astype(jnp.float32), images),
               'num_rois': (count, images)}
    return terms, metrics


def select_detections(logits: jax.Array, deltas: jax.Array, rois: Proposals, image_size: jax.Array, *,
                      score_threshold: float, nms_iou: float, num: int) -> Detections:
    """The best `num` boxes over all classes after score threshold and NMS per class; masks are left empty [B, D, 0, 0].

    logits [B, N, K], deltas [B, N, K, 4]; D = min(num, N * (K - 1)). Exact: NMS sees every box above the threshold.
    """
    b, n, k = logits.shape
    scores = jax.nn.softmax(logits, axis=-1)[..., 1:]
    boxes = box_ops.clip(box_ops.decode(deltas[:, :, 1:], rois.boxes[:, :, None], weights=DELTA_WEIGHTS), image_size)
    large = (boxes[..., 2:] - boxes[..., :2] >= MIN_SIZE).all(-1)
    valid = rois.valid[:, :, None] & (scores > score_threshold) & large

    def per_class(x):   # [B, N, K-1, ...] -> [B * (K-1), N, ...]: one row of NMS per image and class
        return jnp.moveaxis(x, 2, 1).reshape(b * (k - 1), n, *x.shape[3:])

    keep = nms(per_class(boxes), per_class(scores), per_class(valid), iou_threshold=nms_iou)
    keep = jnp.moveaxis(keep.reshape(b, k - 1, n), 1, 2)
    kept, index = jax.lax.top_k(jnp.where(keep, scores, -1).reshape(b, -1), min(num, n * (k - 1)))
    valid = kept >= 0
    boxes = jnp.take_along_axis(boxes.reshape(b, -1, 4), index[..., None], axis=1)
    labels = jnp.where(valid, index % (k - 1) + 1, 0).astype(jnp.int32)
    return Detections(jnp.where(valid[..., None], boxes, 0), jnp.where(valid, kept, 0), labels, valid,
                      jnp.zeros((*index.shape, 0, 0)))
