"""Loss functions, elementwise and in float32; the callers sum and normalise."""
import jax
import jax.numpy as jnp


def sigmoid_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-t log s(x) - (1 - t) log(1 - s(x)), stable for any x; targets in [0, 1], shapes equal."""
    logits = logits.astype(jnp.float32)
    return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label]: logits [..., K], labels int [...] -> [...]."""
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return -jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]


def softmax_focal_loss(logits: jax.Array, labels: jax.Array, *, gamma: float) -> jax.Array:
    """(1 - p)^gamma times the cross entropy -log p of the label's share p (Lin et al., ICCV 2017, eq. 4, with softmax).

    logits [..., K], labels int [...] -> [...]; gamma 0 is the cross entropy itself.
    """
    cross_entropy = softmax_cross_entropy(logits, labels)
    if gamma == 0:
        return cross_entropy
    missed = jnp.maximum(-jnp.expm1(-cross_entropy), 1e-9)      # at 0 a power below 1 has no gradient
    return missed ** gamma * cross_entropy


def smooth_l1(prediction: jax.Array, target: jax.Array, *, beta: float) -> jax.Array:
    """x^2 / (2 beta) below |x| = beta, |x| - beta / 2 above (Girshick, ICCV 2015, eq. 3, with a knee); beta 0 = L1."""
    distance = jnp.abs(prediction.astype(jnp.float32) - target)
    if beta <= 0:
        return distance
    return jnp.where(distance < beta, 0.5 * distance ** 2 / beta, distance - 0.5 * beta)


def masked_sum(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Sum of `values` where `mask`; what stands elsewhere, NaN included, counts nothing and gets no gradient."""
    return jnp.where(mask, values, 0).sum()
