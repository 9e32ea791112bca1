"""What benchmarks/parity.py does before and after torchvision, which is not needed here."""
import jax
import numpy as np
import pytest

from benchmarks import parity
from benchmarks.parity_images import STEP, on_canvas, size_inside
from relnet_jax.interop.torchvision_out import entries
from relnet_jax.models.mask_rcnn import build


@pytest.mark.parametrize('size', [(480, 640), (640, 427), (2000, 2500), (90, 1000)])
def test_a_size_inside_a_canvas_keeps_the_aspect_and_leaves_a_margin(size):
    height, width = size_inside(*size, (832, 1344))
    assert height % STEP == width % STEP == 0 and STEP <= height <= 832 - STEP and STEP <= width <= 1344 - STEP
    assert abs(height - size[0] * width / size[1]) <= STEP


def test_padding_on_the_canvas_is_noise():
    images = [np.zeros((3, 5, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)]
    padded, sizes = on_canvas(images, (8, 8))
    assert sizes.tolist() == [[3, 5], [8, 8]] and not padded[0, :3, :5].any() and not padded[1].any()
    assert padded[0, 3:].std() > 50 and padded[0, :, 5:].std() > 50


def test_commands_are_recorded_without_the_folders_of_a_machine():
    assert parity.without_root('--images=/a/b/c,/d/e/f') == '--images=b/c,e/f'
    assert parity.without_root('--images=../data/x') == '--images=../data/x'
    assert (parity.without_root('--count=3'), parity.without_root('--help')) == ('--count=3', '--help')


def test_group_norm_weights_come_from_the_second_entry_of_each_block():
    config = parity.model_config('group_norm')
    with config.unlocked():
        config.model.update(backbone='tiny', fpn_channels=8, box_head_dim=8, mask_channels=8, mask_convs=2)
        config.test.update(pre_nms=8, boxes=8, detections=4)
    model = build(config, 3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.uint8),
                            np.full((1, 2), 64, np.float32))['params']
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    named, unknown = entries(params)
    state = {name: value for name, (_, value) in named.items()}
    assert len(unknown) == 2 * (8 + 2)      # scale and bias of the norms in neck and mask head
    for i in range(4):
        for kind in ('inner', 'layer'):
            leaves = params['fpn'][f'{kind}_{i}_norm']
            state[f'backbone.fpn.{kind}_blocks.{i}.1.weight'] = leaves['scale']
            state[f'backbone.fpn.{kind}_blocks.{i}.1.bias'] = leaves['bias']
    for i in range(2):
        leaves = params['mask_head'][f'mask_fcn{i + 1}_norm']
        state[f'roi_heads.mask_head.{i}.1.weight'] = leaves['scale']
        state[f'roi_heads.mask_head.{i}.1.bias'] = leaves['bias']
    jax.tree.map(np.testing.assert_array_equal, parity.group_norm_params(state, shapes), params)
    with pytest.raises(ValueError, match='unexpected: roi_heads.mask_head.7.1.weight'):
        parity.group_norm_params(state | {'roi_heads.mask_head.7.1.weight': np.ones(8, np.float32)}, shapes)
