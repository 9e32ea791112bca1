"""Object relation: RoIs look at RoIs. Relation Networks, Hu et al., CVPR 2018, and the lab's form by position alone."""
import flax.linen as nn
import jax.numpy as jnp

from relnet_jax.models.relations.attention import GeometricAttention, best_rois, head_width
from relnet_jax.models.relations.context import RelationContext
from relnet_jax.ops.geometry import geometry_embedding
from relnet_jax.types import Array


class ObjectAttention(nn.Module):
    """Attention of RoIs over the best RoIs. Sows 'box_to_box' [B, heads, N, keys].

    Published use: after each of the two fcs of the box head, added to its output, two modules with
    `context._replace(roi_features=...)`.
    """
    keys: int = 0                    # number of best-scoring RoIs looked at (best_rois); 0 = all
    scale: str = 'published'         # 'published' 1/8 | 'lab' 1/16
    features: int = 1024             # width of the result, in 16 heads; 0 = that of the RoI features
    dtype: jnp.dtype = jnp.float32
    needs = set()
    acts_in = 'box_head'

    @staticmethod
    def fields(options: dict, neck: str) -> dict:
        """As wide as the layer of the box head that it is added to."""
        return options | {'features': 0}

    @nn.compact
    def __call__(self, context: RelationContext) -> Array:
        """-> [B, N, features] in dtype. Raises ValueError if that is not a multiple of 16."""
        features, boxes, valid = context.roi_features, context.boxes, context.roi_valid
        if self.keys and self.keys < boxes.shape[1]:
            best, valid = best_rois(context, self.keys, foreground_first=False)
            features = jnp.take_along_axis(features, best[..., None], axis=1)
            boxes = jnp.take_along_axis(boxes, best[..., None], axis=1)
        attention = GeometricAttention(head_dim=head_width(self.features or context.roi_features.shape[-1]),
                                       scale=self.scale, dtype=self.dtype, name='attention')
        enhanced, weights = attention(context.roi_features, context.boxes, features, boxes, valid)
        self.sow('intermediates', 'box_to_box', weights)
        return enhanced


class ObjectPosition(nn.Module):
    """Geometry embedding of each RoI against the best RoIs, side by side, best first.

    The best are those whose best class is not background, then the rest, each by score; fewer valid RoIs leave zeros.
    """
    keys: int = 64                   # the lab: 64 with em_dim 64 and features 512; 32 with 32 and 0, 1024 wide
    em_dim: int = 64
    features: int = 512              # relu(fc) to this width; 0 = the embedding itself
    dtype: jnp.dtype = jnp.float32
    needs = set()
    acts_in = 'second_pass'

    @nn.compact
    def __call__(self, context: RelationContext) -> Array:
        """-> [B, N, features or keys * em_dim] in dtype."""
        best, valid = best_rois(context, self.keys, foreground_first=True)
        boxes = jnp.take_along_axis(context.boxes, best[..., None], axis=1)
        embedding = geometry_embedding(context.boxes, boxes, dim=self.em_dim)
        embedding = jnp.where(valid[:, None, :, None], embedding, 0.0)
        enhanced = embedding.reshape(*embedding.shape[:2], -1).astype(self.dtype)
        if self.features:
            enhanced = nn.relu(nn.Dense(self.features, dtype=self.dtype, name='fc')(enhanced))
        return enhanced
