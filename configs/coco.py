"""Mask R-CNN R50-FPN on COCO 2017 with the published 1x schedule (90k steps of 16 images, 0.02, steps at 2/3 and 8/9).

    python train.py --config=configs/coco.py --workdir=runs/coco --config.train.init_from=resnet50.pth \
        --config.data.train.annotations=annotations/instances_train2017.json --config.data.train.images=train2017 \
        --config.data.val.annotations=annotations/instances_val2017.json --config.data.val.images=val2017

Published for this schedule (Detectron2 model zoo, R50-FPN 1x): box AP 38.6, mask AP 35.2. Not measured with this
project: docs say what was. Any COCO-format file works. `configs/coco.py:small` is the same line with a tiny backbone
for small machines and small data sets.
"""
from configs import base


def get_config(variant: str = ''):
    if variant not in ('', 'small'):
        raise ValueError(f"no variant '{variant}'; it knows 'small'")
    c = base.get_config()
    c.name = 'coco_small' if variant else 'coco'
    c.data.scale = 800
    c.data.max_size = 1344
    c.data.canvas = (1344, 1344)
    if variant == 'small':
        small(c)
    return c


def small(c):
    """A tiny backbone trained from scratch at 256 px, for 2 CPU cores."""
    c.data.canvas = (256, 256)
    c.data.scale = 256
    c.data.max_size = 256
    c.data.mask_size = 56
    c.data.cache = True

    c.model.backbone = 'tiny'
    c.model.norm = 'group_norm'
    c.model.frozen_stages = 0
    c.model.fpn_channels = 64
    c.model.anchor_sizes = (12, 24, 48, 96, 192)
    c.model.box_head_dim = 256
    c.model.mask_channels = 64
    c.model.mask_convs = 3

    c.train.steps = 1500
    c.train.batch_size = 4
    c.train.base_batch_size = 4
    c.train.optimizer = 'adamw'
    c.train.learning_rate = 1e-3
    c.train.weight_decay = 1e-2
    c.train.warmup_steps = 100
    c.train.schedule = 'cosine'
    c.train.clip_norm = 5.0
    c.train.pre_nms = 500
    c.train.proposals = 250
    c.train.rois = 96
    c.train.eval_every = 0
    c.train.checkpoint_every = 500

    c.test.batch_size = 4
    c.test.pre_nms = 300
    c.test.boxes = 300
