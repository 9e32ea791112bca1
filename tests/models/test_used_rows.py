"""Chunks of used rows against the same work on all rows at once."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models.used_rows import on_used_rows, sum_over_used_rows

ROWS = 11


def case(count):
    """(params, x [11, 3], labels [11], used with `count` rows in any place)."""
    rng = np.random.default_rng(count)
    used = np.zeros(ROWS, bool)
    used[rng.permutation(ROWS)[:count]] = True
    params = dict(w=jnp.asarray(rng.normal(size=(3, 4)), jnp.float32), b=jnp.asarray(rng.normal(size=4), jnp.float32))
    return params, jnp.asarray(rng.normal(size=(ROWS, 3)), jnp.float32), jnp.asarray(rng.integers(0, 4, ROWS)), used


def run(params, x, labels):
    return jnp.take_along_axis(jnp.tanh(x @ params['w'] + params['b']), labels[:, None], axis=1)[:, 0] ** 2


@pytest.mark.parametrize('chunk', [1, 4, ROWS])
@pytest.mark.parametrize('count', [0, 1, 4, 5, ROWS])
def test_sum_and_gradients_are_those_of_all_rows_at_once(count, chunk):
    params, x, labels, used = case(count)

    def chunked(params, x, used):
        return 3 * sum_over_used_rows(run, chunk, params, x, (labels,), used)

    def plain(params, x, used):
        return 3 * jnp.where(used, run(params, x, labels), 0).sum()

    ours, expected = (jax.jit(jax.value_and_grad(f, (0, 1)))(params, x, used) for f in (chunked, plain))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert bool(count) == bool(np.any(ours[1][1]))
    np.testing.assert_allclose(jax.jit(chunked)(params, x, used), expected[0], rtol=1e-5)     # without gradients


@pytest.mark.parametrize('count', [0, 1, 4, 5, ROWS])
def test_unused_rows_are_zero_and_used_ones_as_if_all_were_done(count):
    params, x, labels, used = case(count)
    out = jax.jit(lambda used: on_used_rows(lambda x, labels: run(params, x, labels), used, (x, labels), chunk=4))(used)
    np.testing.assert_allclose(out, np.where(used, run(params, x, labels), 0), rtol=1e-6)


def test_what_unused_rows_hold_does_not_matter():
    params, x, labels, used = case(5)
    huge = jnp.where(used[:, None], x, 1e30)
    for value in (x, huge):
        total, gradient = jax.value_and_grad(lambda x: sum_over_used_rows(run, 4, params, x, (labels,), used))(value)
        assert np.isfinite(total) and not np.any(np.where(used[:, None], 0, gradient))
