"""The default run: a tiny Mask R-CNN on the synthetic chest phantom, for 2 CPU cores.

    python train.py

The phantom is synthetic: it tests and teaches, and says nothing about patients. README.md has the numbers as measured.
"""
from configs import base


def get_config():
    c = base.get_config()
    c.name = 'phantom'

    c.data.format = 'phantom'
    c.data.flip_pairs = (('Left Scapula', 'Right Scapula'), ('Left Lung', 'Right Lung'))
    c.data.canvas = (256, 256)
    c.data.scale = 256
    c.data.max_size = 256
    c.data.max_objects = 40
    c.data.mask_size = 56
    c.data.brightness = 0.05
    c.data.contrast = 0.1
    c.data.cache = True                  # 2000 images: 0.6 GiB

    c.model.backbone = 'tiny'
    c.model.norm = 'group_norm'
    c.model.frozen_stages = 0
    c.model.fpn_channels = 64
    c.model.anchor_sizes = (12, 24, 48, 96, 160)
    c.model.box_head_dim = 256
    c.model.mask_channels = 32
    c.model.mask_convs = 2

    c.train.steps = 1200
    c.train.batch_size = 4
    c.train.base_batch_size = 4
    c.train.optimizer = 'adamw'
    c.train.learning_rate = 1e-3
    c.train.weight_decay = 1e-2
    c.train.warmup_steps = 100
    c.train.schedule = 'cosine'
    c.train.clip_norm = 5.0
    c.train.ema = 0.998
    c.train.pre_nms = 500
    c.train.proposals = 250
    c.train.rpn_samples = 128
    c.train.rois = 64
    c.train.eval_every = 0
    c.train.checkpoint_every = 500

    c.test.batch_size = 8
    c.test.pre_nms = 300
    c.test.boxes = 200
    c.test.detections = 50
    return c
