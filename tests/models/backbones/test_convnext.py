import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models.backbones import convnext
from relnet_jax.models.backbones.convnext import ConvNeXt, Layout, PatchConv
from relnet_jax.models.layers import valid_map

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
def test_maps_have_strides_4_to_32_and_parameters_are_as_many_as_published(layout, published):
    """Published: torchvision's table of weights, with a norm and a classifier of 1000 on the last map."""
    widths = convnext.LAYOUTS[layout].widths
    maps, found = jax.eval_shape(ConvNeXt(layout).init_with_output, jax.random.key(0), jnp.zeros((1, 64, 96, 3)), NO_MASK)
    assert [m.shape for m in maps] == [(1, 64 // s, 96 // s, c) for s, c in zip((4, 8, 16, 32), widths)]
    total = sum(leaf.size for leaf in jax.tree.leaves(found))
    assert total + 2 * widths[-1] + 1000 * (widths[-1] + 1) == published


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


def names_of_stages(params):
    stem = [name for name in params if name.startswith('stem_')]
    return [stem, *([name for name in params if name.startswith((f'stage{k}_', f'downsample{k}_'))] for k in range(1, 5))]


@pytest.mark.parametrize('frozen', [0, 3])
def test_gradient_reaches_every_parameter_above_the_frozen_stages_and_none_below(mini, frozen):
    model, image = mini(frozen_stages=frozen), noise(64, 64)
    params = draw(model)
    gradient = jax.jit(jax.grad(lambda p: sum((m ** 2).sum() for m in model.apply({'params': p}, image, NO_MASK))))(params)
    stages = names_of_stages(params)
    assert sorted(sum(stages, [])) == sorted(params)
    for index, names in enumerate(stages):
        moving = [bool(leaf.any()) for name in names for leaf in jax.tree.leaves(gradient[name])]
        assert moving == [index >= frozen] * len(moving), index


def test_head_is_the_last_stage(mini):
    """As the C4 detector uses it: three stages, then the fourth on any map."""
    params, image = draw(mini()), noise(64, 64)

    def both(params, x):
        three = mini(stages=3).apply({'params': params}, x, NO_MASK)
        last = nn.apply(lambda model, x: model.head(x), mini(stages=3))({'params': params}, three[-1])
        return [*three, last], mini().apply({'params': params}, x, NO_MASK)
    for found, expected in zip(*jax.jit(both)(params, image), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_unknown_layout_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="convnext_tiny.*got 'convnext_huge'"):
        ConvNeXt('convnext_huge').init(jax.random.key(0), noise(32, 32), NO_MASK)
