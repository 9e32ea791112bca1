"""What every relation is given. A relation is a Linen module `(context) -> enhanced [B, N, E]` and knows no other."""
from typing import NamedTuple

from relnet_jax.types import Array


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
