"""torchvision's half of benchmarks/parity.py, run as `PYTHON torchvision_side.py FOLDER` by a Python that has torch.

Reads FOLDER/job.json, written by parity.py: `classes` (with background), `models` (names of MODELS), `first_image` and
`runs`. Writes for each model its weights, NAME.pth, and for each run NAME.npz. A run has `name`, `model`, `images`
(.npy files, uint8 [h, w, 3], RGB) and a `mode`:

* each: the images as they are, one by one, padded to a multiple of `divisible`. The results are those of the heads:
  boxes in pixels of the image, masks as probabilities inside the box, [n, m, m].
* batch: the same, all together in one batch.
* whole: one by one through the whole of torchvision's call, its resizing to 800 x 1333 too. Boxes in pixels of the
  original image, no masks.
"""
import functools
import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.models import convnext_tiny, resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign
from weight_rule import SEED, draw_weight

GROUPS = 32
C4_SIZES = (16, 32, 64, 128, 256, 512)
C4_PROPOSALS = 300
# Standard deviation that the outputs of each layer shall have on `first_image`. The rule alone gives objectness of
# which hundreds are 1 after the sigmoid, where torchvision's choice among equals is a matter of its sorting.
SPREADS = {'rpn.head.cls_logits': 1.5, 'rpn.head.bbox_pred': 0.3, 'roi_heads.box_predictor.cls_score': 2.0,
           'roi_heads.box_predictor.bbox_pred': 1.0, 'roi_heads.mask_predictor.mask_fcn_logits': 2.0}


# ---- models ----

def fpn(classes: int) -> MaskRCNN:
    return maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=classes)


def group_norm(classes: int) -> MaskRCNN:
    """The same with group norm in body, neck and mask head."""
    norm = functools.partial(nn.GroupNorm, GROUPS)
    backbone = _resnet_fpn_extractor(resnet50(weights=None, norm_layer=norm), 5, norm_layer=norm)
    return MaskRCNN(backbone, num_classes=classes, mask_head=MaskRCNNHeads(256, (256,) * 4, 1, norm_layer=norm))


def convnext(classes: int) -> MaskRCNN:
    """The same on the four stages of ConvNeXt-T."""
    stages = {'1': '0', '3': '1', '5': '2', '7': '3'}
    return MaskRCNN(BackboneWithFPN(convnext_tiny(weights=None).features, stages, [96, 192, 384, 768], 256), classes)


class Body(nn.Module):
    """conv1 to conv4 of a ResNet."""
    out_channels = 1024

    def __init__(self, resnet: nn.Module):
        super().__init__()
        self.body = IntermediateLayerGetter(resnet, {'layer3': '0'})

    def forward(self, x):
        return self.body(x)


class Conv5(nn.Module):
    """conv5 of a ResNet as a head on RoIs."""

    def __init__(self, layer4: nn.Module, mean: bool):
        super().__init__()
        self.layer4, self.mean = layer4, mean

    def forward(self, x):
        x = self.layer4(x)
        return x.mean((2, 3)) if self.mean else x


def c4(classes: int) -> MaskRCNN:
    """C4: torchvision has the parts, not the whole. conv5 is the head of boxes and masks."""
    resnet = resnet50(weights=None, norm_layer=torchvision.ops.misc.FrozenBatchNorm2d)
    layer4 = resnet.layer4
    anchors = AnchorGenerator((C4_SIZES,), ((0.5, 1.0, 2.0),))
    return MaskRCNN(
        Body(resnet), rpn_anchor_generator=anchors, rpn_head=RPNHead(1024, 3 * len(C4_SIZES)),
        box_roi_pool=MultiScaleRoIAlign(['0'], 14, 2), box_head=Conv5(layer4, True),
        box_predictor=FastRCNNPredictor(2048, classes), mask_roi_pool=MultiScaleRoIAlign(['0'], 14, 2),
        mask_head=Conv5(layer4, False), mask_predictor=MaskRCNNPredictor(2048, 256, classes),
        rpn_post_nms_top_n_test=C4_PROPOSALS)


MODELS = {'fpn': fpn, 'group_norm': group_norm, 'convnext': convnext, 'c4': c4}


def name_in_file(name: str) -> str:
    """C4's head under the name it has in a whole ResNet; others unchanged."""
    return re.sub(r'roi_heads\.(box|mask)_head\.layer4\.', 'backbone.body.layer4.', name)


def set_weights(model: MaskRCNN) -> None:
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(torch.as_tensor(draw_weight(name_in_file(name), tuple(value.shape), SEED)))


def set_spreads(model: MaskRCNN, image: torch.Tensor) -> None:
    """Scales the output layers, from the first to the last, so that what they give on `image` has the SPREADS."""
    seen = {}
    for name in SPREADS:
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.setdefault(name, []).append(output.flatten()))
    for name, spread in SPREADS.items():
        seen.clear()
        heads_alone(model, [image], 32)
        layer = model.get_submodule(name)
        factor = spread / torch.cat(seen[name]).std()
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)
    for name in SPREADS:
        model.get_submodule(name)._forward_hooks.clear()


# ---- runs ----

def tensor(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(path)).permute(2, 0, 1).float() / 255


def heads_alone(model: MaskRCNN, images: list[torch.Tensor], divisible: int) -> list[dict]:
    """Detections on the padded batch, without resizing before and pasting after."""
    images = [model.transform.normalize(image) for image in images]
    sizes = [tuple(image.shape[-2:]) for image in images]
    batch = torchvision.models.detection.image_list.ImageList(model.transform.batch_images(images, divisible), sizes)
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, features)
    return model.roi_heads(features, proposals, sizes)[0]


def run(model: MaskRCNN, images: list[torch.Tensor], mode: str, divisible: int) -> dict[str, np.ndarray]:
    """`boxes_0`, `scores_0`, ... of each image."""
    if mode == 'whole':
        found = [{name: value for name, value in model([image])[0].items() if name != 'masks'} for image in images]
    else:
        groups = [images] if mode == 'batch' else [[image] for image in images]
        found = [dict(lines, masks=lines['masks'][:, 0])
                 for group in groups for lines in heads_alone(model, group, divisible)]
    return {f'{name}_{i}': value.numpy() for i, lines in enumerate(found) for name, value in lines.items()}


@torch.no_grad()
def main(folder: Path) -> None:
    job = json.loads((folder / 'job.json').read_text())
    for name in job['models']:
        runs = [r for r in job['runs'] if r['model'] == name]
        model = MODELS[name](job['classes']).eval()
        set_weights(model)
        set_spreads(model, tensor(folder / job['first_image']))
        torch.save({name_in_file(key): value for key, value in model.state_dict().items()}, folder / f'{name}.pth')
        for r in runs:
            images = [tensor(folder / image) for image in r['images']]
            np.savez(folder / f'{r["name"]}.npz', **run(model, images, r['mode'], r['divisible']))
            print(r['name'], flush=True)
    versions = dict(torch=torch.__version__, torchvision=torchvision.__version__)
    (folder / 'versions.json').write_text(json.dumps(versions))


if __name__ == '__main__':
    main(Path(sys.argv[1]))
