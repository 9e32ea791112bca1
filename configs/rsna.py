"""RSNA Pneumonia Detection Challenge: Faster R-CNN R50-FPN (one class, no masks) at 1024 px.

    D=~/rsna
    python train.py --config=configs/rsna.py --workdir=runs/rsna --config.train.init_from=resnet50.pth \
        --config.data.train.annotations=$D/stage_2_train_labels.csv --config.data.train.images=$D/stage_2_train_images \
        --config.data.meta=$D/stage_2_detailed_class_info.csv
    python eval.py --ckpt=runs/rsna

data.meta is optional: it adds the class 'Normal', 'No Lung Opacity / Not Normal' or 'Lung Opacity' to the records, so
that --config.data.subset="class=Lung Opacity" trains on films with an opacity alone. A fifth of the films is held out.

26,684 films, 21,347 for training; 9 epochs. The challenge's measure is TP / (TP + FP + FN) of a film, averaged over
IoU 0.4 to 0.75. Nothing has been measured: the films cannot be had here; the reader was tried on an excerpt of the
labels.
"""
from configs import base
from relnet_jax.data.formats.rsna import CLASS


def get_config():
    c = base.get_config()
    c.name = 'rsna'
    c.data.format = 'rsna'
    c.data.classes = (CLASS,)
    c.data.scale = 1024
    c.data.max_size = 1024
    c.data.canvas = (1024, 1024)
    c.data.max_objects = 10                  # 4 at most
    c.data.scale_jitter = (0.8, 1.0)
    c.data.brightness = 0.1
    c.data.contrast = 0.2
    c.data.gamma = 0.2

    c.model.mask_head = False

    c.train.steps = 12_000
    c.train.eval_every = 4_000
    c.train.checkpoint_every = 1_000
    c.test.detections = 20
    c.test.score_threshold = 0.01
    return c
