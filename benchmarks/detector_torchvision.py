"""torchvision's side of benchmarks/detector.py, run by a Python that has torch: a worker of benchmarks/turns.py.

Its best set-up on a CPU: channels_last, gradients set to none.
"""
import json
import sys
import time
from collections.abc import Callable

import detector_job
import numpy as np
import torch
import torchvision
from torchvision.models import resnet50
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d
from turns import serve

LEVELS = ('0', '1', '2', '3', 'pool')


def make_model(job: dict) -> MaskRCNN:
    """As maskrcnn_resnet50_fpn sets it up for a pre-trained body: frozen norms, stem and first stage."""
    body = _resnet_fpn_extractor(resnet50(weights=None, norm_layer=FrozenBatchNorm2d), trainable_layers=3)
    model = MaskRCNN(body, num_classes=job['classes'], min_size=job['size'], max_size=job['size'],
                     box_detections_per_img=detector_job.DETECTIONS)
    with np.load(job['weights']) as stored:
        model.load_state_dict({name: torch.as_tensor(value) for name, value in stored.items()})
    return model.to(memory_format=torch.channels_last)


def tensors(job: dict) -> list[torch.Tensor]:
    return [torch.from_numpy(image).permute(2, 0, 1).float().div(255) for image in detector_job.images(job)]


def train_work(model, job: dict) -> Callable[[], object]:
    model.train()
    boxes, labels = detector_job.boxes(job)
    images, side = tensors(job), job['size']
    masks = torch.ones((job['objects'], side, side), dtype=torch.uint8)
    targets = [dict(boxes=torch.from_numpy(b), labels=torch.from_numpy(k), masks=masks) for b, k in zip(boxes, labels)]
    sgd = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5, momentum=0.9, weight_decay=1e-4)

    def work() -> None:
        loss = sum(model(images, targets).values())
        sgd.zero_grad(set_to_none=True)
        loss.backward()
        sgd.step()
        assert np.isfinite(loss.item())
    return work


def inference_work(model, job: dict) -> Callable[[], object]:
    model.eval()
    images = tensors(job)

    def work() -> int:
        with torch.inference_mode():
            return sum(len(found['scores']) for found in model(images))
    work.detections = work()
    return work


def part_works(model, job: dict) -> dict[str, tuple[Callable, list]]:
    """name -> (function of its inputs, these)."""
    train, count = job['kind'] == 'train', detector_job.ROIS
    model.train(train)
    side, heads = (job['size'],) * 2, model.roi_heads

    def to_torch(maps: list[np.ndarray]) -> list[torch.Tensor]:
        return [torch.from_numpy(x).permute(0, 3, 1, 2) for x in maps]      # channels_last in memory

    image = torch.stack(tensors(job)).mul(4).sub(2).contiguous(memory_format=torch.channels_last)
    body_maps = to_torch(detector_job.maps(job, (256, 512, 1024, 2048), (4, 8, 16, 32)))
    pyramid = to_torch(detector_job.maps(job, (256,) * 5, (4, 8, 16, 32, 64)))
    boxes = torch.from_numpy(detector_job.rois(job, count if train else detector_job.PROPOSALS[job['kind']]))
    teaching = boxes[:, :detector_job.positives(job) if train else detector_job.DETECTIONS]
    rng = np.random.default_rng(4)
    crops7, crops14 = (torch.from_numpy(rng.standard_normal((rows.shape[0] * rows.shape[1], n, n, 256),
                                                            np.float32)).permute(0, 3, 1, 2)
                       for rows, n in ((boxes, 7), (teaching, 14)))
    listed = torchvision.models.detection.image_list.ImageList(image, [side] * job['batch'])

    def proposals(*maps):
        with torch.no_grad():
            return model.rpn(listed, dict(zip(LEVELS, maps)), [dict(boxes=b, labels=None) for b in boxes[:, :1]]
                             if train else None)[0]

    def masks(x):
        logits = heads.mask_predictor(heads.mask_head(x))[:, 1]
        return logits.mean((1, 2)) if train else logits.sigmoid()

    return {
        'body': (lambda: list(model.backbone.body(image).values()), []),
        'FPN': (lambda *maps: list(model.backbone.fpn(dict(zip(LEVELS, maps))).values()), body_maps),
        'RPN head': (lambda *maps: sum(model.rpn.head(list(maps)), []), pyramid),
        'RPN head and proposals': (proposals, pyramid),
        'RoIAlign 7': (lambda *maps: heads.box_roi_pool(dict(zip(LEVELS, maps)), list(boxes), [side] * job['batch']),
                       pyramid[:4]),
        'RoIAlign 14': (lambda *maps: heads.mask_roi_pool(dict(zip(LEVELS, maps)), list(teaching),
                                                          [side] * job['batch']), pyramid[:4]),
        'box head': (lambda x: list(heads.box_predictor(heads.box_head(x))), [crops7]),
        'mask head': (masks, [crops14]),
    }


def with_parts(model, job: dict) -> dict[str, Callable]:
    work = {}
    for name, (run, inputs) in part_works(model, job).items():
        def forward(run=run, inputs=inputs):
            with torch.no_grad():
                run(*inputs)

        def both(run=run, inputs=inputs):
            leaves = [x.detach().requires_grad_() for x in inputs]
            out = run(*leaves)
            sum(x.sum() for x in (out if isinstance(out, list) else [out])).backward()
            model.zero_grad(set_to_none=True)
        work[f'{name}, forward'] = forward
        if job['kind'] == 'train' and 'proposals' not in name:
            work[f'{name}, both'] = both
    if job['kind'] == 'train':
        sgd = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5, momentum=0.9,
                              weight_decay=1e-4)
        gradients = [torch.zeros_like(p) for p in model.parameters()]

        def step():
            for parameter, gradient in zip(model.parameters(), gradients):
                parameter.grad = gradient
            sgd.step()
            sgd.zero_grad(set_to_none=True)
        work['optimiser, forward'] = step
    square = torch.ones(2048, 2048)
    work['matrix product, forward'] = lambda: square @ square
    return work


def main() -> None:
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job['threads'])
    model = make_model(job)
    start = time.perf_counter()
    if job['parts']:
        work, detections = with_parts(model, job), None
    else:
        whole = (train_work if job['kind'] == 'train' else inference_work)(model, job)
        whole()
        work, detections = {'whole': whole}, getattr(whole, 'detections', None)
    serve(work, {'detections': detections, 'compile_s': time.perf_counter() - start,
                 'version': f'torch {torch.__version__}, torchvision {torchvision.__version__}'})


if __name__ == '__main__':
    main()
