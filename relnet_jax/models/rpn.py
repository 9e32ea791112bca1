"""Region proposal network (Ren et al., NeurIPS 2015) on a pyramid: head, proposals, targets and losses.

A_l = H_l * W_l * anchors per cell; levels are flattened in the order (y, x, anchor). Deltas have weights (1, 1, 1, 1).
"""
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax import losses
from relnet_jax.models.layers import Conv, valid_map, zero_padding
from relnet_jax.ops import anchors as anchor_ops
from relnet_jax.ops import boxes as box_ops
from relnet_jax.ops.matching import match
from relnet_jax.ops.nms import nms_sorted
from relnet_jax.ops.sampling import sample_indices
from relnet_jax.types import Batch, Proposals

NMS_IOU = 0.7
MIN_SIZE = 1e-3         # pixels; smaller proposals are dropped
POSITIVE_IOU, NEGATIVE_IOU = 0.7, 0.3
CROWD_IOA = 0.5         # a box covered by a crowd to this share is no negative


class RPNHead(nn.Module):
    """3x3 convolution + ReLU, then per anchor an objectness logit and 4 deltas; the same weights on every level."""
    anchors_per_cell: int
    channels: int
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        init = nn.initializers.normal(0.01)
        self.conv = Conv(self.channels, 3, kernel_init=init, dtype=self.dtype)
        self.cls_logits = Conv(self.anchors_per_cell, kernel_init=init, dtype=self.dtype)
        self.bbox_pred = Conv(4 * self.anchors_per_cell, kernel_init=init, dtype=self.dtype)

    def __call__(self, pyramid: list[jax.Array], valid: list[jax.Array | None]) -> tuple[list, list]:
        """Maps [B, H_l, W_l, C] -> logits [B, A_l] and deltas [B, A_l, 4] per level, float32."""
        logits, deltas = [], []
        for features, mask in zip(pyramid, valid):
            hidden = nn.relu(self.conv(features, mask))
            logits.append(self.cls_logits(hidden).reshape(len(hidden), -1).astype(jnp.float32))
            deltas.append(self.bbox_pred(hidden).reshape(len(hidden), -1, 4).astype(jnp.float32))
        return logits, deltas

    def at_anchors(self, pyramid: list[jax.Array], valid: list[jax.Array | None],
                   index: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits [B, S] and deltas [B, S, 4] of the anchors at `index` int32 [B, S] in the order of all levels.

        What `__call__` has there, computed from the 3 x 3 cells around each anchor alone. The loss looks at a few
        hundred of some hundred thousand anchors; through these, its gradient costs next to nothing, where that of whole
        maps costs twice the forward pass.
        """
        kernel, bias = (self.conv.get_variable('params', name).astype(self.dtype) for name in ('kernel', 'bias'))
        cells, which = index // self.anchors_per_cell, index % self.anchors_per_cell
        around = patches(pyramid, valid, cells).astype(self.dtype)
        hidden = nn.relu(around @ kernel.reshape(-1, self.channels) + bias)[:, :, None]
        logits = self.cls_logits(hidden)[:, :, 0].astype(jnp.float32)
        deltas = self.bbox_pred(hidden).reshape(*logits.shape, 4).astype(jnp.float32)
        return (jnp.take_along_axis(logits, which[..., None], axis=2)[..., 0],
                jnp.take_along_axis(deltas, which[..., None, None], axis=2)[:, :, 0])


def patches(pyramid: list[jax.Array], valid: list[jax.Array | None], cells: jax.Array) -> jax.Array:
    """The 3 x 3 cells around each of `cells` int32 [B, S], which count through all maps [B, H_l, W_l, C] by rows:
    [B, S, 9 C], zeros beyond the maps."""
    shapes = np.array([features.shape[1:3] for features in pyramid])
    starts = np.concatenate([[0], np.cumsum(shapes.prod(1))])
    level = jnp.searchsorted(starts, cells, side='right', method='compare_all') - 1
    (height, width), start = jnp.moveaxis(jnp.asarray(shapes)[level], -1, 0), jnp.asarray(starts)[level]
    y, x = jnp.divmod(cells - start, width)
    step_y, step_x = (np.repeat([-1, 0, 1], 3), np.tile([-1, 0, 1], 3))
    y, x = y[..., None] + step_y, x[..., None] + step_x                                         # [B, S, 9]
    inside = (y >= 0) & (y < height[..., None]) & (x >= 0) & (x < width[..., None])
    rows = jnp.where(inside, start[..., None] + y * width[..., None] + x, 0)
    batch, channels = cells.shape[0], pyramid[0].shape[-1]
    flat = jnp.concatenate([zero_padding(features, mask).reshape(batch, -1, channels)
                            for features, mask in zip(pyramid, valid)], 1)
    found = jnp.take_along_axis(flat, rows.reshape(batch, -1, 1), axis=1).reshape(*rows.shape, channels)
    return jnp.where(inside[..., None], found, 0).reshape(*cells.shape, 9 * channels)


class Anchors(NamedTuple):
    boxes: list     # per level float32 [A_l, 4], canvas pixels
    valid: list     # per level bool [B, A_l]: the anchor's cell is a cell of the true image's map


def make_anchors(image_size: jax.Array, canvas: tuple[int, int], *, strides: tuple[int, ...], sizes: tuple,
                 ratios: tuple[float, ...], mask_padding: bool) -> Anchors:
    """Anchors of all levels for images of `image_size` [B, 2] on a canvas (H, W), a multiple of every stride."""
    boxes = anchor_ops.pyramid_anchors(canvas, strides=strides, sizes=sizes, ratios=ratios)
    valid = []
    for level, stride in zip(boxes, strides):
        shape = (canvas[0] // stride, canvas[1] // stride)
        cells = valid_map(image_size, stride, shape) if mask_padding else jnp.ones((len(image_size), *shape, 1), bool)
        valid.append(jnp.repeat(cells.reshape(len(image_size), -1), len(level) // (shape[0] * shape[1]), axis=1))
    return Anchors(boxes, valid)


def select_proposals(logits: list[jax.Array], deltas: list[jax.Array], anchors: Anchors, image_size: jax.Array, *,
                     pre_nms: int, post_nms: int) -> Proposals:
    """The best `pre_nms` boxes of every level, clipped, NMS per level, then the best `post_nms` over all levels.

    R = min(post_nms, candidates the canvas has). No gradient flows through proposals.
    """
    batch, levels = len(image_size), len(logits)
    widest = min(pre_nms, max(level.shape[1] for level in logits))
    boxes, scores = [], []
    for level_logits, level_deltas, level_anchors, level_valid in zip(logits, deltas, *anchors):
        level_scores = jnp.where(level_valid, jax.lax.stop_gradient(level_logits), -jnp.inf)
        top, index = jax.lax.top_k(level_scores, min(pre_nms, level_scores.shape[1]))
        top_deltas = jnp.take_along_axis(jax.lax.stop_gradient(level_deltas), index[..., None], axis=1)
        decoded = box_ops.decode(top_deltas, jnp.asarray(level_anchors)[index])
        missing = widest - top.shape[1]
        boxes.append(jnp.pad(box_ops.clip(decoded, image_size), ((0, 0), (0, missing), (0, 0))))
        scores.append(jnp.pad(top, ((0, 0), (0, missing)), constant_values=-jnp.inf))
    boxes, scores = jnp.stack(boxes, 1), jnp.stack(scores, 1)           # [B, L, pre_nms(, 4)]

    # One NMS call with a row for each image and level, so that its serial part runs once. Rows are sorted by top_k.
    size = boxes[..., 2:] - boxes[..., :2]
    valid = (scores > -jnp.inf) & (size >= MIN_SIZE).all(-1)
    rows = batch * levels
    keep = nms_sorted(boxes.reshape(rows, widest, 4), valid.reshape(rows, widest), iou_threshold=NMS_IOU)
    scores = jnp.where(keep.reshape(scores.shape), scores, -jnp.inf).reshape(batch, -1)
    candidates = sum(min(pre_nms, level.shape[1]) for level in logits)
    scores, index = jax.lax.top_k(scores, min(post_nms, candidates))
    valid = scores > -jnp.inf
    boxes = jnp.take_along_axis(boxes.reshape(batch, -1, 4), index[..., None], axis=1)
    return Proposals(jnp.where(valid[..., None], boxes, 0), jnp.where(valid, scores, 0), valid)


def usable_boxes(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """(objects to learn, crowds) bool [B, G]: valid boxes of valid images with a positive area."""
    usable = batch.gt_valid & batch.image_valid[:, None] & (box_ops.area(batch.gt_boxes) > 0)
    return usable & ~batch.gt_crowd, usable & batch.gt_crowd


def in_crowd(boxes: jax.Array, batch: Batch, crowd: jax.Array) -> jax.Array:
    """Boxes [B, N, 4] that a crowd region covers to a share of CROWD_IOA or more: bool [B, N]."""
    covered = jnp.where(crowd[:, None, :], box_ops.pairwise_ioa(boxes, batch.gt_boxes), 0)
    return covered.max(-1, initial=0) >= CROWD_IOA


def at_index(logits: list[jax.Array], deltas: list[jax.Array], index: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`RPNHead.at_anchors` by picking from the outputs of all anchors."""
    return (jnp.take_along_axis(jnp.concatenate(logits, 1), index, axis=1),
            jnp.take_along_axis(jnp.concatenate(deltas, 1), index[..., None], axis=1))


def rpn_losses(predict: Callable[[jax.Array], tuple[jax.Array, jax.Array]], anchors: Anchors, batch: Batch,
               keys: jax.Array, *, samples: int, max_positive: int, beta: float) -> tuple[dict, dict]:
    """Losses rpn_cls_pX, rpn_bbox_pX (X = 2, 3, ... per level; rpn_cls, rpn_bbox of a single one) and metrics, each
    (sum, count).

    `predict`: index int32 [B, S] of sampled anchors -> their logits [B, S] and deltas [B, S, 4]. Every count is the
    number of sampled anchors of the batch, so that the levels' terms add up to the whole RPN loss.
    """
    objects, crowds = usable_boxes(batch)
    images = len(batch.image)
    boxes = jnp.broadcast_to(jnp.concatenate(anchors.boxes), (images, sum(map(len, anchors.boxes)), 4))
    inside = jnp.concatenate(anchors.valid, axis=1) & batch.image_valid[:, None]

    # Zero, so that an anchor in the padding is nobody's best anchor.
    iou = jnp.where(inside[:, None, :], box_ops.pairwise_iou(batch.gt_boxes, boxes), 0)
    matched, label = match(iou, objects, high=POSITIVE_IOU, low=NEGATIVE_IOU, allow_low_quality=True)
    positive = inside & (label == 1)
    negative = inside & (label == 0) & ~in_crowd(boxes, batch, crowds)
    index, positive, valid = sample_indices(keys, positive, negative, num=samples, max_positive=max_positive)
    count = valid.sum().astype(jnp.float32)

    logits, deltas = predict(index)
    gt = jnp.take_along_axis(batch.gt_boxes, jnp.take_along_axis(matched, index, axis=1)[..., None], axis=1)
    targets = box_ops.encode(gt, jnp.take_along_axis(boxes, index[..., None], axis=1))
    objectness = losses.sigmoid_cross_entropy(logits, positive.astype(jnp.float32))
    box = losses.smooth_l1(deltas, targets, beta=beta)
    terms, start = {}, 0
    for level, level_boxes in enumerate(anchors.boxes, start=2):
        here = (index >= start) & (index < (start := start + len(level_boxes)))
        name = f'_p{level}' if len(anchors.boxes) > 1 else ''
        terms[f'rpn_cls{name}'] = (losses.masked_sum(objectness, valid & here), count)
        terms[f'rpn_bbox{name}'] = (losses.masked_sum(box, (positive & here)[..., None]), count)
    return terms, {'num_positive_anchors': (positive.sum().astype(jnp.float32), image_count(batch))}


def image_count(batch: Batch) -> jax.Array:
    return batch.image_valid.sum().astype(jnp.float32)
