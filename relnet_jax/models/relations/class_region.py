"""Class relation, then spatial weights on its result: the one composition of two relations (`seven` and `eight`)."""
import flax.linen as nn
import jax.numpy as jnp

from relnet_jax.models.relations.class_relation import ClassMessages
from relnet_jax.models.relations.context import RelationContext
from relnet_jax.models.relations.region_relation import RegionGraph
from relnet_jax.types import Array


class ClassRegionRelation(nn.Module):
    """conv1x1_{F/4}(w V), V = softmax(logits) (a * (A W_cls)): early class features, spread by position alone.

    graph=True is `seven`, graph=False (A = I) is `eight`.
    """
    kernel: str = 'relu'             # one of region_relation.KERNELS
    graph: bool = True
    attention: bool = True
    background: bool = True
    reduction: int = 0               # see class_relation.ClassMessages
    dtype: jnp.dtype = jnp.float32
    acts_in = 'second_pass'

    @property
    def needs(self) -> set[str]:
        return {'graph'} if self.graph else set()

    @nn.compact
    def __call__(self, context: RelationContext) -> Array:
        """-> [B, N, F / 4] in dtype."""
        messages, probabilities = ClassMessages(
            form='early', graph=self.graph, attention=self.attention, background=self.background,
            reduction=self.reduction, dtype=self.dtype, name='messages')(context)
        nodes = jnp.matmul(probabilities.astype(self.dtype), messages.astype(self.dtype))
        return RegionGraph(kernel=self.kernel, similarity=False, dtype=self.dtype, name='graph')(context, nodes)
