"""Class relation: RoIs borrow the features of classes that occur together. Reasoning-RCNN, Xu et al., CVPR 2019."""
import flax.linen as nn
import jax
import jax.numpy as jnp

from relnet_jax.models.relations.context import RelationContext, class_graph
from relnet_jax.types import Array

FORMS = ('published', 'early')
C4_REDUCTION = 16       # channels of the C4 map / those of the class attention, as Reasoning-RCNN has it


class ClassAttention(nn.Module):
    """How much an image asks for each class: softmax_K(f M^T), f = fc(avgpool(conv3x3/2(image map))).

    The pool runs over conv windows that lie on the true image, so that the canvas around it does not matter.
    """
    reduction: int                   # the conv has C / reduction channels, at least 1
    relu: bool                       # ReLU after the fc
    image_stride: int = 16           # pixels per cell of the image map
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image_map: Array, image_size: Array, class_matrix: Array) -> Array:
        """image_map [B, H, W, C] (H, W >= 3), image_size [B, 2] pixels, class_matrix [J, in] -> float32 [B, J]."""
        if min(image_map.shape[1:3]) < 3:
            raise ValueError(f'class relation: the image map must be at least 3 x 3, got {image_map.shape[1:3]}')
        channels = max(1, image_map.shape[-1] // self.reduction)
        windows = nn.Conv(channels, (3, 3), 2, padding='VALID', dtype=self.dtype, name='conv')(image_map)
        inside = [_windows_inside(image_size[:, i] / self.image_stride, windows.shape[1 + i]) for i in (0, 1)]
        inside = (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
        total = jnp.sum(jnp.where(inside, windows.astype(jnp.float32), 0.0), axis=(1, 2))
        pooled = total / jnp.sum(inside, axis=(1, 2), dtype=jnp.float32)
        wanted = nn.Dense(class_matrix.shape[-1], dtype=self.dtype, name='fc')(pooled)
        if self.relu:
            wanted = nn.relu(wanted)
        return nn.softmax(jnp.matmul(wanted.astype(jnp.float32), class_matrix.T))


def _windows_inside(cells: Array, count: int) -> Array:
    """Which of `count` windows (3 cells, stride 2) lie on the first `cells` [B], at least one: bool [B, count]."""
    whole = (jnp.ceil(cells)[:, None] - 3) // 2
    return jnp.arange(count)[None] <= jnp.maximum(whole, 0)


class ClassMessages(nn.Module):
    """Features of the classes after reasoning over their graph, a * (A M), and the probabilities that map them to RoIs.

    J = K, or K - 1 without background. M = [weights | bias] [J, F + 1], no gradient (published), or the weights alone
    [J, F] (early). graph=False: A = I. attention=False: a = 1. Sows 'class_attention' a, [B, J], and 'class_to_class'
    a_i A_ij, [B, J, J]: the weight of class j's features in the message of class i.
    """
    form: str = 'published'
    graph: bool = True
    attention: bool = True
    background: bool = True
    reduction: int = 0               # of `ClassAttention`; 0: 4 (published) or 64 (early)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, context: RelationContext) -> tuple[Array, Array]:
        """-> messages float32 [B, J, F + 1 or F] and class probabilities float32 [B, N, J] (softmax over all K).

        Raises ValueError for an unknown form, or if graph is on and context.adjacency is missing or not [K, K].
        """
        if self.form not in FORMS:
            raise ValueError(f'class relation: form must be one of {FORMS}, got {self.form!r}')
        published, classes = self.form == 'published', context.class_logits.shape[-1]
        matrix = context.class_weights.astype(jnp.float32)
        if published:
            bias = context.class_bias.astype(jnp.float32)
            matrix = jax.lax.stop_gradient(jnp.concatenate([matrix, bias[:, None]], axis=1))
        first = 0 if self.background else 1
        matrix = matrix[first:]
        probabilities = nn.softmax(context.class_logits.astype(jnp.float32))[..., first:]

        adjacency = jnp.eye(classes - first)
        if self.graph:
            adjacency = class_graph(context, 'class relation')[first:, first:]
        known = jnp.broadcast_to(context.class_valid, (len(context.class_valid), classes))[:, first:, None]
        rows = jnp.where(known, matrix, 0.0)
        messages = jnp.matmul(adjacency, rows) if self.graph else rows
        weights = jnp.ones((len(context.class_logits), classes - first))
        if self.attention:
            reduction = self.reduction or (4 if published else 64)
            weights = ClassAttention(reduction=reduction, relu=published, dtype=self.dtype, name='attention')(
                context.image_map, context.image_size, matrix)
        self.sow('intermediates', 'class_attention', weights)
        self.sow('intermediates', 'class_to_class', weights[..., None] * adjacency)
        return weights[..., None] * messages, probabilities


class ClassRelation(nn.Module):
    """Enhanced feature of a RoI = its class probabilities times the reasoned class features.

    published: softmax(logits) relu(fc_256(a * (A M))), [B, N, 256]. early: conv1x1_{F/4}(softmax(logits) (a * (A M))).
    graph and attention both off leave soft-mapping alone. norm: LayerNorm and ReLU on the result (SAR-Net).
    """
    form: str = 'published'          # 'published' | 'early'
    graph: bool = True
    attention: bool = True
    background: bool = True          # False: background takes no part in graph, attention and mapping
    reduction: int = 0               # see ClassMessages
    norm: bool = False
    dtype: jnp.dtype = jnp.float32
    acts_in = 'second_pass'

    @property
    def needs(self) -> set[str]:
        return {'graph'} if self.graph else set()

    @staticmethod
    def fields(options: dict, neck: str) -> dict:
        """The C4 map has four times the channels of the FPN's, for which 4 is meant."""
        if neck == 'c4' and options.get('form', 'published') == 'published':
            return options | {'reduction': options.get('reduction') or C4_REDUCTION}
        return options

    @nn.compact
    def __call__(self, context: RelationContext) -> Array:
        """-> [B, N, 256] (published) or [B, N, F / 4] (early), in dtype."""
        messages, probabilities = ClassMessages(
            form=self.form, graph=self.graph, attention=self.attention, background=self.background,
            reduction=self.reduction, dtype=self.dtype, name='messages')(context)
        messages, probabilities = messages.astype(self.dtype), probabilities.astype(self.dtype)
        if self.form == 'published':
            # The attention shares 1 among the classes. Started J times as large, messages have the size of class
            # weights: smaller ones vanish beside the bias and the epsilon of the norm, and all classes send the same,
            # or nothing.
            scale = float(messages.shape[1] ** 2 if self.attention else 1)
            kernel_init = nn.initializers.variance_scaling(scale, 'fan_in', 'truncated_normal')
            reduced = nn.relu(nn.Dense(256, kernel_init=kernel_init, dtype=self.dtype, name='reduce')(messages))
            enhanced = jnp.matmul(probabilities, reduced)
        else:
            # The map is linear and acts on features: reducing J classes first equals reducing N RoIs, but for the bias.
            width = context.roi_features.shape[-1] // 4
            reduced = nn.Dense(width, use_bias=False, dtype=self.dtype, name='reduce')(messages)
            bias = self.param('reduce_bias', nn.initializers.zeros, (width,))
            enhanced = jnp.matmul(probabilities, reduced) + bias.astype(self.dtype)
        if self.norm:
            enhanced = nn.relu(nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name='norm')(enhanced))
        return enhanced
