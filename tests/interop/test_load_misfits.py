"""What does not fit stays at its start or stops, and is named."""
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.interop.load import WeightsError, load_weights, start_from_weights
from relnet_jax.interop.read import write_safetensors
from relnet_jax.interop.torchvision_out import to_state_dict
from tests.interop.weight_trees import config, random, same


def test_a_model_without_masks_leaves_the_mask_head_out(tree50, tmp_path):
    write_safetensors(tmp_path / 'a.safetensors', to_state_dict(random(tree50, 1)))
    start = {k: v for k, v in random(tree50, 2).items() if not k.startswith('mask')}
    _, report = load_weights(tmp_path / 'a.safetensors', start, config(mask_head=False))
    assert len(report.unused) == 12 and all(name.startswith('roi_heads.mask_') for name in report.unused)


def test_what_torchvision_does_not_know_stays_at_init(tree50, tmp_path):
    write_safetensors(tmp_path / 'a.safetensors', to_state_dict(random(tree50, 1)))
    start = random(tree50, 2) | {'relation': {'fc': {'kernel': jnp.ones((2, 2))}}}
    params, report = load_weights(tmp_path / 'a.safetensors', start, config())
    assert params['relation']['fc']['kernel'] is start['relation']['fc']['kernel']
    assert report.kept == ('relation/fc/kernel',)
    with pytest.raises(ValueError, match='relation/fc/kernel'):
        to_state_dict(start)


@pytest.mark.parametrize('name, shape, message', [      # shape None: the entry is missing
    ('backbone.fpn.inner_blocks.1.0.weight', None, r'blocks\.1\.0\.weight: expected \(16, 32, 1, 1\), got nothing'),
    ('backbone.body.layer3.6.conv1.weight', (4, 4, 1, 1), r'layer3\.6\.conv1\.weight: expected nothing'),
    ('backbone.body.layer1.0.conv2.weight', (4, 4, 5, 5), r'expected \(4, 4, 3, 3\), got \(4, 4, 5, 5\)'),
    ('rpn.head.cls_logits.bias', (15,), r'cls_logits\.bias: expected \(3,\), got \(15,\)'),
    ('roi_heads.box_head.0.0.weight', (4, 4, 3, 3), r'box_head\.0\.0\.weight: expected nothing'),
    ('roi_heads.box_predictor.bbox_pred.bias', (4,), r'bbox_pred\.bias: expected \(20,\), got \(4,\)'),
    ('backbone.body.bn1.running_var', (3,), 'should have one shape'),
    ('backbone.body.bn1.running_mean', None, 'running_mean and running_var should have one shape.*nothing'),
    ('backbone.body.conv1.weight', (4, 1, 7, 7), r'expected \[out, 3, k, k\]'),
])
def test_what_should_fit_and_does_not_is_an_error(tree50, tmp_path, name, shape, message):
    state = to_state_dict(random(tree50, 1))
    changed = {} if shape is None else {name: np.ones(shape, np.float32)}
    state = {k: v for k, v in state.items() if k != name} | changed
    write_safetensors(tmp_path / 'a.safetensors', state)
    with pytest.raises(ValueError, match=message):
        load_weights(tmp_path / 'a.safetensors', random(tree50, 2), config())


def test_files_of_no_known_family_are_named(tmp_path, tree50):
    write_safetensors(tmp_path / 'vit.safetensors', {'blocks.0.attn.qkv.weight': np.ones((3, 2), np.float32)})
    with pytest.raises(WeightsError, match=r'vit\.safetensors: names of no family.*blocks\.0\.attn'):
        load_weights(tmp_path / 'vit.safetensors', random(tree50, 2), config())


def test_strict_start_allows_nothing_at_init_or_unused(tmp_path, tree50, classification):
    expected = random(tree50, 1)
    write_safetensors(tmp_path / 'a.safetensors', to_state_dict(expected))
    strict = config()
    with strict.unlocked():
        strict.train.init_strict = True
    same(start_from_weights(random(tree50, 2), tmp_path / 'a.safetensors', strict, ()), expected)
    path, _ = classification(tree50)
    with pytest.raises(WeightsError, match=r'init_strict(.|\n)*kept at init: 42(.|\n)*unused: 2'):
        start_from_weights(random(tree50, 2), path, strict, ())
    start_from_weights(random(tree50, 2), path, config(), ())
