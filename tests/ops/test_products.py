import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.ops.products import einsum_float32


def draw(dtype):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in ((2, 5, 3, 8), (2, 6, 3, 8), (2, 3, 5, 6))]


def results(product, a, b, weight):
    return jax.value_and_grad(lambda a, b: (product(a, b) * weight).sum(), (0, 1))(a, b)


@pytest.mark.parametrize('dtype, rtol', [('float32', 1e-6), ('bfloat16', 0.02)])
def test_value_and_gradients_are_those_of_the_plain_product(dtype, rtol):
    *operands, weight = draw(dtype)
    subscripts = 'bnhd,bmhd->bhnm'
    got = results(lambda *args: einsum_float32(subscripts, *args), *operands, weight)
    want = results(lambda *args: jnp.einsum(subscripts, *args, precision='highest'),
                   *(x.astype(jnp.float32) for x in operands), weight)
    assert einsum_float32(subscripts, *operands).dtype == got[0].dtype == jnp.float32
    assert {leaf.dtype for leaf in got[1]} == {jnp.dtype(dtype)}
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        ours = np.asarray(ours, np.float32)
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * float(jnp.abs(theirs).max()))
