"""Part relation: where a RoI lies relative to the anatomical parts. SAR-Net's anatomical structure relation."""
import flax.linen as nn
import jax.numpy as jnp

from relnet_jax.errors import UserError
from relnet_jax.models.relations.context import RelationContext
from relnet_jax.ops.geometry import geometry_embedding
from relnet_jax.types import Array


def check_parts(parts: tuple[int, ...], count: int) -> None:
    """Raises UserError for a row of parts that a context of `count` parts does not have."""
    if not all(0 <= p < count for p in parts):
        raise UserError(f'parts must lie in 0..{count - 1}, got {tuple(parts)}')


def select_parts(context: RelationContext, parts: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Boxes [B, Q, 4], features [B, Q, F] and mask [B, Q] of the chosen rows of the context's parts; () = all.

    Raises UserError if a row does not exist.
    """
    count = context.part_boxes.shape[1]
    check_parts(parts, count)
    rows = jnp.array(parts or range(count))
    return context.part_boxes[:, rows], context.part_features[:, rows], context.part_valid[:, rows]


class PartRelation(nn.Module):
    """Geometry embedding of each RoI against each part, side by side; a missing part gives zeros.

    norm: LayerNorm and ReLU on the result. Left and right parts must be swapped when the image is flipped: block p
    belongs to part p whatever its side.
    """
    parts: tuple[int, ...] = ()      # rows of the context's parts; () = all
    em_dim: int = 64
    norm: bool = True
    dtype: jnp.dtype = jnp.float32
    needs = {'parts'}
    acts_in = 'second_pass'

    @nn.compact
    def __call__(self, context: RelationContext) -> Array:
        """-> [B, N, parts * em_dim] in dtype."""
        boxes, _, valid = select_parts(context, self.parts)
        embedding = geometry_embedding(context.boxes, boxes, dim=self.em_dim)
        embedding = jnp.where(valid[:, None, :, None], embedding, 0.0)
        enhanced = embedding.reshape(*embedding.shape[:2], -1).astype(self.dtype)
        if self.norm:
            enhanced = nn.relu(nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name='norm')(enhanced))
        return enhanced
