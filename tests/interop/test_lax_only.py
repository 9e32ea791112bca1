"""Functions without calls, derivative rules, barriers and platforms give what they gave."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.interop.lax_only import lax_only

X = np.linspace(-2, 3, 12, dtype=np.float32).reshape(3, 4)


@jax.custom_vjp
def with_a_rule(x):
    return jnp.sin(x) * 2


with_a_rule.defvjp(lambda x: (with_a_rule(x), x), lambda x, g: (g * x,))


@jax.jit
def wrapped(x):
    x = jax.lax.optimization_barrier((x, x + 1))[1]
    x = jax.nn.relu(jax.checkpoint(with_a_rule)(x))
    return dict(b=x, a=jax.nn.softmax(jnp.where(x > 0, x, -1)), c=jnp.where(x > 1, x > 2, x < 0.5))


@jax.jit
def gathered(x):
    return (x > 0).at[jnp.array([[2], [0], [5]]), jnp.array([0, 3])].get(mode='fill', fill_value=False)


def names(jaxpr) -> set[str]:
    return {equation.primitive.name for equation in jaxpr.eqns}


@pytest.mark.parametrize('function', [wrapped, gathered])
def test_results_are_the_same_and_only_lax_primitives_are_left(function):
    plain = lax_only(function, [jax.ShapeDtypeStruct(X.shape, X.dtype)])
    for expected, found in zip(jax.tree.leaves(function(X)), plain(X), strict=True):
        assert expected.dtype == found.dtype
        np.testing.assert_array_equal(expected, found)
    jaxpr = jax.make_jaxpr(plain)(X).jaxpr
    assert not names(jaxpr) & {'jit', 'pjit', 'custom_vjp_call', 'custom_jvp_call', 'checkpoint', 'remat',
                               'optimization_barrier'}
    assert not [e for e in jaxpr.eqns if e.primitive.name in ('select_n', 'gather') and e.outvars[0].aval.dtype == bool]


def test_of_the_platforms_the_default_remains():
    def here(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x + 1, default=lambda x: x + 2)
    plain = lax_only(here, [jax.ShapeDtypeStruct(X.shape, X.dtype)])
    np.testing.assert_array_equal(plain(X)[0], X + 2)
    assert not names(jax.make_jaxpr(plain)(X).jaxpr) & {'cond', 'platform_index'}


def test_loops_and_branches_by_data_stay():
    def looped(x):
        x = jax.lax.while_loop(lambda x: x.sum() < 100, lambda x: x + jnp.abs(x) + 1, x)
        return jax.lax.cond(x.sum() > 150, lambda x: x, lambda x: -x, x)
    plain = lax_only(looped, [jax.ShapeDtypeStruct(X.shape, X.dtype)])
    np.testing.assert_array_equal(plain(X)[0], looped(X))
    assert {'while', 'cond'} <= names(jax.make_jaxpr(plain)(X).jaxpr)
