"""Known answers of torchvision's ConvNeXt-T, tests/golden/convnext.npz: PYTHON benchmarks/golden_convnext.py, by a
Python that has torch and torchvision.

The file holds, for weights by `weight_rule` and an image drawn by numpy from SEED: of each of the four maps every
STEP-th channel, mean and standard deviation; the norm of the gradient of the maps' mean squares, summed, with respect
to each parameter; names and shapes of the classification state dict, and names of a detector made of `features`.
"""
import json
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.models import convnext_tiny
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.feature_extraction import create_feature_extractor
from weight_rule import SEED, draw_weight

OUT = Path(__file__).resolve().parents[1] / 'tests' / 'golden' / 'convnext.npz'
NODES = ('1', '3', '5', '7')        # of `features`: the four stages
HEIGHT, WIDTH, STEP = 64, 96, 8


def main() -> None:
    model = convnext_tiny(weights=None).eval()
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    state = {name: torch.from_numpy(draw_weight(name, tuple(shape), SEED)) for name, shape in shapes.items()}
    model.load_state_dict(state)
    image = np.random.default_rng(SEED).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)

    body = create_feature_extractor(model, {f'features.{node}': node for node in NODES})
    maps = body(torch.from_numpy(image))
    sum((x ** 2).mean() for x in maps.values()).backward()
    norms = {name: float(value.grad.double().norm()) for name, value in model.features.named_parameters('features')}

    detector = BackboneWithFPN(model.features, dict.fromkeys(NODES, ''), [96, 192, 384, 768], 256)
    found = {f'c{level}': maps[node].detach().numpy().transpose(0, 2, 3, 1) for level, node in enumerate(NODES, 2)}
    np.savez_compressed(
        OUT, seed=SEED, height=HEIGHT, width=WIDTH, step=STEP,
        image_rule='numpy.random.default_rng(seed).standard_normal((1, 3, height, width)), float32',
        versions=f'torch {torch.__version__}, torchvision {torchvision.__version__}',
        state_dict_shapes_json=json.dumps(shapes), gradient_norms_json=json.dumps(norms),
        detector_names_json=json.dumps([f'backbone.{name}' for name in detector.state_dict()]),
        **{f'{name}_channels': x[..., ::STEP] for name, x in found.items()},
        **{f'{name}_mean_std': np.array([x.mean(), x.std()]) for name, x in found.items()})


if __name__ == '__main__':
    main()
