"""Random subsets of positives and negatives of fixed size, as a function of the image's PRNG key alone."""
import jax
import jax.numpy as jnp

from relnet_jax.types import Array


def fold(keys: Array, tag: int) -> Array:
    """One new PRNG key for each of `keys` [B]."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, tag)


def _random_order(keys: Array, candidates: Array, count: int) -> tuple[Array, Array]:
    """The first `count` candidates in random order: (index int32 [B, count], taken bool [B, count], taken ones first).

    Entry i's draw depends on the key and on i only: the counter-based generator gives the same prefix whatever the
    length. 24 bits are exact in float32, for which top_k has a fast path; rare ties go to the lower index.
    """
    size = candidates.shape[1]
    bits = jax.vmap(lambda key: jax.random.bits(key, (size,), jnp.uint32))(keys)
    draw = jnp.where(candidates, (bits >> 8).astype(jnp.float32), -1.0)
    value, index = jax.lax.top_k(draw, min(count, size))
    padding = ((0, 0), (0, count - value.shape[1]))
    return jnp.pad(index, padding), jnp.pad(value, padding, constant_values=-1.0) >= 0


def sample_indices(keys: Array, positive: Array, negative: Array, *, num: int,
                   max_positive: int) -> tuple[Array, Array, Array]:
    """A uniformly random choice of `num` entries, at most `max_positive` of them positive, the rest negative.

    Args:
        keys: PRNG keys [B] (threefry, the default), one for each image.
        positive, negative: bool [B, N], disjoint; entries in neither are never taken. Appending such entries does not
            change the choice.
        num, max_positive: static sizes, max_positive <= num.

    Returns:
        (index int32 [B, num], is_positive bool [B, num], valid bool [B, num]): positives first, so that they all lie in
        the first `max_positive` slots, then negatives, then unused slots (index 0). Everything is taken if it fits.
    """
    positives, positive_taken = _random_order(keys, positive, max_positive)
    negatives, negative_taken = _random_order(keys, negative, num)
    slot = jnp.arange(num)[None]
    positive_count = positive_taken.sum(1, keepdims=True)
    is_positive = slot < positive_count
    valid = slot < positive_count + negative_taken.sum(1, keepdims=True)
    both = jnp.concatenate([positives, negatives], 1)
    where = jnp.where(is_positive, slot, max_positive + slot - positive_count)
    index = jnp.take_along_axis(both, where, 1)
    return jnp.where(valid, index, 0).astype(jnp.int32), is_positive, valid
