"""Weights of Detectron2 and of Caffe2 land on the right parameter in the right layout."""
import pickle

import numpy as np
import pytest

from configs import base
from relnet_jax.interop.load import WeightsError, adjusted, load_weights
from tests.interop import writers
from tests.interop.family_names import caffe2_name, detectron2_name, renamed, to_bgr
from tests.interop.weight_trees import K, config, flat, random, same

STD = np.asarray(base.get_config().model.pixel_std, np.float32)


def write_pickle(path, arrays, **beside):
    path.write_bytes(pickle.dumps({'model': arrays, **beside}, protocol=2))
    return path


def detectron2_file(tmp_path, tree):
    """A Detectron2 detector: background last, no background row in boxes and masks, BGR."""
    expected = random(tree, 1)
    state = renamed(expected, detectron2_name)
    for leaf in ('weight', 'bias'):
        logits = f'roi_heads.box_predictor.cls_score.{leaf}'
        state[logits] = np.concatenate([state[logits][1:], state[logits][:1]])
        for name, rows in (('box_predictor.bbox_pred', 4), ('mask_head.predictor', 1)):
            state[f'roi_heads.{name}.{leaf}'] = state[f'roi_heads.{name}.{leaf}'][rows:]
    to_bgr(state, 'backbone.bottom_up.stem.conv1.weight')
    state['proposal_generator.anchor_generator.cell_anchors.0'] = np.zeros((3, 4), np.float32)
    return write_pickle(tmp_path / 'model_final.pkl', state, __author__='Detectron2 Model Zoo'), expected


def check_stem(params, expected):
    """Weights for 0..255 BGR input of deviation 1 answer to our normalised RGB as they did to theirs."""
    theirs, ours = expected['backbone']['conv1']['kernel'], params['backbone']['conv1']['kernel']
    rgb = np.random.default_rng(1).uniform(-120, 130, (7, 7, 3))
    np.testing.assert_allclose(np.einsum('hwi,hwio->o', rgb / STD, ours), np.einsum('hwi,hwio->o', rgb, theirs),
                               rtol=1e-4)


def test_detectron2_model_zoo(tree50, tmp_path):
    path, expected = detectron2_file(tmp_path, tree50)
    params, report = load_weights(path, random(tree50, 2), config(stride_in_1x1=True, roi_aligned=True))
    check_stem(params, expected)
    found, wanted = flat(params), flat(expected)
    for name in wanted.keys() - {'backbone/conv1/kernel'}:
        have, want = found[name], wanted[name]
        if 'bbox_pred' in name and 'predictor' in name or 'mask_fcn_logits' in name:
            rows = want.shape[-1] // K      # the background has none, which nothing ever reads
            assert not have[..., :rows].any(), name
            have, want = have[..., rows:], want[..., rows:]
        np.testing.assert_array_equal(have, want, err_msg=name)
    assert report.unused == ('proposal_generator.anchor_generator.cell_anchors.0',) and not report.kept
    fitted, classes, _ = adjusted(config(), path)
    assert (fitted.model.stride_in_1x1, fitted.model.roi_aligned, classes) == (True, True, K)


def test_detectron2_config_keys_are_asked_for(tree50, tmp_path):
    path, _ = detectron2_file(tmp_path, tree50)
    with pytest.raises(WeightsError, match=r'model_final\.pkl.*stride_in_1x1=True \(here False\)'):
        load_weights(path, random(tree50, 2), config())
    with pytest.raises(WeightsError, match=r'pixel_mean=\(123\.675.*\(here \(1'):
        load_weights(path, random(tree50, 2), config(stride_in_1x1=True, pixel_mean=(1.0, 2.0, 3.0)))
    with pytest.raises(WeightsError, match="norm='frozen_bn'"):
        load_weights(path, random(tree50, 2), config(stride_in_1x1=True, norm='group_norm'))
    _, report = load_weights(path, random(tree50, 2), config(stride_in_1x1=True))
    assert any('roi_aligned=True, here False' in note for note in report.notes)


def test_detectron2s_copy_of_torchvision_keeps_rgb_and_the_3x3_stride(tree50, tmp_path):
    expected = random(tree50['backbone'], 1)
    state = {name.removeprefix('backbone.bottom_up.'): value
             for name, value in renamed({'backbone': expected}, detectron2_name).items()}
    path = write_pickle(tmp_path / 'R-50.pkl', state | {'stem.fc.weight': np.zeros((2, 2), np.float32)},
                        __author__='torchvision', matching_heuristics=True)
    params, report = load_weights(path, random(tree50, 2), config())
    same(params['backbone'], expected)
    assert report.unused == ('stem.fc.weight',)


def test_caffe2_backbone(tree50, tmp_path):
    expected = {'backbone': random(tree50['backbone'], 1)}
    state = renamed(expected, caffe2_name)
    assert {'conv1_w', 'res_conv1_bn_s', 'res2_0_branch1_w', 'res4_5_branch2c_bn_b'} <= state.keys()
    to_bgr(state, 'conv1_w')
    path = tmp_path / 'R-50.pkl'
    path.write_bytes(writers.pickled({name.encode(): writers.python2_array(np.ascontiguousarray(value))
                                      for name, value in (state | {'pred_w': np.ones((3, 2), np.float32)}).items()}))
    params, report = load_weights(path, random(tree50, 2), config(stride_in_1x1=True))
    check_stem(params, expected)
    found, wanted = flat(params['backbone']), flat(expected['backbone'])
    for name in wanted.keys() - {'conv1/kernel'}:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    assert report.unused == ('pred_w',) and {name.split('/')[0] for name in report.loaded} == {'backbone'}


def test_caffe2_detector(tree50, tmp_path):
    expected = random(tree50, 1)
    state = renamed(expected, caffe2_name)
    to_bgr(state, 'conv1_w')
    path = tmp_path / 'model_final.pkl'
    path.write_bytes(pickle.dumps({'blobs': state, 'cfg': 'MODEL: mask_rcnn'}, protocol=2))
    with pytest.raises(WeightsError, match=r'pixel_mean=\(122\.7717'):
        load_weights(path, random(tree50, 2), config(stride_in_1x1=True))
    fitted, classes, _ = adjusted(config(), path)
    params, report = load_weights(path, random(tree50, 2), fitted)
    check_stem(params, expected)
    same(params | {'backbone': 0}, expected | {'backbone': 0})
    assert classes == K and not report.kept and not report.unused
