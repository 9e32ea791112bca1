"""Weights of torchvision, classifiers and detectors, land on the right parameter in the right layout."""
import re

import numpy as np
import pytest

from relnet_jax.interop.load import adjusted, load_weights
from relnet_jax.interop.read import write_safetensors
from relnet_jax.interop.torchvision_out import to_state_dict
from relnet_jax.trees import path_names
from tests.interop.weight_trees import config, flat, random, same, with_classes


@pytest.mark.parametrize('file_name', ['resnet50-old.pth', 'resnet50.pth', 'resnet50.safetensors'])
def test_classification_weights_fill_the_backbone_and_nothing_else(tree50, classification, file_name):
    path, expected = classification(tree50, file_name)
    start = random(tree50, 2)
    params, report = load_weights(path, start, config())
    for name, value in flat(expected).items():
        np.testing.assert_allclose(flat(params)[f'backbone/{name}'], value, rtol=2e-6, atol=1e-6, err_msg=name)
    for room in start.keys() - {'backbone'}:
        same(params[room], start[room])
    assert set(report.loaded) == {f'backbone/{name}' for name in flat(expected)}
    assert set(report.kept) == {name for name in path_names(start) if not name.startswith('backbone/')}
    assert report.unused == ('fc.bias', 'fc.weight')
    text = str(report)
    for expected in (f'loaded: {len(report.loaded)}', 'backbone/* ', 'box_head/* (4)', 'fc.weight'):
        assert expected in text


def test_basic_blocks_of_resnet18(tree18, classification):
    path, expected = classification(tree18)
    params, _ = load_weights(path, random(tree18, 2), config(backbone='resnet18'))
    np.testing.assert_allclose(params['backbone']['layer2_0']['downsample_conv']['kernel'],
                               expected['layer2_0']['downsample_conv']['kernel'])
    fitted, outputs, names = adjusted(config(), path)
    assert (fitted.model.backbone, outputs, names) == ('resnet18', 0, ())


def test_an_epsilon_is_added_except_for_the_published_coco_weights(tree50, tmp_path):
    tree = with_classes(tree50, 91)
    start = random(tree, 2)
    var = np.float32(1e-4)
    for counters, eps in ((True, 1e-5), (False, 0.0)):
        state = to_state_dict(random(tree, 1))
        state['backbone.body.bn1.running_var'][:] = var
        state = {k: v for k, v in state.items() if counters or not k.endswith('num_batches_tracked')}
        write_safetensors(tmp_path / 'a.safetensors', state)
        params, _ = load_weights(tmp_path / 'a.safetensors', start, config())
        np.testing.assert_allclose(params['backbone']['bn1']['scale'],
                                   state['backbone.body.bn1.weight'] / np.sqrt(np.float64(var) + eps), rtol=1e-6)


def test_torchvision_detector_round_trip_is_exact(tree50, tmp_path):
    expected = random(tree50, 1)
    write_safetensors(tmp_path / 'a.safetensors', to_state_dict(expected))
    params, report = load_weights(tmp_path / 'a.safetensors', random(tree50, 2), config())
    same(params, expected)
    assert not report.kept and not report.unused


def test_names_of_torchvision_before_2022(tree50, tmp_path):
    expected = random(tree50, 1)
    state = {re.sub(r'mask_head\.(\d)\.0\.', lambda m: f'mask_head.mask_fcn{int(m[1]) + 1}.',
                    re.sub(r'(_blocks\.\d)\.0\.|(head\.conv)\.0\.0\.', lambda m: f'{m[1] or m[2]}.', name)): value
             for name, value in to_state_dict(expected).items()}
    assert 'roi_heads.mask_head.mask_fcn1.weight' in state and 'rpn.head.conv.weight' in state
    write_safetensors(tmp_path / 'a.safetensors', state)
    same(load_weights(tmp_path / 'a.safetensors', random(tree50, 2), config())[0], expected)
