import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.ops import sampling

sample_indices = jax.jit(sampling.sample_indices, static_argnames=('num', 'max_positive'))


def sample_mask(keys, positive, negative, **options):
    """The choice as two masks bool [B, N]."""
    index, is_positive, valid = map(np.asarray, sample_indices(keys, positive, negative, **options))
    masks = np.zeros((2, *positive.shape), bool)
    for b in range(len(index)):
        masks[0, b, index[b, is_positive[b]]] = True
        masks[1, b, index[b, valid[b] & ~is_positive[b]]] = True
    return masks


def keys(*seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def candidates(batch, size, positives, negatives, seed=0):
    """Disjoint masks with the given numbers of entries, at random places that differ between images."""
    rng = np.random.default_rng(seed)
    kind = np.zeros((batch, size), int)
    for row in kind:
        place = rng.permutation(size)
        row[place[:positives]], row[place[positives:positives + negatives]] = 1, 2
    return jnp.asarray(kind == 1), jnp.asarray(kind == 2)


@pytest.mark.parametrize('positives, negatives, taken', [
    (50, 100, (16, 48)),     # enough of both: positives up to their limit
    (5, 100, (5, 59)),       # few positives: negatives fill up
    (50, 10, (16, 10)),      # few negatives: slots stay empty, positives keep their limit
    (3, 4, (3, 4)),          # everything fits
    (0, 0, (0, 0))])
def test_counts(positives, negatives, taken):
    positive, negative = candidates(2, 200, positives, negatives)
    pos, neg = sample_mask(keys(0, 1), positive, negative, num=64, max_positive=16)
    np.testing.assert_array_equal(pos.sum(1), [taken[0]] * 2)
    np.testing.assert_array_equal(neg.sum(1), [taken[1]] * 2)
    assert not (pos & ~positive).any() and not (neg & ~negative).any()


def test_fewer_entries_than_slots_are_all_taken():
    positive, negative = candidates(1, 6, 2, 3)
    pos, neg = sample_mask(keys(0), positive, negative, num=64, max_positive=16)
    np.testing.assert_array_equal(pos, positive)
    np.testing.assert_array_equal(neg, negative)


def test_indices_list_positives_then_negatives_then_nothing_without_repetition():
    positive, negative = candidates(2, 200, 10, 30)
    options = dict(num=64, max_positive=16)
    index, is_positive, valid = sample_indices(keys(3, 4), positive, negative, **options)
    pos, neg = sample_mask(keys(3, 4), positive, negative, **options)
    assert index.shape == (2, 64) and index.dtype == jnp.int32
    np.testing.assert_array_equal(is_positive, np.broadcast_to(np.arange(64) < 10, (2, 64)))
    np.testing.assert_array_equal(valid, np.broadcast_to(np.arange(64) < 40, (2, 64)))
    for b in range(2):
        np.testing.assert_array_equal(np.sort(index[b, :10]), np.flatnonzero(pos[b]))
        np.testing.assert_array_equal(np.sort(index[b, 10:40]), np.flatnonzero(neg[b]))
        np.testing.assert_array_equal(index[b, 40:], 0)


def test_an_images_sample_depends_on_its_own_key_alone():
    positive, negative = candidates(2, 300, 60, 200)
    options = dict(num=32, max_positive=8)
    pair = sample_indices(keys(7, 8), positive, negative, **options)
    alone = sample_indices(keys(8), positive[1:], negative[1:], **options)
    other = sample_indices(keys(9), positive[1:], negative[1:], **options)
    not_compiled = sampling.sample_indices(keys(7, 8), positive, negative, **options)
    for a, b, c in zip(pair, alone, not_compiled):
        np.testing.assert_array_equal(a[1:], b)
        np.testing.assert_array_equal(a, c)
    assert (other[0] != alone[0]).any()


@pytest.mark.parametrize('size', [65, 300, 1000])
def test_entries_appended_at_the_end_change_nothing(size):
    positive, negative = candidates(2, 64, 30, 30)
    padding = ((0, 0), (0, size - 64))
    options = dict(num=24, max_positive=8)
    bare = sample_indices(keys(1, 2), positive, negative, **options)
    padded = sample_indices(keys(1, 2), jnp.pad(positive, padding), jnp.pad(negative, padding), **options)
    for a, b in zip(bare, padded):
        np.testing.assert_array_equal(a, b)


def test_every_candidate_is_equally_likely():
    """2000 draws of 5 of 20 positives and 15 of 40 negatives; a count is off its mean by 5 sigma once in 10^6."""
    draws = 2000
    positive, negative = candidates(1, 60, 20, 40)
    many = jax.random.split(jax.random.key(0), draws)
    pos, neg = sample_mask(many, jnp.repeat(positive, draws, 0), jnp.repeat(negative, draws, 0), num=20, max_positive=5)
    for chosen, candidate, share in ((pos, positive, 5 / 20), (neg, negative, 15 / 40)):
        count = np.asarray(chosen.sum(0))[np.asarray(candidate[0])]
        assert np.abs(count - draws * share).max() < 5 * np.sqrt(draws * share * (1 - share))
