"""Our parameters under the names and in the layout of other families, by tables independent of the converter's."""
import re

import numpy as np

from tests.interop.weight_trees import flat


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
