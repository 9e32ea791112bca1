"""Weight files of other projects under torchvision's names, with what their networks expect of the input.

One table of renames per family; a name that no rule knows stays as it is and ends up in the report as unused. Sources:
the parameter names and defaults of torchvision, timm, Detectron (Caffe2 blobs) and Detectron2.
"""
import json
import re
from typing import NamedTuple

import numpy as np

from relnet_jax.interop.coco_table import COCO
from relnet_jax.interop.read import Weights
from relnet_jax.interop.torchvision import CONVNEXT_STEM, RESNET_STEM, fold_batch_norm, modern_name

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
LOGITS = 'roi_heads.box_predictor.cls_score.weight'
DETECTRON_MEAN = (122.7717, 115.9465, 102.9801)     # Caffe's, as Detectron trained its detectors with


class Family(NamedTuple):
    """Where weights come from and how their network sees an image. RGB order, units of 0..255."""
    name: str
    bgr: bool                       # the first convolution reads B, G, R
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    stride_in_1x1: bool
    roi_aligned: bool
    bn_eps: float                   # used where the file has running statistics
    background: str                 # 'first' | 'last' row of the class logits
    classes: tuple[str, ...] = ()   # names of its outputs but the background, '' for one without; () where unknown


# Stages res2..res5 are layer1..layer4, and levels 2..5 count from 0: {\1-2} stands for group 1 minus 2.
_BODY = r'(?:backbone\.bottom_up\.|backbone\.)?'
_DETECTRON2 = [
    (_BODY + r'stem\.conv1\.weight', 'backbone.body.conv1.weight'),
    (_BODY + r'stem\.conv1\.norm\.(\w+)', r'backbone.body.bn1.\1'),
    (_BODY + r'res(\d)\.(\d+)\.conv(\d)\.weight', r'backbone.body.layer{\1-1}.\2.conv\3.weight'),
    (_BODY + r'res(\d)\.(\d+)\.conv(\d)\.norm\.(\w+)', r'backbone.body.layer{\1-1}.\2.bn\3.\4'),
    (_BODY + r'res(\d)\.(\d+)\.shortcut\.weight',
     r'backbone.body.layer{\1-1}.\2.downsample.0.weight'),
    (_BODY + r'res(\d)\.(\d+)\.shortcut\.norm\.(\w+)',
     r'backbone.body.layer{\1-1}.\2.downsample.1.\3'),
    (r'backbone\.fpn_lateral(\d)\.(.+)', r'backbone.fpn.inner_blocks.{\1-2}.0.\2'),
    (r'backbone\.fpn_output(\d)\.(.+)', r'backbone.fpn.layer_blocks.{\1-2}.0.\2'),
    (r'proposal_generator\.rpn_head\.conv\.(\w+)', r'rpn.head.conv.0.0.\1'),
    (r'proposal_generator\.rpn_head\.objectness_logits\.(\w+)', r'rpn.head.cls_logits.\1'),
    (r'proposal_generator\.rpn_head\.anchor_deltas\.(\w+)', r'rpn.head.bbox_pred.\1'),
    (r'roi_heads\.box_head\.fc1\.(\w+)', r'roi_heads.box_head.fc6.\1'),
    (r'roi_heads\.box_head\.fc2\.(\w+)', r'roi_heads.box_head.fc7.\1'),
    (r'roi_heads\.box_predictor\.(cls_score|bbox_pred)\.(\w+)', r'roi_heads.box_predictor.\1.\2'),
    (r'roi_heads\.mask_head\.mask_fcn(\d)\.(.+)', r'roi_heads.mask_head.{\1-1}.0.\2'),
    (r'roi_heads\.mask_head\.deconv\.(\w+)', r'roi_heads.mask_predictor.conv5_mask.\1'),
    (r'roi_heads\.mask_head\.predictor\.(\w+)', r'roi_heads.mask_predictor.mask_fcn_logits.\1'),
]
_BN = {'s': 'weight', 'b': 'bias'}
_WB = {'w': 'weight', 'b': 'bias'}
_CAFFE2 = [
    (r'conv1_w', 'backbone.body.conv1.weight'),
    (r'res_conv1_bn_([sb])', lambda m: f'backbone.body.bn1.{_BN[m[1]]}'),
    (r'res(\d)_(\d+)_branch2([abc])_w', lambda m: f'{_caffe2_block(m)}.conv{" abc".index(m[3])}.weight'),
    (r'res(\d)_(\d+)_branch2([abc])_bn_([sb])', lambda m: f'{_caffe2_block(m)}.bn{" abc".index(m[3])}.{_BN[m[4]]}'),
    (r'res(\d)_(\d+)_branch1_w', lambda m: f'{_caffe2_block(m)}.downsample.0.weight'),
    (r'res(\d)_(\d+)_branch1_bn_([sb])', lambda m: f'{_caffe2_block(m)}.downsample.1.{_BN[m[3]]}'),
    (r'fpn_inner_res(\d)_\d+_sum(?:_lateral)?_([wb])',
     lambda m: f'backbone.fpn.inner_blocks.{int(m[1]) - 2}.0.{_WB[m[2]]}'),
    (r'fpn_res(\d)_\d+_sum_([wb])', lambda m: f'backbone.fpn.layer_blocks.{int(m[1]) - 2}.0.{_WB[m[2]]}'),
    (r'conv_rpn_fpn2_([wb])', lambda m: f'rpn.head.conv.0.0.{_WB[m[1]]}'),
    (r'rpn_cls_logits_fpn2_([wb])', lambda m: f'rpn.head.cls_logits.{_WB[m[1]]}'),
    (r'rpn_bbox_pred_fpn2_([wb])', lambda m: f'rpn.head.bbox_pred.{_WB[m[1]]}'),
    (r'(fc6|fc7)_([wb])', lambda m: f'roi_heads.box_head.{m[1]}.{_WB[m[2]]}'),
    (r'(cls_score|bbox_pred)_([wb])', lambda m: f'roi_heads.box_predictor.{m[1]}.{_WB[m[2]]}'),
    (r'_\[mask\]_fcn(\d)_([wb])', lambda m: f'roi_heads.mask_head.{int(m[1]) - 1}.0.{_WB[m[2]]}'),
    (r'(conv5_mask|mask_fcn_logits)_([wb])', lambda m: f'roi_heads.mask_predictor.{m[1]}.{_WB[m[2]]}'),
]
_CLASSIFICATION = [(r'((?:conv1|bn1|layer[1-4])\..+)', r'backbone.body.\1')]
_CONVNEXT = [(r'features\.(.+)', r'backbone.body.\1')]


def _caffe2_block(match: re.Match) -> str:
    return f'backbone.body.layer{int(match[1]) - 1}.{match[2]}'


def _rename(name: str, rules: list) -> str:
    for pattern, target in rules:
        if match := re.fullmatch(pattern, name):
            if callable(target):
                return target(match)
            return re.sub(r'\{(\d)-(\d)\}', lambda m: str(int(m[1]) - int(m[2])), match.expand(target))
    return name


def to_torchvision(weights: Weights) -> tuple[dict[str, np.ndarray], Family]:
    """The arrays (float32) under the names of torchvision's detection models, batch norm folded, background first.

    A folded norm keeps `X.weight` (scale) and `X.bias` and loses its statistics. Raises ValueError for a file
    whose names belong to no family known here.
    """
    tensors = {name.removeprefix('module.'): value for name, value in weights.tensors.items()}
    family, rules = _recognise(tensors, weights.meta)
    state, origin = {}, {}
    for name, value in tensors.items():
        if name.endswith('num_batches_tracked'):
            continue
        new = modern_name(name) if rules is None else _rename(name, rules)
        if new in state:
            raise ValueError(f"'{name}' and '{origin[new]}' both mean '{new}'")
        state[new], origin[new] = np.asarray(value, np.float32), name
    for module in [name.removesuffix('.running_var') for name in state if name.endswith('.running_var')]:
        parts = [f'{module}.{leaf}' for leaf in ('weight', 'bias', 'running_mean', 'running_var')]
        shapes = {state[p].shape if p in state else 'missing' for p in parts}
        if len(shapes) != 1:
            raise ValueError(f'batch norm {module}: weight, bias, running_mean and running_var should have one shape, '
                             'got ' + ', '.join(str(state[p].shape) if p in state else 'nothing' for p in parts))
        folded = fold_batch_norm(lambda name, optional=False: state[name], module, family.bn_eps)
        state[parts[0]], state[parts[1]] = folded['scale'], folded['bias']
        del state[parts[2]], state[parts[3]]
    if LOGITS in state and state[LOGITS].ndim != 2:
        raise ValueError(f'{LOGITS}: expected [classes, features], got {list(state[LOGITS].shape)}')
    if family.background == 'last':
        _background_first(state)
    return state, family._replace(classes=_classes(state, weights.meta))


def _recognise(tensors: dict, meta: dict) -> tuple[Family, list | None]:
    if RESNET_STEM in tensors or {CONVNEXT_STEM, 'backbone.body.1.0.layer_scale'} <= tensors.keys():
        # The published COCO weights were trained with a frozen batch norm without epsilon, and come without counters.
        published = (LOGITS in tensors and tensors[LOGITS].shape[:1] == (91,)
                     and 'backbone.body.bn1.num_batches_tracked' not in tensors)
        family = Family('torchvision detector', False, IMAGENET_MEAN, IMAGENET_STD, False, False,
                        0.0 if published else 1e-5, 'first')
        if 'config' in meta:  # written by `convert`: whatever torchvision assumes, the weights were trained with this
            family = family._replace(name='torchvision detector, written by this project', **_input_of(meta['config']))
        return family, None
    if 'conv1.weight' in tensors and 'layer1.0.conv1.weight' in tensors:
        return Family('torchvision or timm classification', False, IMAGENET_MEAN, IMAGENET_STD, False, False, 1e-5,
                      'first'), _CLASSIFICATION
    if {'features.0.0.weight', 'features.1.0.layer_scale'} <= tensors.keys():
        return Family('torchvision classification (ConvNeXt)', False, IMAGENET_MEAN, IMAGENET_STD, False, False, 1e-5,
                      'first'), _CONVNEXT
    if 'conv1_w' in tensors:
        detector = 'cls_score_w' in tensors
        mean = DETECTRON_MEAN if detector else IMAGENET_MEAN
        return Family('Detectron (Caffe2 names)', True, mean, (1., 1., 1.), True, False, 1e-5, 'first'), _CAFFE2
    if any(re.fullmatch(_DETECTRON2[0][0], name) for name in tensors):
        if meta.get('__author__') == 'torchvision':  # Detectron2's conversion of torchvision's classification files
            return Family('Detectron2, from torchvision', False, IMAGENET_MEAN, IMAGENET_STD, False, True, 1e-5,
                          'last'), _DETECTRON2
        return Family('Detectron2', True, IMAGENET_MEAN, (1., 1., 1.), True, True, 1e-5, 'last'), _DETECTRON2
    raise ValueError('names of no family that is known (torchvision, timm, Detectron, Detectron2), such as '
                     + ', '.join(sorted(tensors)[:5]))


def _classes(state: dict, meta: dict) -> tuple[str, ...]:
    """Names that `convert` wrote beside the weights; those of COCO where the number of outputs is COCO's."""
    outputs = state[LOGITS].shape[0] - 1 if LOGITS in state else 0
    try:
        names = json.loads(meta.get('classes', '[]'))
    except (ValueError, RecursionError):
        names = []
    if isinstance(names, list) and len(names) == outputs and all(isinstance(name, str) for name in names):
        return tuple(names)
    if outputs == 90:       # torchvision has an output for every category id
        return tuple(COCO.get(category_id, '') for category_id in range(1, 91))
    return tuple(COCO.values()) if outputs == len(COCO) else ()


def _input_of(config: str) -> dict:
    """Fields of `Family` out of the JSON of a config of ours."""
    try:
        model = json.loads(config)['model']
        colours = {key: tuple(float(value) for value in model[key]) for key in ('pixel_mean', 'pixel_std')}
        switches = {key: bool(model[key]) for key in ('stride_in_1x1', 'roi_aligned')}
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ValueError("metadata 'config' that is no config of this project") from None
    if any(len(colour) != 3 for colour in colours.values()):
        raise ValueError(f"metadata 'config': expected three numbers each, got {colours}")
    return colours | switches


def _background_first(state: dict) -> None:
    """Detectron2 has class logits with background last, and no row for it in boxes and masks."""
    for leaf in ('weight', 'bias'):
        for name, rows in (('box_predictor.cls_score', None), ('box_predictor.bbox_pred', 4),
                           ('mask_predictor.mask_fcn_logits', 1)):
            key = f'roi_heads.{name}.{leaf}'
            if key in state:
                value = state[key]
                state[key] = (np.roll(value, 1, 0) if rows is None else
                              np.concatenate([np.zeros((rows, *value.shape[1:]), np.float32), value]))
