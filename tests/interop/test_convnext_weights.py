"""torchvision's ConvNeXt: its files fill the body, whose maps and gradients then are torchvision's.

The known answers are those of benchmarks/golden_convnext.py: weights by rule, one image of noise.
"""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.weight_rule import draw_weight
from configs import base
from relnet_jax.interop import convert
from relnet_jax.interop.load import WeightsError, adjusted, load_weights
from relnet_jax.interop.read import read_state, write_safetensors
from relnet_jax.interop.torchvision_out import to_state_dict
from relnet_jax.models import backbones, mask_rcnn
from relnet_jax.models.backbones import convnext
from relnet_jax.runs import checkpoint
from relnet_jax.runs import state as train_state
from relnet_jax.trees import path_name
from tests.conftest import GOLDEN
from tests.interop import writers

NO_MASK = dict.fromkeys((1, 2, 4, 8, 16, 32))


def config(**model):
    """A detector of the smallest neck and heads."""
    c = base.get_config()
    with c.unlocked():
        c.data.update(canvas=(64, 64), max_objects=2, mask_size=8)
        c.model.update(dict(backbone='convnext_tiny', norm='layer_norm', fpn_channels=8, box_head_dim=8,
                            mask_channels=8, mask_convs=1) | model)
    return c.lock()


def draw(c, seed):
    model = mask_rcnn.build(c, num_classes=4)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32),
                        train_state.abstract_params(model, train_state.batch_shapes(c, 1, 0)))


def same(found, expected):
    jax.tree_util.tree_map_with_path(
        lambda path, a, b: np.testing.assert_array_equal(a, b, err_msg=path_name(path)), found, expected)


# ---- against torchvision ----

@pytest.fixture(scope='module')
def known():
    with np.load(GOLDEN / 'convnext.npz') as file:
        return dict(file)


@pytest.fixture(scope='module')
def state(known):
    """The state dict of torchvision's convnext_tiny, with the classifier."""
    shapes = json.loads(str(known['state_dict_shapes_json']))
    return {name: draw_weight(name, tuple(shape), int(known['seed'])) for name, shape in shapes.items()}


@pytest.fixture(scope='module')
def start():
    return draw(config(), 2)


@pytest.fixture(scope='module')
def loaded(tmp_path_factory, state, start):
    """(parameters, report) from a .safetensors file."""
    path = tmp_path_factory.mktemp('weights') / 'convnext_tiny.safetensors'
    write_safetensors(path, state)
    return *load_weights(path, start, config()), path


def test_a_classification_file_fills_the_body_and_nothing_else(loaded, start):
    params, report, path = loaded
    for room in start.keys() - {'backbone'}:
        same(params[room], start[room])
    assert len(report.loaded) == len(jax.tree.leaves(start['backbone']))
    assert all(name.startswith('backbone/') for name in report.loaded)
    assert report.unused == ('classifier.0.bias', 'classifier.0.weight', 'classifier.2.bias', 'classifier.2.weight')
    fitted, classes, _ = adjusted(base.get_config(), path)
    assert (fitted.model.backbone, fitted.model.norm, classes) == ('convnext_tiny', 'layer_norm', 0)


def test_a_torch_file_gives_the_same(tmp_path, state, start, loaded):
    path = writers.torch_zip(tmp_path / 'convnext_tiny.pth', writers.state_dict(state), state.values())
    same(load_weights(path, start, config())[0], loaded[0])


@pytest.fixture(scope='module')
def computed(known, loaded):
    """(maps C2..C5, gradient) of the loaded body on the file's image, in one compilation."""
    shape = (1, 3, int(known['height']), int(known['width']))
    image = np.random.default_rng(int(known['seed'])).standard_normal(shape).astype(np.float32).transpose(0, 2, 3, 1)
    body = backbones.BACKBONES['convnext_tiny'].make(
        backbones.BackboneSettings('convnext_tiny', 'layer_norm'), jnp.float32)

    def total(params):
        maps = body.apply({'params': params}, image, NO_MASK)
        return sum((x ** 2).mean() for x in maps), maps
    gradient, maps = jax.jit(jax.grad(total, has_aux=True))(loaded[0]['backbone'])
    return maps, gradient


@pytest.mark.parametrize('level', [2, 3, 4, 5])
def test_maps_are_torchvisions(known, computed, level):
    """To float32 rounding: 1e-5 of values whose standard deviation is about 1."""
    found = np.asarray(computed[0][level - 2])
    np.testing.assert_allclose(found[..., ::int(known['step'])], known[f'c{level}_channels'], rtol=0, atol=1e-5)
    np.testing.assert_allclose([found.mean(), found.std()], known[f'c{level}_mean_std'], rtol=0, atol=1e-6)


def test_the_gradient_of_every_parameter_is_torchvisions(known, computed):
    norms = json.loads(str(known['gradient_norms_json']))
    found = {name: np.linalg.norm(np.float64(value).ravel())
             for name, value in classification({'backbone': computed[1]}).items()}
    assert found == pytest.approx(norms, rel=2e-5)


def test_a_detector_is_written_under_the_names_of_one_that_torchvision_makes_of_features(known):
    names = [name for name in to_state_dict(draw(config(), 1)) if name.startswith('backbone.')]
    assert sorted(names) == sorted(json.loads(str(known['detector_names_json'])))


# ---- files, on a body in miniature ----

@pytest.fixture
def mini(monkeypatch):
    """Changes of config -> config, for a body small enough to be written often."""
    monkeypatch.setitem(convnext.LAYOUTS, 'mini', convnext.Layout((1, 1, 2, 1), (8, 12, 16, 24)))
    monkeypatch.setitem(backbones.BACKBONES, 'mini', backbones._convnext('mini'))
    return lambda **model: config(**dict(backbone='mini') | model)


def classification(params):
    """The body alone, as torchvision's classification models name it."""
    return {name.replace('backbone.body.', 'features.'): value
            for name, value in to_state_dict({'backbone': params['backbone']}).items()}


def test_weights_in_and_out_again_are_the_same_file(mini, tmp_path):
    state = to_state_dict(draw(mini(), 1))
    write_safetensors(tmp_path / 'detector.safetensors', state)
    text = convert.weights_in(tmp_path / 'detector.safetensors', tmp_path / 'run', mini(backbone='resnet18'))
    assert 'set config.model.backbone = mini' in text and 'kept at init: 0' in text and 'unused: 0' in text
    assert checkpoint.read_config(tmp_path / 'run').model.backbone == 'mini'
    convert.weights_out(tmp_path / 'run', tmp_path / 'back.safetensors')
    same(read_state(tmp_path / 'back.safetensors'), state)
    assert not any('running' in name for name in state)


def test_a_body_alone_leaves_the_norm_of_neck_and_heads_open(mini, tmp_path):
    path = tmp_path / 'body.safetensors'
    write_safetensors(path, classification(draw(mini(), 1)))
    for asked, given in (('group_norm', 'group_norm'), ('frozen_bn', 'layer_norm'), ('layer_norm', 'layer_norm')):
        assert adjusted(mini(norm=asked), path)[0].model.norm == given
    params, report = load_weights(path, draw(mini(norm='group_norm'), 2), mini(norm='group_norm'))
    same(params['backbone'], draw(mini(), 1)['backbone'])
    assert 'fpn/inner_0_norm/scale' in report.kept and not report.unused


def test_the_deviation_of_pixels_goes_into_the_stem(mini, tmp_path):
    params = draw(mini(), 1)
    write_safetensors(tmp_path / 'body.safetensors', classification(params))
    c = mini(pixel_std=(1.0, 2.0, 4.0))
    found = load_weights(tmp_path / 'body.safetensors', params, c)[0]['backbone']['stem_conv']['kernel']
    pixels = np.random.default_rng(1).uniform(-120, 130, (4, 4, 3))
    kernel = params['backbone']['stem_conv']['kernel']
    theirs = np.einsum('hwi,hwio->o', pixels / base.get_config().model.pixel_std, kernel)
    ours = np.einsum('hwi,hwio->o', pixels / c.model.pixel_std, found)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('name, shape, message', [      # shape None: the entry is missing
    ('features.3.0.block.0.weight', None, r'body\.3\.0\.block\.0\.weight: expected \(12, 1, 7, 7\), got nothing'),
    ('features.5.2.layer_scale', (16, 1, 1), r'body\.5\.2\.layer_scale: expected nothing, got \(16, 1, 1\)'),
    ('features.1.0.layer_scale', (8,), r'body\.1\.0\.layer_scale: expected \(8, 1, 1\), got \(8,\)'),
    ('features.0.0.weight', (8, 1, 4, 4), r'body\.0\.0\.weight: expected \[out, 3, k, k\], got \[8, 1, 4, 4\]'),
    ('features.0.0.weight', None, 'names of no family')])
def test_what_should_fit_and_does_not_is_an_error(mini, tmp_path, name, shape, message):
    params = draw(mini(), 1)
    state = {k: v for k, v in classification(params).items() if k != name}
    state |= {} if shape is None else {name: np.ones(shape, np.float32)}
    write_safetensors(tmp_path / 'body.safetensors', state)
    with pytest.raises(WeightsError, match=message):
        load_weights(tmp_path / 'body.safetensors', params, mini())


@pytest.mark.parametrize('change', ['block', 'width'])
def test_a_body_of_no_known_layout_is_refused(mini, tmp_path, change):
    state = classification(draw(mini(), 1))
    if change == 'block':
        state['features.7.1.layer_scale'] = np.ones((24, 1, 1), np.float32)
    else:
        state['features.0.0.weight'] = np.ones((10, 3, 4, 4), np.float32)
    write_safetensors(tmp_path / 'body.safetensors', state)
    with pytest.raises(WeightsError, match=r'body\.safetensors: a body of .* ConvNeXt blocks is none of convnext_tiny'):
        adjusted(mini(), tmp_path / 'body.safetensors')


def test_weights_of_another_body_list_what_differs(mini, tmp_path):
    write_safetensors(tmp_path / 'body.safetensors', classification(draw(mini(), 1)))
    c = mini(backbone='resnet18', norm='frozen_bn')
    with pytest.raises(WeightsError, match=r'body\.0\.0\.weight: expected nothing'):
        load_weights(tmp_path / 'body.safetensors', draw(c, 2), c)
