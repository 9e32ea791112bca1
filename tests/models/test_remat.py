"""config.model.remat: the same numbers in less memory."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models.backbones import convnext, resnet
from relnet_jax.models.layers import valid_map
from tests.stablehlo import read_ops

STRIDES = (1, 2, 4, 8, 16, 32)
BODIES = {
    'basic': lambda **fields: resnet.ResNet('tiny', norm='group_norm', frozen_stages=2, **fields),
    'bottleneck': lambda **fields: resnet.ResNet('small', **fields),
    'deformable': lambda **fields: resnet.ResNet('tiny', deformable='v2', **fields),
    'convnext': lambda **fields: convnext.ConvNeXt('small', **fields)}


@pytest.fixture(autouse=True)
def small_layouts(monkeypatch):
    monkeypatch.setitem(resnet.LAYOUTS, 'small', resnet.Layout(True, (1, 3, 2, 1), (8, 16, 24, 32), 8))
    monkeypatch.setitem(convnext.LAYOUTS, 'small', convnext.Layout((1, 1, 2, 1), (8, 16, 24, 32)))


def loss_of(body, image, valid):
    def loss(params):
        return sum((m.astype(jnp.float32) ** 2).mean() for m in body.apply({'params': params}, image, valid))
    return jax.value_and_grad(loss)


@pytest.mark.parametrize('name', BODIES)
@pytest.mark.parametrize('dtype, rtol', [('float32', 1e-5), ('bfloat16', 0.05)])
def test_loss_and_gradients_are_those_of_the_plain_body(name, dtype, rtol):
    image = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    size = jnp.array([[64.0, 50.0], [40.0, 64.0]])
    valid = {stride: valid_map(size, stride, (64 // stride, 64 // stride)) for stride in STRIDES}
    plain, remat = (BODIES[name](remat=remat, dtype=jnp.dtype(dtype)) for remat in (False, True))
    params = jax.jit(plain.init)(jax.random.key(1), image, valid)['params']
    assert jax.tree.structure(params) == jax.tree.structure(jax.eval_shape(remat.init, jax.random.key(1), image, valid)
                                                            ['params'])
    want, got = (jax.jit(loss_of(body, image, valid))(params) for body in (plain, remat))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        a, b = np.float32(a), np.float32(b)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(np.abs(b).max(), 1e-6), err_msg=str(path))


def test_less_is_kept_for_the_backward_pass():
    image, valid = jnp.zeros((2, 128, 128, 3)), dict.fromkeys(STRIDES)

    def memory(remat):
        body = BODIES['bottleneck'](remat=remat)
        params = jax.eval_shape(body.init, jax.random.key(0), image, valid)['params']
        return jax.jit(loss_of(body, image, valid)).lower(params).compile().memory_analysis().temp_size_in_bytes
    assert memory(True) < 0.8 * memory(False)


def test_an_accelerator_gets_a_barrier_and_the_forward_pass_twice():
    image, valid = jnp.zeros((2, 64, 64, 3)), dict.fromkeys(STRIDES)

    def ops(remat):
        body = BODIES['convnext'](remat=remat)
        params = jax.eval_shape(body.init, jax.random.key(0), image, valid)['params']
        lowered = jax.jit(loss_of(body, image, valid)).trace(params).lower(lowering_platforms=('cuda',))
        return len(read_ops(lowered, 'optimization_barrier')), len(read_ops(lowered, 'dot_general'))

    blocks = sum(convnext.LAYOUTS['small'].blocks)
    (no_barrier, products), (barriers, more_products) = ops(False), ops(True)
    assert (no_barrier, barriers) == (0, blocks) and more_products - products == 2 * blocks
