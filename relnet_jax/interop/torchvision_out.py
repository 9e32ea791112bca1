"""Parameters of `MaskRCNN` as a state dict of torchvision: the exact inverse of `torchvision.from_state_dict`."""
import re
from typing import Any

import jax
import numpy as np

from relnet_jax.errors import UserError
from relnet_jax.interop.torchvision import POOL, torch_name
from relnet_jax.trees import path_name

# Frozen batch norm is scale and bias here. torchvision computes weight / sqrt(var + 1e-5), with this var the weight.
NEUTRAL_VAR = np.float32(1) - np.float32(1e-5)


def weight(kernel: np.ndarray, path: str) -> np.ndarray:
    """Kernel of module `path` in torch's layout; undoes `torchvision.kernel`."""
    if path.endswith('conv5_mask'):
        return kernel.transpose(2, 3, 0, 1)
    if kernel.ndim == 4:
        return kernel.transpose(3, 2, 0, 1)
    if path.endswith('fc6'):
        flat, out = kernel.shape
        return kernel.reshape(POOL, POOL, flat // POOL ** 2, out).transpose(3, 2, 0, 1).reshape(out, flat)
    return kernel.T


def entries(params: Any) -> tuple[dict[str, tuple[str, np.ndarray]], list[str]]:
    """(state dict name -> (our path, array in torch's layout), paths that torchvision has no module for).

    A frozen batch norm appears as its scale (`X.weight`) and bias, without statistics.
    """
    named, without = {}, []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = path_name(path)
        module, _, kind = path.rpartition('/')
        try:
            name = torch_name(module)
        except KeyError:
            without.append(path)
            continue
        leaf = np.asarray(leaf)
        if module.endswith('/layer_scale'):     # a parameter without a module of its own
            named[name] = (path, leaf[:, None, None])
        else:
            value = weight(leaf, module) if kind == 'kernel' else leaf
            named[f'{name}.{"bias" if kind == "bias" else "weight"}'] = (path, value)
    return named, without


def to_state_dict(params: Any) -> dict[str, np.ndarray]:
    """State dict that torchvision's `maskrcnn_resnet50_fpn` (or its like with another body) loads strictly, in numpy.

    With a ConvNeXt its like is MaskRCNN(BackboneWithFPN(convnext_tiny().features, ...)), stages '1', '3', '5' and '7'.

    Raises ValueError for a model with parts that torchvision does not have (group norm, relations); names them.
    """
    named, without = entries(params)
    if without:
        raise UserError(f'torchvision has no module for {len(without)} parameters: {", ".join(without[:5])}'
                         + (', ...' if len(without) > 5 else ''))
    state = {}
    for name, (path, value) in named.items():
        state[name] = np.ascontiguousarray(value)
        if re.search(r'bn\d*/scale$', path):
            module = name.removesuffix('.weight')
            state[f'{module}.running_mean'] = np.zeros_like(value)
            state[f'{module}.running_var'] = np.full_like(value, NEUTRAL_VAR)
            state[f'{module}.num_batches_tracked'] = np.zeros((), np.int64)
    return state
