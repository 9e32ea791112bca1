"""Weights of torchvision's Mask R-CNN, body ResNet or ConvNeXt, as parameters of `MaskRCNN`. Pure numpy.

The trees have the same names up to spelling, so conversion is a rename plus a transpose: convolutions [out, in, k, k]
-> [k, k, in, out], linear [out, in] -> [in, out], fc6 from (C, y, x) to (y, x, C) input order, layer scale [C, 1, 1] ->
[C], batch norm folded into scale and bias.
"""
import re

import numpy as np

# Bodies made of ConvNeXt's `features`: 0 is the stem, 2k - 1 stage k, 2k - 2 the downsampling before it.
_CONVNEXT = [
    (r'backbone/stem_conv', 'backbone.body.0.0'),
    (r'backbone/stem_norm', 'backbone.body.0.1'),
    *((rf'backbone/downsample{k}_{ours}', f'backbone.body.{2 * k - 2}.{theirs}')
      for k in (2, 3, 4) for ours, theirs in (('norm', 0), ('conv', 1))),
    *((rf'backbone/stage{k}_(\d+)/{ours}', rf'backbone.body.{2 * k - 1}.\1.{theirs}') for k in (1, 2, 3, 4)
      for ours, theirs in (('dwconv', 'block.0'), ('norm', 'block.2'), ('pwconv1', 'block.3'), ('pwconv2', 'block.5'),
                           ('layer_scale', 'layer_scale'))),
]
# (our path, as a regular expression) -> the module's name in the state dict.
RENAMES = [
    *_CONVNEXT,
    (r'backbone/layer(\d)_(\d+)/downsample_conv', r'backbone.body.layer\1.\2.downsample.0'),
    (r'backbone/layer(\d)_(\d+)/downsample_bn', r'backbone.body.layer\1.\2.downsample.1'),
    (r'backbone/layer(\d)_(\d+)/(\w+)', r'backbone.body.layer\1.\2.\3'),
    (r'backbone/(\w+)', r'backbone.body.\1'),
    (r'fpn/(inner|layer)_(\d)', r'backbone.fpn.\1_blocks.\2.0'),
    (r'rpn/conv', 'rpn.head.conv.0.0'),
    (r'rpn/(\w+)', r'rpn.head.\1'),
    (r'(box_head|box_predictor|mask_predictor)/(\w+)', r'roi_heads.\1.\2'),
]
RESNET_STEM, CONVNEXT_STEM = STEMS = ('backbone.body.conv1.weight', 'backbone.body.0.0.weight')
POOL = 7    # side of the RoI features that fc6 reads


def torch_name(path: str) -> str:
    """'backbone/layer1_0/conv1' -> 'backbone.body.layer1.0.conv1'. KeyError for a module torchvision does not have."""
    if match := re.fullmatch(r'mask_head/mask_fcn(\d)', path):
        return f'roi_heads.mask_head.{int(match[1]) - 1}.0'
    for pattern, name in RENAMES:
        if re.fullmatch(pattern, path):
            return re.sub(pattern, name, path)
    raise KeyError(f"no torchvision module corresponds to '{path}'")


def modern_name(key: str) -> str:
    """Names of checkpoints from before torchvision 0.13 in today's form; others unchanged."""
    key = re.sub(r'(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)', r'\1.0.\2', key)
    key = re.sub(r'rpn\.head\.conv\.(weight|bias)', r'rpn.head.conv.0.0.\1', key)
    return re.sub(r'roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)',
                  lambda m: f'roi_heads.mask_head.{int(m[1]) - 1}.0.{m[2]}', key)


def fold_batch_norm(take, module: str, eps: float) -> dict[str, np.ndarray]:
    """scale = weight / sqrt(var + eps), bias = bias - mean * scale; without running statistics the two as they are."""
    weight, bias = take(f'{module}.weight'), take(f'{module}.bias')
    mean, var = take(f'{module}.running_mean', optional=True), take(f'{module}.running_var', optional=True)
    if mean is None or var is None:
        return {'scale': weight, 'bias': bias}
    scale = weight / np.sqrt(var + eps)
    return {'scale': scale, 'bias': bias - mean * scale}


def kernel(weight: np.ndarray, path: str) -> np.ndarray:
    """A torch weight in our layout."""
    if path.endswith('conv5_mask'):     # ConvTranspose2d: [in, out, k, k]
        return weight.transpose(2, 3, 0, 1)
    if weight.ndim == 4:
        return weight.transpose(2, 3, 1, 0)
    if path.endswith('fc6'):
        out, flat = weight.shape
        return weight.reshape(out, flat // POOL ** 2, POOL, POOL).transpose(2, 3, 1, 0).reshape(flat, out)
    return weight.T


def from_state_dict(state: dict[str, np.ndarray], template: dict, *, eps: float = 1e-5) -> dict:
    """Parameters in the structure of `template` (nested dicts of arrays or ShapeDtypeStructs), float32 numpy.

    `eps` of batch norm: 1e-5 in general, 0 for torchvision's published COCO_V1 detection weights (trained with 0).
    Raises ValueError listing every missing, unexpected and misshapen entry.
    """
    state = {modern_name(name): np.asarray(value, np.float32) for name, value in state.items()
             if not name.endswith('num_batches_tracked')}
    missing, misshapen, used = [], [], set()

    def take(name: str, optional: bool = False) -> np.ndarray | None:
        used.add(name)
        if name not in state and not optional:
            missing.append(name)
        return state.get(name, None if optional else np.zeros(()))

    def convert(node: dict, path: str) -> dict:
        if not any(name in node for name in ('kernel', 'scale')):
            return {name: convert(child, f'{path}/{name}' if path else name) for name, child in node.items()}
        module = torch_name(path)
        if path.endswith('/layer_scale'):   # a parameter without a module of its own, [C, 1, 1]
            value = take(module)
            leaves = {'scale': value.squeeze((1, 2)) if value.shape[1:] == (1, 1) else value}
        elif 'scale' in node:
            leaves = fold_batch_norm(take, module, eps)
        else:
            weight = take(f'{module}.weight')
            leaves = {'kernel': kernel(weight, path) if weight.ndim else weight}
            if 'bias' in node:
                leaves['bias'] = take(f'{module}.bias')
        for name, leaf in leaves.items():
            if leaf.ndim and leaf.shape != tuple(node[name].shape):
                misshapen.append(f'{module} as {path}/{name}: expected {tuple(node[name].shape)}, got {leaf.shape}')
        return leaves

    params = convert(template, '')
    unexpected = sorted(set(state) - used)
    problems = [f'{title}: ' + ', '.join(names) for title, names in
                (('missing', missing), ('unexpected', unexpected), ('wrong shape', misshapen)) if names]
    if problems:
        raise ValueError('state dict does not fit the model; ' + '; '.join(problems))
    return params
