"""The converter writes checkpoints that need nothing else, and gives torchvision back what it took, bit for bit."""
import jax
import numpy as np
import pytest

from configs import base
from relnet_jax.detector.run import load_detector
from relnet_jax.interop import convert
from relnet_jax.interop.coco_table import COCO
from relnet_jax.interop.read import read_state, read_weights, write_safetensors
from relnet_jax.interop.torchvision_out import to_state_dict
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import checkpoint
from relnet_jax.runs import state as train_state

K = 4


def config():
    c = base.get_config()
    with c.unlocked():
        c.data.update(canvas=(64, 64), max_objects=2, mask_size=8)
        c.model.update(backbone='resnet18', fpn_channels=8, box_head_dim=8, mask_channels=8, mask_convs=1)
    return c.lock()


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    """A detector file in torchvision's names: (path, state dict)."""
    c = config()
    shapes = train_state.abstract_params(mask_rcnn.build(c, num_classes=K), train_state.batch_shapes(c, 1, 0))
    rng = np.random.default_rng(4)
    state = to_state_dict(jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes))
    path = tmp_path_factory.mktemp('weights') / 'detector.safetensors'
    write_safetensors(path, state)
    return path, state


def test_weights_in_and_out_again_are_the_same_file(file, tmp_path):
    path, state = file
    # The file decides on the backbone and asks for the keys it needs, whatever the config says.
    other = config()
    with other.unlocked():
        other.model.update(backbone='resnet50', stride_in_1x1=True, roi_aligned=True)
    text = convert.weights_in(path, tmp_path / 'run', other)
    assert "set config.model.backbone = resnet18" in text and 'set config.model.stride_in_1x1 = False' in text
    assert 'loaded: ' in text and 'kept at init: 0' in text and 'unused: 0' in text
    stored = checkpoint.read_config(tmp_path / 'run')
    assert (stored.model.backbone, stored.model.stride_in_1x1, stored.model.roi_aligned) == ('resnet18', False, False)
    assert checkpoint.read_class_table(tmp_path / 'run') == dict(
        classes=('class_1', 'class_2', 'class_3'), category_ids=(1, 2, 3), parts=())

    assert f'{len(state)} arrays, {K} classes' in convert.weights_out(tmp_path / 'run', tmp_path / 'back.safetensors')
    back = read_weights(tmp_path / 'back.safetensors')
    assert back.tensors.keys() == state.keys()
    for name, value in state.items():
        assert back.tensors[name].dtype == value.dtype
        np.testing.assert_array_equal(back.tensors[name], value, err_msg=name)

    with pytest.raises(ValueError, match='already holds checkpoints'):
        convert.weights_in(path, tmp_path / 'run', config())


def test_a_written_file_remembers_what_torchvision_would_not(file, tmp_path):
    path, state = file
    c = config()
    with c.unlocked():
        c.model.update(roi_aligned=True, pixel_mean=(1.0, 2.0, 3.0), pixel_std=(4.0, 5.0, 6.0))
    ours = tmp_path / 'ours.safetensors'
    write_safetensors(ours, state, {'config': convert.config_lib.to_json(c)})
    convert.weights_in(ours, tmp_path / 'run', c)
    stored = checkpoint.read_config(tmp_path / 'run')
    m = stored.model
    assert (m.roi_aligned, m.pixel_mean, m.pixel_std) == (True, (1., 2., 3.), (4., 5., 6.))
    text = convert.weights_out(tmp_path / 'run', tmp_path / 'back.safetensors')
    assert 'roi_aligned = True' in text and 'pixel_mean = (1.0, 2.0, 3.0)' in text
    np.testing.assert_array_equal(read_state(tmp_path / 'back.safetensors')['backbone.body.conv1.weight'],
                                  state['backbone.body.conv1.weight'])


def test_what_the_file_lacks_is_drawn_as_for_a_fresh_run(file, tmp_path):
    path, state = file
    state = {name: value for name, value in state.items() if not name.startswith('rpn.')}
    write_safetensors(tmp_path / 'part.safetensors', state)
    text = convert.weights_in(tmp_path / 'part.safetensors', tmp_path / 'run', config())
    assert 'kept at init: 6\n    rpn/* (6)' in text
    params = checkpoint.load_params(tmp_path / 'run')
    for module in ('conv', 'cls_logits', 'bbox_pred'):      # normal(0.01), biases 0
        assert abs(params['rpn'][module]['kernel'].std() - 0.01) < 0.004 and not params['rpn'][module]['bias'].any()
    np.testing.assert_array_equal(params['fpn']['inner_0']['bias'], state['backbone.fpn.inner_blocks.0.0.bias'])


def test_class_tables():
    c = config()
    assert convert.class_table(c, 0) == dict(classes=tuple(COCO.values()), category_ids=tuple(COCO), parts=())
    assert len(COCO) == 80 and (COCO[1], COCO[13], COCO[90]) == ('person', 'stop sign', 'toothbrush')
    with c.unlocked():
        c.data.classes, c.data.parts = ('mass', 'nodule'), ('left lung',)
    table = dict(classes=('mass', 'nodule'), category_ids=(1, 2), parts=('left lung',))
    assert convert.class_table(c, 3, ('a', 'b')) == convert.class_table(c, 0) == table
    assert convert.class_table(c, 3 + 1)['classes'] == ('class_1', 'class_2', 'class_3')
    assert convert.class_table(c, 3 + 1, ('a', 'b', 'c'))['classes'] == ('a', 'b', 'c')


def test_the_command_converts_in_both_directions(file, tmp_path, capsys):
    path, state = file
    keys = [f'--config.{key}' for key in ('data.canvas=(64,64)', 'model.fpn_channels=8', 'model.box_head_dim=8',
                                          'model.mask_channels=8', 'model.mask_convs=1', "data.classes=('a','b','c')")]
    assert convert.main([str(path), str(tmp_path / 'run'), *keys]) == 0
    assert checkpoint.read_class_table(tmp_path / 'run')['classes'] == ('a', 'b', 'c')
    assert convert.main([str(tmp_path / 'run'), str(tmp_path / 'back.safetensors')]) == 0
    assert read_weights(tmp_path / 'back.safetensors').tensors.keys() == state.keys()
    again = [str(tmp_path / 'back.safetensors'), str(tmp_path / 'again'), *keys[:-1]]
    assert convert.main(again) == 0
    assert checkpoint.read_class_table(tmp_path / 'again')['classes'] == ('a', 'b', 'c')     # the file knows them
    _, params = load_detector(tmp_path / 'again', *(read(tmp_path / 'again') for read in (
        checkpoint.read_config, checkpoint.read_class_table)))
    jax.tree.map(np.testing.assert_array_equal, params, checkpoint.load_params(tmp_path / 'run'))
    assert "written: '" in capsys.readouterr().out
    assert convert.main([str(path), str(tmp_path / 'run'), *keys]) == 2
    assert capsys.readouterr().err == f"convert: '{tmp_path}/run' already holds checkpoints; give a new folder\n"
