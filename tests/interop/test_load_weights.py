"""Files of every family land on the right parameter, in the right layout, or stop with what does not fit.

The trees are those of the real model, every dimension of 64 or more divided by 16; the files are written here, under
names that a second, independent table gives for each path.
"""
import json
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from relnet_jax.interop.load import WeightsError, adjusted, load_weights, start_from_weights
from relnet_jax.interop.read import write_safetensors
from relnet_jax.interop.torchvision_out import to_state_dict
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import state as train_state
from relnet_jax.trees import path_name, path_names
from tests.interop import writers

K = 5


def config(**model):
    c = base.get_config()
    with c.unlocked():
        c.data.update(canvas=(64, 64), max_objects=2, mask_size=8)
        c.model.update(model)
    return c.lock()


def small_tree(backbone):
    c = config(backbone=backbone)
    shapes = train_state.abstract_params(mask_rcnn.build(c, num_classes=K), train_state.batch_shapes(c, 1, 0))
    return jax.tree.map(lambda x: tuple(d // 16 if d >= 64 else d for d in x.shape), shapes)


def is_shape(x):
    return isinstance(x, tuple)


@pytest.fixture(scope='module')
def tree50():
    return small_tree('resnet50')


@pytest.fixture(scope='module')
def tree18():
    return small_tree('resnet18')


def random(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda shape: rng.uniform(0.5, 1.5, shape).astype(np.float32), tree, is_leaf=is_shape)


def with_classes(tree, classes):
    sizes = {K: classes, 4 * K: 4 * classes}
    out = dict(tree)
    for key, modules in (('box_predictor', ('cls_score', 'bbox_pred')), ('mask_predictor', ('mask_fcn_logits',))):
        out[key] = tree[key] | {m: {leaf: (*s[:-1], sizes[s[-1]]) for leaf, s in tree[key][m].items()} for m in modules}
    return out


def flat(tree):
    return {path_name(p): v for p, v in jax.tree_util.tree_leaves_with_path(tree)}


def same(found, expected):
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


def torch_layout(path, value):
    """Entry in torch's order of axes, by index arithmetic instead of the converter's transposes."""
    if path == 'box_head/fc6/kernel':
        side, n = 7, len(value)
        channels = n // side ** 2
        # torch counts (channel, y, x), we (y, x, channel)
        ours = [(y * side + x) * channels + c for c in range(channels) for y in range(side) for x in range(side)]
        return np.stack([value[row] for row in ours], axis=1)
    if value.ndim == 2:
        return np.einsum('io->oi', value)
    if path == 'mask_predictor/conv5_mask/kernel':
        return np.einsum('hwio->iohw', value)
    return np.einsum('hwio->oihw', value) if value.ndim == 4 else value


def body_name(path, *, stem, block, shortcut, norm):
    """Our backbone path in a family's words; its leaf follows."""
    parts = path.split('/')
    if len(parts) == 3:         # backbone/conv1/kernel
        return stem[parts[1]], parts[2]
    stage, index = parts[1][5:].split('_')
    word = shortcut[parts[2]] if parts[2] in shortcut else norm(parts[2]) if parts[2].startswith('bn') else parts[2]
    return block(int(stage), int(index)) + word, parts[3]


def detectron2_name(path):
    leaf = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}
    if path.startswith('backbone/'):
        name, kind = body_name(path, stem={'conv1': 'stem.conv1', 'bn1': 'stem.conv1.norm'},
                               block=lambda s, b: f'res{s + 1}.{b}.',
                               shortcut={'downsample_conv': 'shortcut', 'downsample_bn': 'shortcut.norm'},
                               norm=lambda n: f'conv{n[2:]}.norm')
        return f'backbone.bottom_up.{name}.{leaf[kind]}'
    room, module, kind = path.split('/')
    place = {'fpn': {f'{a}_{i}': f'backbone.fpn_{b}{i + 2}' for a, b in (('inner', 'lateral'), ('layer', 'output'))
                     for i in range(4)},
             'rpn': {'conv': 'proposal_generator.rpn_head.conv',
                     'cls_logits': 'proposal_generator.rpn_head.objectness_logits',
                     'bbox_pred': 'proposal_generator.rpn_head.anchor_deltas'},
             'box_head': {'fc6': 'roi_heads.box_head.fc1', 'fc7': 'roi_heads.box_head.fc2'},
             'box_predictor': {m: f'roi_heads.box_predictor.{m}' for m in ('cls_score', 'bbox_pred')},
             'mask_head': {f'mask_fcn{i}': f'roi_heads.mask_head.mask_fcn{i}' for i in range(1, 5)},
             'mask_predictor': {'conv5_mask': 'roi_heads.mask_head.deconv',
                                'mask_fcn_logits': 'roi_heads.mask_head.predictor'}}
    return f'{place[room][module]}.{leaf[kind]}'


def caffe2_name(path):
    if path.startswith('backbone/'):
        name, kind = body_name(path, stem={'conv1': 'conv1', 'bn1': 'res_conv1_bn'},
                               block=lambda s, b: f'res{s + 1}_{b}_',
                               shortcut={'downsample_conv': 'branch1', 'downsample_bn': 'branch1_bn'},
                               norm=lambda n: f'branch2{" abc"[int(n[2:])]}_bn')
        name = re.sub(r'_conv(\d)$', lambda m: f'_branch2{" abc"[int(m[1])]}', name)
        return f'{name}_{dict(kernel="w", scale="s", bias="b")[kind]}'
    room, module, kind = path.split('/')
    last = {0: 'res2_2', 1: 'res3_3', 2: 'res4_5', 3: 'res5_2'}
    place = {'fpn': {f'inner_{i}': f'fpn_inner_{last[i]}_sum' + ('_lateral' if i < 3 else '') for i in range(4)}
             | {f'layer_{i}': f'fpn_{last[i]}_sum' for i in range(4)},
             'rpn': {'conv': 'conv_rpn_fpn2', 'cls_logits': 'rpn_cls_logits_fpn2', 'bbox_pred': 'rpn_bbox_pred_fpn2'},
             'box_head': {'fc6': 'fc6', 'fc7': 'fc7'}, 'box_predictor': {m: m for m in ('cls_score', 'bbox_pred')},
             'mask_head': {f'mask_fcn{i}': f'_[mask]_fcn{i}' for i in range(1, 5)},
             'mask_predictor': {'conv5_mask': 'conv5_mask', 'mask_fcn_logits': 'mask_fcn_logits'}}
    return f'{place[room][module]}_{dict(kernel="w", bias="b")[kind]}'


def renamed(params, name):
    return {name(path): torch_layout(path, value) for path, value in flat(params).items()}


def to_bgr(state, name):
    state[name] = np.ascontiguousarray(state[name][:, ::-1])


def write_pickle(path, arrays, **beside):
    path.write_bytes(pickle.dumps({'model': arrays, **beside}, protocol=2))
    return path


@pytest.fixture
def classification(tmp_path):
    """Writer of a torchvision classification file with batch statistics, and the parameters it stands for."""
    def write(tree, file_name='resnet.pth', unused=True):
        rng = np.random.default_rng(7)
        expected = random(tree['backbone'], 1)
        state = {}
        for path, value in flat(expected).items():
            *module, leaf = path.split('/')
            prefix = '.'.join(module).replace('_conv', '.0').replace('_bn', '.1')
            prefix = re.sub(r'(layer\d)_(\d)', r'\1.\2', prefix)
            if leaf == 'kernel':
                state[f'{prefix}.weight'] = torch_layout(path, value)
            elif leaf == 'scale':
                mean, var = rng.normal(size=value.shape), rng.uniform(0.5, 1.5, value.shape)
                node = expected
                for key in module:
                    node = node[key]
                state[f'{prefix}.weight'] = value * np.sqrt(var + 1e-5)
                state[f'{prefix}.bias'] = node['bias'] + mean * value
                state[f'{prefix}.running_mean'], state[f'{prefix}.running_var'] = mean, var
        state = {k: v.astype(np.float32) for k, v in state.items()}
        if unused:
            state |= {'fc.weight': np.zeros((10, 128), np.float32), 'fc.bias': np.zeros(10, np.float32),
                      'bn1.num_batches_tracked': np.asarray(3, np.int64)}
        path = tmp_path / file_name
        if path.suffix == '.safetensors':
            write_safetensors(path, state)
        elif 'old' in file_name:
            writers.torch_legacy(path, writers.state_dict(state, legacy=True), state.values())
        else:
            writers.torch_zip(path, writers.state_dict(state), state.values())
        return path, expected
    return write


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


def test_torchvision_coco_rows_for_the_80_categories(tree50, tmp_path):
    full = random(with_classes(tree50, 91), 1)
    write_safetensors(tmp_path / 'a.safetensors', to_state_dict(full))
    params, report = load_weights(tmp_path / 'a.safetensors', random(with_classes(tree50, 81), 2), config())
    # Labels 1, 12, 80: person (id 1), stop sign (13, since 12 is not used), toothbrush (90).
    for label, category in ((0, 0), (1, 1), (12, 13), (80, 90)):
        for leaf in ('kernel', 'bias'):
            for room, module in (('box_predictor', 'cls_score'), ('mask_predictor', 'mask_fcn_logits')):
                have, want = params[room][module][leaf], full[room][module][leaf]
                np.testing.assert_array_equal(have[..., label], want[..., category])
            have, want = params['box_predictor']['bbox_pred'][leaf], full['box_predictor']['bbox_pred'][leaf]
            np.testing.assert_array_equal(have[..., 4 * label:][..., :4], want[..., 4 * category:][..., :4])
    assert not report.kept


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


STD = np.asarray(base.get_config().model.pixel_std, np.float32)


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


def test_another_number_of_classes_keeps_only_the_class_layers_at_init(tree50, tmp_path):
    write_safetensors(tmp_path / 'a.safetensors', to_state_dict(random(tree50, 1)))
    start = random(with_classes(tree50, 14), 2)
    params, report = load_weights(tmp_path / 'a.safetensors', start, config())
    modules = ('box_predictor/bbox_pred', 'box_predictor/cls_score', 'mask_predictor/mask_fcn_logits')
    assert report.kept == tuple(f'{module}/{leaf}' for module in modules for leaf in ('bias', 'kernel'))
    same(params['box_predictor'], start['box_predictor'])
    assert any('5 classes with background, the model 14' in note for note in report.notes)


def test_files_that_name_their_classes_give_rows_by_name(tree50, tmp_path):
    """Convert writes the names; a file without them is read in order, and says so."""
    full, start = random(tree50, 1), random(with_classes(tree50, 4), 2)
    names = ('mass', 'nodule', 'a, b', 'gone')
    write_safetensors(tmp_path / 'a.safetensors', to_state_dict(full), {'classes': json.dumps(names)})
    params, report = load_weights(tmp_path / 'a.safetensors', start, config(), classes=('A, B', 'fracture', 'mass'))
    for room, module, numbers in (('box_predictor', 'cls_score', 1), ('box_predictor', 'bbox_pred', 4),
                                  ('mask_predictor', 'mask_fcn_logits', 1)):
        for leaf in ('kernel', 'bias'):
            leaves = [tree[room][module][leaf] for tree in (params, full, start)]
            have, old, new = (np.stack(np.split(x, x.shape[-1] // numbers, -1)) for x in leaves)
            np.testing.assert_array_equal(have, np.stack([old[0], old[3], new[2], old[1]]))
    same(params['box_head'], full['box_head'])
    assert report.classes == {'taken by name': ['background', 'A, B', 'mass'], 'new': ['fracture'],
                              'left out': ['nodule', 'gone']}
    assert 'classes new: 1\n    fracture' in str(report) and not report.kept and not report.complete

    # As many classes, none of them the file's: no row becomes another class.
    start = random(tree50, 2)
    params, report = load_weights(tmp_path / 'a.safetensors', start, config(), classes=('p', 'q', 'r', 's'))
    same(params['box_predictor'], start['box_predictor'])
    assert any("none of the file's classes" in note for note in report.notes) and len(report.kept) == 6

    params, report = load_weights(tmp_path / 'a.safetensors', start, config(), classes=names)
    same(params, full)
    assert report.complete
    write_safetensors(tmp_path / 'b.safetensors', to_state_dict(full))
    params, report = load_weights(tmp_path / 'b.safetensors', start, config(), classes=('p', 'q', 'r', 's'))
    same(params, full)
    assert any('does not name its classes: its 5 rows are taken in order' in note for note in report.notes)


def test_a_coco_detector_gives_the_rows_of_its_categories_to_a_model_of_some(tree50, tmp_path):
    full = random(with_classes(tree50, 81), 1)
    write_safetensors(tmp_path / 'a.safetensors', to_state_dict(full))
    params, _ = load_weights(tmp_path / 'a.safetensors', random(with_classes(tree50, 3), 2), config(),
                             classes=('toothbrush', 'person'))
    np.testing.assert_array_equal(params['box_predictor']['cls_score']['bias'],
                                  full['box_predictor']['cls_score']['bias'][[0, 80, 1]])


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
