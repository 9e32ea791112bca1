"""VinDr-CXR: Faster R-CNN R50-FPN (the data have no masks) at 1024 px, the boxes of a film's readers fused.

    D=~/vinbigdata
    python train.py --config=configs/vindr.py --workdir=runs/vindr --config.train.init_from=resnet50.pth \
        --config.data.train.annotations=$D/train.csv --config.data.train.images=$D/train
    python eval.py --ckpt=runs/vindr

Takes the CSV of Kaggle, of AMIA's challenge and of PhysioNet, and the DICOM files or resized copies in any format.
For copies add --config.data.meta=$D/train_meta.csv (AMIA: img_size.csv), a table of the sizes that the boxes refer to:
`image_id,dim0,dim1`, height first. A fifth of the training films is held out. 71 % of the films have no finding;
--config.data.repeat_threshold=0.1 lets those with rare findings come more often.

15,000 films, 12,000 for training; 12 epochs. Kaggle's measure is AP at IoU 0.4 (VOC 2010), with 'no finding' as a class
of its own. Nothing has been measured: the films cannot be had here; the reader was tried on an excerpt of the labels.
"""
from configs import base
from configs.chestx_det import ANCHORS
from relnet_jax.data.formats.vindr import CLASSES


def get_config():
    c = base.get_config()
    c.name = 'vindr'
    c.data.format = 'vindr'
    c.data.classes = CLASSES
    c.data.fusion = 'wbf'
    c.data.scale = 1024
    c.data.max_size = 1024
    c.data.canvas = (1024, 1024)
    c.data.scale_jitter = (0.8, 1.0)
    c.data.brightness = 0.1
    c.data.contrast = 0.2
    c.data.gamma = 0.2

    c.model.mask_head = False
    c.model.anchor_sizes = ANCHORS

    c.train.steps = 9_000
    c.train.eval_every = 3_000
    c.train.checkpoint_every = 1_000
    c.test.score_threshold = 0.01            # average precision counts the unsure ones too
    return c
