"""JSRT: nodules and the five structures of SCR in real chest films, from scratch, on a small machine.

    D=~/jsrt
    python train.py --config=configs/jsrt.py:anatomy --workdir=runs/anatomy \
        --config.data.train.annotations=$D/instances.json --config.data.train.images=$D/images
    python train.py --config=configs/jsrt.py:part --workdir=runs/part --config.train.init_from=runs/anatomy ...

A COCO file whose categories are Nodule (boxes) and STRUCTURES (masks), with `patient` and `mm_per_pixel` in the image
records. A run is chosen by its name in RUNS; without a name it is `base`. A quarter of the patients is held out. From
scratch the few nodules teach little: start from the anatomy. docs/jsrt.md has what was measured, what each choice
brought, and the commands for all folds.
"""
from ml_collections import ConfigDict

from configs import base, coco
from configs._runs import Run, use, with_relations

# In the order of configs/lab.py's parts: the lungs are the rows that relations look at by default.
STRUCTURES = ('Left Clavicle', 'Right Clavicle', 'Left Lung', 'Right Lung', 'Heart')
FLIP_PAIRS = (('Left Clavicle', 'Right Clavicle'), ('Left Lung', 'Right Lung'))

ANATOMY = {'data.classes': STRUCTURES, 'data.flip': 0.0, 'data.flip_pairs': FLIP_PAIRS, 'data.rotation': 10.0,
           'model.anchor_sizes': (12, 24, 48, 80, 144), 'model.roi_aligned': True, 'train.roi_positive': 0.5,
           'train.steps': 2000}
NODULES = {'data.classes': ('Nodule',), 'data.parts': STRUCTURES, 'data.flip_pairs': FLIP_PAIRS,
           'data.canvas': (384, 384), 'data.scale': 384, 'data.max_size': 384,
           'model.anchor_sizes': (8, 16, 26, 40, 66), 'model.mask_head': False, 'train.steps': 400,
           'test.score_threshold': 0.005, 'train.best': 'froc_mean'}

RUNS = {
    'anatomy': Run('', 'masks of the five structures', ANATOMY, {}),
    **with_relations('nodules', NODULES, presence=dict(graph=False)),       # one class: there is no graph
}


def get_config(run: str = 'base') -> ConfigDict:
    """Raises ValueError with the nearest right name of a run."""
    c = base.get_config()
    coco.small(c)
    c.data.split.by = 'patient'
    c.data.split.folds = 4
    c.data.max_objects = 8
    c.data.scale_jitter = (0.8, 1.0)
    c.data.brightness = 0.1
    c.data.contrast = 0.2
    c.data.gamma = 0.2

    c.train.ema = 0.99
    c.train.rois = 64
    c.train.rpn_samples = 64
    c.train.checkpoint_every = 400
    c.test.detections = 20
    use(c, RUNS, run)
    return c
