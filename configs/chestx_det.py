"""ChestX-Det as it is downloaded: Mask R-CNN R50-FPN at 1024 px, and the same with all relations (SAR-Net).

    D=~/ChestX-Det
    python train.py --config=configs/chestx_det.py --workdir=runs/chestx_det --config.train.init_from=resnet50.pth \
        --config.data.train.annotations=$D/ChestX_Det_train.json --config.data.train.images=$D/train_data \
        --config.data.val.annotations=$D/ChestX_Det_test.json --config.data.val.images=$D/test_data

configs/chestx_det.py:sar_net is the structure-aware relation network of Lian et al., IEEE TMI 2021 (who published the
data), in the form of the lab's best run (configs/lab.py:fpn3). Its relations look at five anatomical parts, which
ChestX-Det does not annotate. Either

    --config.data.parts_file=parts.json
        boxes from a file (relnet_jax/data/formats/parts_file.py says which). The authors published a network that
        segments the anatomy; its masks give such boxes. Where the file lacks a film, the anatomy head predicts its
        parts, which it learns from the others; or
    --config.data.parts_file=none --config.train.init_from=RUN --config.train.freeze="('anatomy_head',)"
        parts predicted throughout by the anatomy head of a run that has learned these five.

3,025 films for training, 553 for testing; 37 epochs. Tried on phantom films in this format and on the complete
annotations; neither the schedule nor any figure on the real films has been measured. Measured on the training
annotations: with COCO's anchors (32 to 512, one a level) 3.2 % of the boxes, and 36 % of the calcifications, have no
anchor of IoU 0.5; with two sizes a level from 16 px on 1.0 %, and none of the calcifications.
"""
from configs import base, lab
from configs._runs import apply
from relnet_jax.data.formats.chestx_det import CLASSES

ANCHORS = ((16, 24), (40, 56), (80, 120), (160, 240), (320, 480))


def get_config(variant: str = ''):
    if variant not in ('', 'sar_net'):
        raise ValueError(f"configs/chestx_det.py has no variant '{variant}'; it knows 'sar_net'")
    c = base.get_config()
    c.name = f'chestx_det_{variant}' if variant else 'chestx_det'
    c.data.format = 'chestx_det'
    c.data.classes = CLASSES
    c.data.scale = 1024
    c.data.max_size = 1024
    c.data.canvas = (1024, 1024)
    c.data.max_objects = 40              # 36 at most
    c.data.scale_jitter = (0.8, 1.0)
    c.data.brightness = 0.1
    c.data.contrast = 0.2
    c.data.gamma = 0.2

    c.model.anchor_sizes = ANCHORS

    c.train.steps = 7_000
    c.train.eval_every = 1_000
    c.train.checkpoint_every = 500
    c.test.detections = 50
    if variant == 'sar_net':
        apply(c, lab.FPN3)
        c.data.parts, c.data.flip_pairs = lab.PARTS, lab.FLIP_PAIRS
        c.model.anatomy_head = True
        c.model.parts = 'given_or_predicted'
    return c
