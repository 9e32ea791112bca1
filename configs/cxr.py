"""Real chest films in COCO format, from scratch, on a small machine: tiny backbone with group norm at 256 px.

    python train.py --config=configs/cxr.py --workdir=runs/cxr \
        --config.data.train.annotations=DIR/instances.json --config.data.train.images=DIR/images

Written for the 65 films of covid-19-chest-xray-segmentations-dataset (General Blockchain, CC BY 4.0 annotations): a
fifth of the patients is held out for validation. docs/measured.md has the numbers as measured.
"""
from configs import base, coco


def get_config():
    c = base.get_config()
    c.name = 'cxr'
    coco.small(c)
    c.data.split.by = 'patientid'
    c.data.flip_pairs = (('Left Lung', 'Right Lung'),)
    c.data.max_objects = 40
    c.data.scale_jitter = (0.7, 1.0)
    c.data.brightness = 0.1
    c.data.contrast = 0.3
    c.data.gamma = 0.3
    c.model.anchor_sizes = (16, 32, 64, 112, 176)
    c.train.steps = 2400
    c.train.ema = 0.998
    c.train.rois = 64
    return c
