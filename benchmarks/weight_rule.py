"""Weights made by rule from the name of each, for comparisons where no trained ones are at hand. Needs numpy alone.

The rule is the one that tests/golden/torchvision.npz states under `weight_rule`.
"""
import zlib

import numpy as np

SEED = 0
FACTORS = {'rpn.head.bbox_pred': 0.5, 'rpn.head.cls_logits': 3, 'roi_heads.box_predictor.bbox_pred': 0.35,
           'roi_heads.box_predictor.cls_score': 0.5}


def draw_weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The entry `name` of a torchvision state dict. Arrays of one dimension called weight are those of norms."""
    rng = np.random.default_rng(zlib.crc32(name.encode()) + seed)
    if name.endswith('num_batches_tracked'):
        return np.int64(0)
    if name.endswith('running_var'):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith('weight') and len(shape) == 1:
        return (rng.uniform(0.5, 1.0, shape) * (0.4 if 'bn3' in name else 1)).astype(np.float32)
    if name.endswith('weight'):
        fan_in = shape[0] if 'conv5_mask' in name else np.prod(shape[1:])
        return (rng.standard_normal(shape) * np.sqrt(2 / fan_in) * FACTORS.get(name[:-7], 1)).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)
