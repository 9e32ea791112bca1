"""Loss functions, elementwise and in float32; the callers sum and normalise."""
import jax
import jax.numpy as jnp
import optax


def sigmoid_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-t log s(x) - (1 - t) log(1 - s(x)), stable for any x; targets in [0, 1], shapes equal."""
    return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets)


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label]: logits [..., K], labels int [...] -> [...]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


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
    prediction = prediction.astype(jnp.float32)
    return optax.huber_loss(prediction, target, delta=beta) / beta if beta > 0 else jnp.abs(prediction - target)


def masked_sum(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Sum of `values` where `mask`; what stands elsewhere, NaN included, counts nothing and gets no gradient."""
    return jnp.where(mask, values, 0).sum()
