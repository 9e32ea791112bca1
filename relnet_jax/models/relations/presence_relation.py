"""Presence relation: what the first pass found elsewhere in the film, told to every RoI. This project's own.

Compare "who is in the picture" re-scoring (DPM context, Felzenszwalb et al., PAMI 2010), priors of co-occurrence
(Reasoning-RCNN, Xu et al., CVPR 2019) and attention between objects (Relation Networks, Hu et al., CVPR 2018).
"""
import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax.models.relations.attention import best_rois
from relnet_jax.models.relations.context import RelationContext, class_graph
from relnet_jax.ops.boxes import pairwise_iou
from relnet_jax.types import Array

FLOOR = 1e-3        # probabilities are cut to FLOOR..1 - FLOOR before their logarithm


def shares(adjacency: Array) -> Array:
    """Class graph [K, K] -> [K - 1, K - 1] without background: each row divided by its sum, which counts 1e-6 at
    least."""
    graph = adjacency[1:, 1:]
    return graph / jnp.maximum(jnp.sum(graph, axis=1, keepdims=True), 1e-6)


def highest_apart(found: Array, apart: Array) -> tuple[Array, Array]:
    """found [B, M, C], apart bool [B, N, M] -> the highest of `found` over the keys m that are apart from n, [B, N, C],
    0 where there is none, and int32 [B, N, C] which key that is.

    One class after the other, so that [B, N, M] numbers are held at a time and not C times as many; and the gradient
    goes by the key's place, without them.
    """
    def one(column: Array) -> tuple[Array, Array]:
        pairs = jnp.where(apart, column[:, None, :], -1.0)
        top = jnp.max(pairs, axis=-1, keepdims=True)
        # Quicker than argmax of the numbers themselves.
        return top[..., 0] >= 0, jnp.argmax(pairs == top, axis=-1).astype(jnp.int32)

    some, best = jax.lax.map(one, jnp.moveaxis(jax.lax.stop_gradient(found), -1, 0))
    best = jnp.moveaxis(best, 0, -1)
    return jnp.where(jnp.moveaxis(some, 0, -1), jnp.take_along_axis(found, best, axis=1), 0.0), best


class PresenceRelation(nn.Module):
    """ReLU(LayerNorm(fc([e, e A'^T]))): e = log(q / (1 - q)), q_ik the highest first-pass probability of class k among
    valid RoIs that overlap RoI i by less than `iou`, A' the `shares` of the class graph.

    Sows q as 'presence' [B, N, K - 1], 0 where no RoI lies elsewhere, and as 'presence_roi' which RoI has it.
    """
    features: int = 64
    iou: float = 0.3                 # above 1: every RoI counts, the one itself too
    keys: int = 128                  # number of best-scoring RoIs looked at (best_rois); 0 = all
    graph: bool = True               # False: e alone
    gradient: bool = False           # into the first pass's logits
    gt_boxes: bool = False           # ground truths among the RoIs, in training, count as found
    dtype: jnp.dtype = jnp.float32
    acts_in = 'second_pass'

    @property
    def needs(self) -> set[str]:
        return {'graph'} if self.graph else set()

    @nn.compact
    def __call__(self, context: RelationContext) -> Array:
        """-> [B, N, features] in dtype. Raises ValueError if graph is on and the adjacency is missing or misshapen."""
        logits = context.class_logits.astype(jnp.float32)
        found = nn.softmax(logits if self.gradient else jax.lax.stop_gradient(logits))[..., 1:]
        q = jnp.clip(self.elsewhere(context, found), FLOOR, 1 - FLOOR)
        told = jnp.log(q / (1 - q))
        if self.graph:
            graph = shares(class_graph(context, 'presence relation'))
            told = jnp.concatenate([told, jnp.matmul(told, graph.T)], axis=-1)
        out = nn.Dense(self.features, dtype=self.dtype, name='fc')(told.astype(self.dtype))
        return nn.relu(nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm')(out))

    def elsewhere(self, context: RelationContext, found: Array) -> Array:
        """Probabilities [B, N, K - 1] of all RoIs -> the highest of each class apart from each RoI, of that shape."""
        valid, boxes = context.roi_valid, context.boxes
        if not self.gt_boxes:
            valid = valid & context.proposed
        keys, rows = context._replace(roi_valid=valid), None
        if self.keys and self.keys < boxes.shape[1]:
            rows, valid = best_rois(keys, self.keys, foreground_first=False)
            boxes, found = (jnp.take_along_axis(x, rows[..., None], axis=1) for x in (boxes, found))
        highest, best = highest_apart(found, (pairwise_iou(context.boxes, boxes) < self.iou) & valid[:, None, :])
        known = jnp.broadcast_to(context.class_valid, context.class_logits[:, 0].shape)[:, None, 1:]
        highest = jnp.where(known, highest, 0.0)
        self.sow('intermediates', 'presence', highest)
        if rows is not None:
            best = jnp.take_along_axis(rows[..., None], best, axis=1)
        self.sow('intermediates', 'presence_roi', best)
        return highest
