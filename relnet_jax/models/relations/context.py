"""What every relation is given. A relation is a Linen module `(context) -> enhanced [B, N, E]` and knows no other."""
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from relnet_jax.types import Array

ALL = np.ones((1, 1), bool)


class RelationContext(NamedTuple):
    """First-pass results of one batch.

    Rows where a mask is False are padding: finite, unspecified, and without influence on valid rows. Boxes are in
    canvas pixels and are constants for differentiation. `part_*` may hold grid cells after the parts
    (`ops.geometry.append_cells`); relations pick the rows they use.
    """
    roi_features: Array     # float [B, N, F]
    boxes: Array            # float32 [B, N, 4]
    roi_valid: Array        # bool [B, N]
    class_logits: Array     # float [B, N, K] of the first-pass predictor
    class_weights: Array    # float32 [K, F] of the first-pass predictor
    class_bias: Array       # float32 [K]
    image_map: Array        # float [B, H, W, C] one backbone map of the whole canvas (FPN: P4, C4: conv4)
    image_size: Array       # float32 [B, 2] true (height, width) on the canvas, pixels
    part_boxes: Array       # float32 [B, P, 4]
    part_features: Array    # float [B, P, F]
    part_valid: Array       # bool [B, P]
    adjacency: Array | None = None     # float32 [K, K] class graph; None if no relation needs it
    dropout_keys: Array | None = None  # PRNG keys [B], one per image; None = no dropout
    proposed: Array = ALL   # bool [B, N] or such as broadcasts to it, False for ground truths that joined the RoIs
    class_valid: Array = ALL    # bool [B, K], the same, False for classes that class relation and presence do without


def class_graph(context: RelationContext, who: str) -> Array:
    """The context's adjacency, float32 [K, K]. Raises ValueError, naming `who` asks, if it is missing or not [K, K]."""
    classes, graph = context.class_logits.shape[-1], context.adjacency
    if graph is None or graph.shape != (classes, classes):
        got = None if graph is None else list(graph.shape)
        raise ValueError(f'{who}: adjacency must be [{classes}, {classes}], got {got}')
    return jnp.asarray(graph, jnp.float32)
