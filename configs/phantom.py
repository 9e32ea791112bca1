"""The default run: a tiny Mask R-CNN on the synthetic chest phantom, for 2 CPU cores.

    python train.py

The phantom is synthetic: it tests and teaches, and says nothing about patients. README.md has the numbers as measured.
"""
from configs import base, coco


def get_config():
    c = base.get_config()
    c.name = 'phantom'

    coco.small(c)
    c.data.format = 'phantom'
    c.data.flip_pairs = (('Left Scapula', 'Right Scapula'), ('Left Lung', 'Right Lung'))
    c.data.max_objects = 40
    c.data.brightness = 0.05
    c.data.contrast = 0.1

    c.model.anchor_sizes = (12, 24, 48, 96, 160)
    c.model.mask_channels = 32
    c.model.mask_convs = 2

    c.train.steps = 1200
    c.train.ema = 0.998
    c.train.rpn_samples = 128
    c.train.rois = 64

    c.test.batch_size = 8
    c.test.boxes = 200
    c.test.detections = 50
    return c
