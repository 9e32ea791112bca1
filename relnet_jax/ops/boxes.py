"""Box arithmetic: areas, overlaps, the box code of the R-CNN family, clipping. Boxes are xyxy in pixels."""
import math

import jax.numpy as jnp

from relnet_jax.types import Array

MAX_LOG_SCALE = math.log(1000 / 16)  # largest decoded log growth of a side; keeps exp() of a wild delta finite
MIN_SIDE = 1e-6                      # pixels; a box with a shorter side has no code
EMPTY = 1e-12                        # square pixels; areas below it divide as it, so that 0 / 0 is 0
HUGE = 3e38                          # above every area

Weights = tuple[float, float, float, float]     # of dx, dy, dw, dh


def _product(a: Array, b: Array) -> Array:
    """a * b, rounded by itself.

    Compilers like to contract a product and the sum it enters into one fused operation, and may do so in one place
    where a value is computed and not in another. An overlap that differs in its last bit changes decisions at
    thresholds and ties; a minimum that changes nothing leaves no product to contract.
    """
    return jnp.minimum(a * b, HUGE)


def area(boxes: Array) -> Array:
    """Area [...] of boxes [..., 4] in square pixels; 0 for inverted boxes."""
    return _product(jnp.maximum(boxes[..., 2] - boxes[..., 0], 0), jnp.maximum(boxes[..., 3] - boxes[..., 1], 0))


def _intersection(a: Array, b: Array) -> Array:
    """Area [..., N, Q] shared by every pair of a [..., N, 4] and b [..., Q, 4]."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    width = jnp.minimum(a[..., 2], b[..., 2]) - jnp.maximum(a[..., 0], b[..., 0])
    height = jnp.minimum(a[..., 3], b[..., 3]) - jnp.maximum(a[..., 1], b[..., 1])
    return _product(jnp.maximum(width, 0), jnp.maximum(height, 0))


def pairwise_iou(a: Array, b: Array) -> Array:
    """Intersection over union [..., N, Q] of a [..., N, 4] and b [..., Q, 4]; 0 where the union is empty, never NaN."""
    inter = _intersection(a, b)
    return inter / jnp.maximum(area(a)[..., :, None] + area(b)[..., None, :] - inter, EMPTY)


def pairwise_ioa(a: Array, b: Array) -> Array:
    """Share [..., N, Q] of a [..., N, 4]'s boxes inside b [..., Q, 4]'s; 0 for an empty box of a, never NaN."""
    return _intersection(a, b) / jnp.maximum(area(a)[..., :, None], EMPTY)


def _centre_form(boxes: Array) -> tuple[Array, Array, Array, Array]:
    """(centre x, centre y, width, height), each [...], of boxes [..., 4]."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return boxes[..., 0] + 0.5 * width, boxes[..., 1] + 0.5 * height, width, height


def encode(targets: Array, references: Array, *, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> Array:
    """Deltas [..., 4] (dx, dy, dw, dh) that `decode` turns from `references` [..., 4] into `targets` [..., 4].

    The parametrisation of R-CNN (Girshick et al., 2014, appendix C), times `weights`. Rows where either box has a side
    under MIN_SIDE (padding, degenerate boxes) have no code and give zeros, so that no loss or gradient sees inf or NaN.
    """
    x, y, w, h = _centre_form(jnp.asarray(references, jnp.float32))
    tx, ty, tw, th = _centre_form(jnp.asarray(targets, jnp.float32))
    sound = jnp.minimum(jnp.minimum(w, h), jnp.minimum(tw, th)) >= MIN_SIDE
    w, h, tw, th = (jnp.where(sound, side, 1) for side in (w, h, tw, th))
    wx, wy, ww, wh = weights
    deltas = jnp.stack([wx * (tx - x) / w, wy * (ty - y) / h, ww * jnp.log(tw / w), wh * jnp.log(th / h)], -1)
    return jnp.where(sound[..., None], deltas, 0)


def decode(deltas: Array, references: Array, *, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> Array:
    """Boxes float32 [..., 4] from deltas [..., 4] relative to references [..., 4]; leading axes broadcast.

    dw and dh are capped at log(1000/16). Class-specific deltas [B, N, K, 4] go with references[:, :, None].
    """
    x, y, w, h = _centre_form(jnp.asarray(references, jnp.float32))
    deltas = jnp.asarray(deltas, jnp.float32)
    dx, dy, dw, dh = (deltas[..., i] / weights[i] for i in range(4))
    cx, cy = dx * w + x, dy * h + y
    half_w = 0.5 * jnp.exp(jnp.minimum(dw, MAX_LOG_SCALE)) * w
    half_h = 0.5 * jnp.exp(jnp.minimum(dh, MAX_LOG_SCALE)) * h
    return jnp.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], -1)


def clip(boxes: Array, image_size: Array) -> Array:
    """Boxes [B, ..., 4] cut to their image; image_size [B, 2] is (height, width) in the boxes' pixels."""
    height, width = (image_size[:, i].reshape((-1,) + (1,) * (boxes.ndim - 2)) for i in (0, 1))
    limits = jnp.stack([width, height, width, height], -1).astype(boxes.dtype)
    return jnp.clip(boxes, 0, limits)
