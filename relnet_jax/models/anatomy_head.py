"""Anatomy head: boxes of the anatomical parts and whether they are there, so that no outside segmentation is needed.

A film has one of each part, at about the same place, so nothing is searched for: the whole image is pooled to a fixed
grid, and each side of each box is the expectation of a distribution over the grid's columns (x) or rows (y), read from
the grid's column or row profile.
"""
import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax import losses
from relnet_jax.models.layers import Conv, lecun_uniform
from relnet_jax.ops.boxes import area, pairwise_iou
from relnet_jax.ops.roi_align import roi_align
from relnet_jax.types import Array, Batch, Parts

GRID = 16                   # cells a side
CHANNELS, HIDDEN = 64, 256
PRESENT = 0.5               # probability above which a part counts as there
SMOOTH_L1_KNEE = 0.02       # shares of the image
SIDES_WEIGHT = 10.0         # of the four sides' smooth L1 beside 1 - GIoU


class AnatomyHead(nn.Module):
    """One backbone map of stride `stride` -> part boxes and presence logits, independent of the canvas."""
    stride: int = 16
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Array, image_size: Array, parts: int) -> tuple[Array, Array]:
        """features [B, H, W, C], image_size [B, 2], static `parts` P -> boxes float32 [B, P, 4] in canvas pixels,
        inside the true image, and presence logits float32 [B, P]."""
        size = image_size[:, ::-1]
        whole = jnp.concatenate([jnp.zeros_like(size), size], -1)[:, None]
        levels = jnp.zeros(whole.shape[:2], jnp.int32)
        x = roi_align([features], whole, levels, strides=(self.stride,), output_size=GRID, image_size=image_size)[:, 0]
        centres = (jnp.arange(GRID, dtype=jnp.float32) + 0.5) / GRID
        where = jnp.stack(jnp.meshgrid(centres, centres, indexing='ij'), -1).astype(x.dtype)
        x = jnp.concatenate([x, jnp.broadcast_to(where, (len(x), *where.shape))], -1)
        for i in (1, 2):
            x = nn.relu(Conv(CHANNELS, 3, dtype=self.dtype, name=f'conv{i}')(x))

        sides, profiles = [], []
        for axis, name in ((1, 'columns'), (2, 'rows')):
            profile = x.mean(axis).reshape(len(x), -1)
            hidden = nn.relu(nn.Dense(HIDDEN, kernel_init=lecun_uniform, dtype=self.dtype, name=f'{name}_fc')(profile))
            logits = nn.Dense(2 * parts * GRID, dtype=self.dtype, name=f'{name}_sides')(hidden)
            weights = nn.softmax(logits.astype(jnp.float32).reshape(len(x), parts, 2, GRID))
            sides.append(jnp.sort(jnp.sum(weights * centres, -1), -1))
            profiles.append(hidden)
        low_high = jnp.stack(sides, -1)                                     # [B, P, (low, high), (x, y)]
        # The outermost centres stand for the image's edges: a part may touch them.
        low_high = jnp.clip(0.5 + (low_high - 0.5) * GRID / (GRID - 1), 0, 1)
        boxes = (low_high * size[:, None, None]).reshape(len(x), parts, 4)
        presence = nn.Dense(parts, dtype=self.dtype, name='presence')(jnp.concatenate(profiles, -1))
        return boxes, presence.astype(jnp.float32)


def paired_giou(a: Array, b: Array) -> Array:
    """Generalised IoU (Rezatofighi et al., CVPR 2019) of boxes [..., 4] row by row, in -1..1."""
    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    inter = jnp.prod(jnp.maximum(high - low, 0), -1)
    union = jnp.maximum(area(a) + area(b) - inter, 1e-6)
    hull = jnp.prod(jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2]), -1)
    hull = jnp.maximum(hull, 1e-6)
    return inter / union - (hull - union) / hull


def anatomy_losses(boxes: Array, presence: Array, batch: Batch) -> tuple[dict, dict]:
    """loss_part_box, loss_part_presence and the metric part_iou, each (sum, count).

    loss_part_box: mean over the parts that are there of 10 x smooth L1 of the sides, in shares of the image, and
    1 - GIoU. Images without a single part count as not annotated and teach nothing.
    """
    annotated = batch.image_valid & batch.part_valid.any(1)
    there = batch.part_valid & annotated[:, None] & (area(batch.part_boxes) > 0)
    scale = 1 / jnp.maximum(jnp.tile(batch.image_size[:, ::-1], (1, 2)), 1)[:, None]
    ours, truth = boxes * scale, jnp.where(there[..., None], batch.part_boxes, jnp.array([0., 0., 1., 1.])) * scale
    distance = losses.smooth_l1(ours, truth, beta=SMOOTH_L1_KNEE).sum(-1)
    giou = paired_giou(ours, truth)
    count = there.sum().astype(jnp.float32)
    wrong = losses.sigmoid_cross_entropy(presence, batch.part_valid.astype(jnp.float32))
    annotated_parts = jnp.broadcast_to(annotated[:, None], wrong.shape)
    terms = {'loss_part_box': (losses.masked_sum(SIDES_WEIGHT * distance + 1 - giou, there), count),
             'loss_part_presence': (losses.masked_sum(wrong, annotated_parts),
                                    annotated_parts.sum().astype(jnp.float32))}
    iou = jax.lax.stop_gradient(jnp.diagonal(pairwise_iou(ours, truth), axis1=-2, axis2=-1))
    return terms, {'part_iou': (losses.masked_sum(iou, there), count)}


def choose_parts(mode: str, given: Parts, predicted: tuple[Array, Array] | None) -> Parts:
    """The parts that the relations see, without gradient.

    predicted: boxes [B, P, 4] and presence logits [B, P] of the head. mode: 'given', 'predicted', or
    'given_or_predicted', which fills the gaps in what is given.
    """
    if mode == 'given':
        return given
    boxes, presence = jax.lax.stop_gradient(predicted)
    there = nn.sigmoid(presence) > PRESENT
    if mode == 'predicted':
        return Parts(boxes, there)
    return Parts(jnp.where(given.valid[..., None], given.boxes, boxes), given.valid | there)
