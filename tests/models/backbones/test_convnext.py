import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from relnet_jax.config import load
from relnet_jax.models import backbones
from relnet_jax.models.backbones import convnext
from relnet_jax.models.backbones.convnext import ConvNeXt, Layout, PatchConv
from relnet_jax.models.layers import valid_map
from relnet_jax.training.optimizer import make_optimizer
from relnet_jax.trees import path_name

STRIDES = (1, 2, 4, 8, 16, 32)
NO_MASK = dict.fromkeys(STRIDES)


@pytest.fixture
def mini(monkeypatch):
    monkeypatch.setitem(convnext.LAYOUTS, 'mini', Layout((1, 1, 1, 1), (8, 12, 16, 24)))
    return lambda **options: ConvNeXt('mini', **options)


def draw(model, seed=0):
    """Parameters off the constants at which biases, norms and layer scale start."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), NO_MASK)['params']
    return jax.tree.map(lambda s: jnp.asarray(
        rng.uniform(0.5, 1.0, s.shape) if len(s.shape) == 1 else
        rng.normal(size=s.shape) / np.sqrt(np.prod(s.shape[:-1])), jnp.float32), shapes)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).normal(size=(1, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize('layout, published', [('convnext_tiny', 28_589_128), ('convnext_small', 50_223_688),
                                               ('convnext_base', 88_591_464), ('convnext_large', 197_767_336)])
def test_parameters_are_as_many_as_published(layout, published):
    """torchvision's table of weights counts a norm and a classifier of 1000 on the last map, too."""
    params = jax.eval_shape(ConvNeXt(layout).init, jax.random.key(0), jnp.zeros((1, 64, 96, 3)), NO_MASK)
    last = convnext.LAYOUTS[layout].widths[-1]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) + 2 * last + 1000 * (last + 1) == published


def test_initial_blocks_are_nearly_the_identity(mini):
    params = jax.jit(lambda x: mini().init(jax.random.key(0), x, NO_MASK))(noise(32, 32))['params']
    assert all((params[f'stage{i}_0']['layer_scale']['scale'] == np.float32(1e-6)).all() for i in (1, 2, 3, 4))
    assert abs(params['stage4_0']['pwconv1']['kernel'].std() - 0.02) < 2e-3
    assert not params['stage4_0']['pwconv1']['bias'].any()


@pytest.mark.parametrize('size, shape', [(4, (8, 12)), (2, (6, 4)), (2, (5, 7)), (4, (1, 9))])
def test_patch_convolution_is_the_strided_convolution_with_zeros_beyond_the_edge(size, shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *shape, 3)), jnp.float32)
    kernel, bias = rng.normal(size=(size, size, 3, 5)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    found = PatchConv(5, size).apply({'params': {'kernel': kernel, 'bias': bias}}, x)
    whole = jnp.pad(x, ((0, 0), (0, -shape[0] % size), (0, -shape[1] % size), (0, 0)))
    expected = jax.lax.conv_general_dilated(whole, kernel, (size, size), 'VALID',
                                            dimension_numbers=('NHWC', 'HWIO', 'NHWC')) + bias
    assert found.shape == (2, -(-shape[0] // size), -(-shape[1] // size), 5)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('height, width', [(75, 90), (32, 1)])
def test_maps_do_not_depend_on_the_canvas(mini, height, width):
    """Whatever the padding holds: the true image alone and the same on a larger canvas give the same maps."""
    model = mini()
    params, image = draw(model), noise(height, width)
    run = jax.jit(lambda x, valid: model.apply({'params': params}, x, valid))
    alone = run(image, NO_MASK)
    x = noise(128, 96, seed=1)
    x[:, :height, :width] = image
    size = jnp.array([[height, width]], jnp.float32)
    maps = run(x, {s: valid_map(size, s, (128 // s, 96 // s)) for s in STRIDES})
    for stride, small, large in zip((4, 8, 16, 32), alone, maps):
        rows, columns = -(-height // stride), -(-width // stride)
        assert small.shape[1:3] == (rows, columns) and large.shape[1:3] == (128 // stride, 96 // stride)
        np.testing.assert_allclose(large[:, :rows, :columns], small, atol=2e-5)


def test_bfloat16_is_close_to_float32(mini):
    params, image = draw(mini()), noise(64, 64)
    exact, rough = (jax.jit(model.apply)({'params': params}, image, NO_MASK) for model in
                    (mini(), mini(dtype=jnp.bfloat16)))
    for x, y in zip(exact, rough):
        assert y.dtype == jnp.bfloat16 and 0 < np.abs(x - y).max()
        assert np.sqrt(np.mean((x - y) ** 2)) < 0.02 * x.std()


@pytest.mark.parametrize('frozen', [0, 3])
def test_gradient_reaches_every_parameter_but_those_of_the_frozen_stages(mini, frozen):
    model, image = mini(frozen_stages=frozen), noise(64, 64)
    params = draw(model)

    def total(params):
        return sum((x ** 2).sum() for x in model.apply({'params': params}, image, NO_MASK))
    gradient = jax.jit(jax.grad(total))(params)
    moving = {f'backbone/{path_name(path)}': bool(leaf.any())
              for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)}
    patterns = convnext.freeze_patterns(frozen)
    assert moving == {name: not any(re.match(p, name) for p in patterns) for name in moving}
    kept = {0: 0, 3: 4 + 9 + 4 + 9}[frozen]     # stem, stage 1, downsampling, stage 2
    assert sum(moving.values()) == len(moving) - kept


def test_head_is_the_last_stage(mini):
    """As the C4 detector uses it: three stages, then the fourth on any map."""
    params, image = draw(mini()), noise(64, 64)

    def both(params, x):
        three = mini(stages=3).apply({'params': params}, x, NO_MASK)
        last = nn.apply(lambda model, x: model.head(x), mini(stages=3))({'params': params}, three[-1])
        return [*three, last], mini().apply({'params': params}, x, NO_MASK)
    for found, expected in zip(*jax.jit(both)(params, image), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.fixture
def detector(monkeypatch, mini, relational):
    """A whole detector on a miniature, its stem and first stage frozen."""
    monkeypatch.setitem(backbones.BACKBONES, 'mini', backbones._convnext('mini'))
    return relational(backbone='mini', norm='layer_norm', frozen_stages=2, mask_head=True)


def test_a_detector_with_this_body_takes_a_training_step(detector):
    config = load('configs/base.py')
    with config.unlocked():
        config.model.update(backbone='mini', norm='layer_norm', frozen_stages=2)
        config.train.update(optimizer='adamw', learning_rate=1e-3, batch_size=16, warmup_steps=0)
    def mean_loss():
        terms = detector.losses(detector.batch)[0]
        assert {'loss_cls', 'loss_bbox', 'loss_mask', 'rpn_cls_p2', 'rpn_cls_p6'} <= terms.keys()
        return sum(total / max(count, 1) for total, count in terms.values())

    start, before = detector.params, mean_loss()
    gradient, optimizer = detector.gradient(detector.batch), make_optimizer(config, start)
    updates, _ = optimizer.update(gradient, optimizer.init(start), start)
    detector.params = optax.apply_updates(start, updates)
    assert mean_loss() < before < np.inf
    for path, change in jax.tree_util.tree_leaves_with_path(updates['backbone']):
        frozen = path[0].key in ('stem_conv', 'stem_norm', 'stage1_0')
        assert change.any() != frozen, path_name(path)
