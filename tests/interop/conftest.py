"""Parameter trees, and a file of a torchvision classifier."""
import re

import numpy as np
import pytest

from relnet_jax.interop.read import write_safetensors
from tests.interop import writers
from tests.interop.family_names import torch_layout
from tests.interop.weight_trees import flat, random, small_tree


@pytest.fixture(scope='session')
def tree50():
    return small_tree('resnet50')


@pytest.fixture(scope='session')
def tree18():
    return small_tree('resnet18')


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
