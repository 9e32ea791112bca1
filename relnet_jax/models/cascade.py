"""Cascade of box heads: a stage learns at a higher IoU on the boxes of the one before. Cai, Vasconcelos, CVPR 2018."""
import jax
import jax.numpy as jnp

from relnet_jax.models.box_head import DELTA_WEIGHTS, MIN_SIZE
from relnet_jax.ops import boxes as box_ops
from relnet_jax.types import Proposals


def refine(logits: jax.Array, deltas: jax.Array, rois: Proposals, image_size: jax.Array) -> Proposals:
    """The RoIs moved by the deltas of their best class, clipped to the image; constants for differentiation.

    logits [B, N, K], deltas [B, N, K, 4]. The best class is the best foreground class: the deltas of background are
    never trained. Rows stay where they are; one whose box has left the image becomes invalid.
    """
    best = jnp.argmax(logits[..., 1:], axis=-1) + 1
    own = jnp.take_along_axis(deltas, best[..., None, None], axis=2)[:, :, 0]
    boxes = box_ops.clip(box_ops.decode(own, rois.boxes, weights=DELTA_WEIGHTS), image_size)
    valid = rois.valid & (boxes[..., 2:] - boxes[..., :2] >= MIN_SIZE).all(-1)
    boxes, scores = jax.lax.stop_gradient((jnp.where(valid[..., None], boxes, 0), rois.scores))
    return Proposals(boxes, scores, valid)


def mean_scores(logits: list[jax.Array]) -> jax.Array:
    """Logits [B, N, K] whose softmax is the mean of the stages' softmax: each stage has seen the RoI on its own boxes.

    A single stage's logits come back as they are.
    """
    if len(logits) == 1:
        return logits[0]
    mean = sum(jax.nn.softmax(stage, axis=-1) for stage in logits) / len(logits)
    return jnp.log(jnp.maximum(mean, jnp.finfo(jnp.float32).tiny))
