from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models.backbones.resnet import ResNet, max_pool
from relnet_jax.models.fpn import FPN, upsample
from relnet_jax.models.layers import valid_map
from tests.stablehlo import read_ops

STRIDES = (1, 2, 4, 8, 16, 32)
NO_MASK = dict.fromkeys(STRIDES)


def masks(height, width, canvas):
    size = jnp.array([[height, width]], jnp.float32)
    return {stride: valid_map(size, stride, (canvas // stride, canvas // stride)) for stride in STRIDES}


@pytest.mark.parametrize('height, width', [(8, 8), (7, 6), (8, 5)])
def test_max_pool_equals_the_window_maximum_with_its_gradient(height, width):
    x = nn.relu(jax.random.normal(jax.random.key(0), (2, height, width, 3)))

    def plain(x):
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    np.testing.assert_array_equal(max_pool(x), plain(x))
    ours, reference = (jax.grad(lambda x, pool=pool: (pool(x) ** 2).sum())(x) for pool in (max_pool, plain))
    np.testing.assert_allclose(ours, reference, atol=1e-6)


@pytest.mark.parametrize('layout, channels', [('tiny', (24, 48, 96, 160)), ('resnet18', (64, 128, 256, 512)),
                                              ('resnet34', (64, 128, 256, 512)), ('resnet50', (256, 512, 1024, 2048)),
                                              ('resnet101', (256, 512, 1024, 2048))])
def test_body_gives_strides_4_to_32(layout, channels):
    image = jnp.zeros((1, 64, 96, 3))
    maps, params = jax.eval_shape(ResNet(layout).init_with_output, jax.random.key(0), image, NO_MASK)
    assert [m.shape for m in maps] == [(1, 64 // s, 96 // s, c) for s, c in zip((4, 8, 16, 32), channels)]
    blocks = {'tiny': 4, 'resnet18': 8, 'resnet34': 16, 'resnet50': 16, 'resnet101': 33}[layout]
    assert sum(name.startswith('layer') for name in params['params']) == blocks


def test_stride_in_1x1_moves_the_stride_and_nothing_else():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 64, 3)), jnp.float32)
    new, old = ResNet('resnet50'), ResNet('resnet50', stride_in_1x1=True)
    shapes = [jax.eval_shape(model.init, jax.random.key(0), x, NO_MASK) for model in (new, old)]
    assert shapes[0] == shapes[1]

    def halving(model):     # kernels of the convolutions that do it; the stem's works on blocks of pixels
        lowered = jax.jit(lambda p: model.apply(p, x, NO_MASK)).trace(shapes[0]).lower(lowering_platforms=('cuda',))
        return Counter(op.operands[1].shape[0] for op in read_ops(lowered, 'convolution')
                       if op.operands[0].shape[1] == 2 * op.results[0].shape[1])

    assert (halving(new), halving(old)) == ({3: 3, 1: 3}, {1: 6})


@pytest.mark.parametrize('frozen', [2, 5])
def test_no_gradient_below_the_last_frozen_stage(frozen):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 3)), jnp.float32)
    model = ResNet('tiny', norm='group_norm', frozen_stages=frozen)
    params = jax.jit(lambda x: model.init(jax.random.key(0), x, NO_MASK))(x)
    total = jax.jit(jax.grad(lambda p: sum((m ** 2).sum() for m in model.apply(p, x, NO_MASK))))
    gradient = total(params)['params']
    stages = [('conv1', 'bn1'), ('layer1_0',), ('layer2_0',), ('layer3_0',), ('layer4_0',)]
    moving = [any(leaf.any() for name in names for leaf in jax.tree.leaves(gradient[name])) for names in stages]
    assert moving == [i >= frozen for i in range(5)]


def test_upsampling_repeats_every_cell():
    x = np.arange(12.0).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(upsample(jnp.asarray(x)), x.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize('norm', ['frozen_bn', 'group_norm'])
def test_maps_do_not_depend_on_the_canvas(norm):
    """An image of 75 x 90 pixels, on canvases of 96 and 160 with whatever in the padding."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 75, 90, 3)).astype(np.float32)
    body, neck = ResNet('tiny', norm=norm), FPN(16, norm=norm)

    def pyramid(params, x, valid):
        return neck.apply({'params': params['fpn']}, body.apply({'params': params['body']}, x, valid), valid)

    params, results = None, []
    for canvas in (96, 160):
        x = rng.normal(size=(1, canvas, canvas, 3)).astype(np.float32)
        x[:, :75, :90] = image
        valid = masks(75, 90, canvas)
        if params is None:
            maps, body_params = body.init_with_output(jax.random.key(0), x, valid)
            params = {'body': body_params['params'], 'fpn': neck.init(jax.random.key(1), maps, valid)['params']}
            if norm == 'frozen_bn':     # an affine part that does not map zero to zero
                params = jax.tree.map(lambda leaf: leaf + 0.1 if leaf.ndim == 1 else leaf, params)
        results.append(jax.jit(pyramid)(params, x, valid))
    for stride, small, large in zip((4, 8, 16, 32, 64), *results):
        rows, columns = -(-75 // stride), -(-90 // stride)
        np.testing.assert_allclose(small[:, :rows, :columns], large[:, :rows, :columns], atol=1e-5)
        assert not large[:, rows:].any() and not large[:, :, columns:].any()


def test_fpn_without_group_norm_has_biases_and_no_norm():
    maps = [jnp.zeros((1, 32 // s, 32 // s, c)) for s, c in zip((1, 2, 4, 8), (8, 16, 32, 64))]
    plain = jax.eval_shape(FPN(16).init, jax.random.key(0), maps, NO_MASK)['params']
    normed = jax.eval_shape(FPN(16, norm='group_norm').init, jax.random.key(0), maps, NO_MASK)['params']
    assert set(plain) == {f'{kind}_{i}' for kind in ('inner', 'layer') for i in range(4)}
    assert all(set(leaf) == {'kernel', 'bias'} for leaf in plain.values())
    assert {name for name in normed if name.endswith('_norm')} == {f'{name}_norm' for name in plain}
