"""A run's folder with a real checkpoint of a tiny detector with random weights, and films; nothing is trained."""
import json

import cv2
import jax
import numpy as np

from configs import phantom
from relnet_jax.data import pipeline
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import checkpoint
from relnet_jax.runs.state import TrainState, abstract_params, batch_shapes

# The same for every command that trains the phantom, so that its programs are compiled once.
TINY = ('data.canvas=(64,64)', 'data.scale=64', 'data.max_size=64', 'data.mask_size=28', 'data.threads=0',
        'data.phantom.size=64', 'data.phantom.train_images=4', 'data.phantom.val_images=2', 'model.fpn_channels=16',
        'model.box_head_dim=16', 'model.mask_channels=8', 'model.mask_convs=1', 'train.steps=2', 'train.batch_size=2',
        'train.log_every=1', 'train.ema=0', 'train.pre_nms=20', 'train.proposals=10', 'train.rpn_samples=8',
        'train.rois=8', 'test.batch_size=2', 'test.pre_nms=20', 'test.boxes=8', 'test.detections=4',
        'test.score_threshold=0')


def tiny_config():
    """64 x 64 pixels of the phantom with 3 validation images, every box kept."""
    c = phantom.get_config()
    with c.unlocked():
        c.data.canvas, c.data.scale, c.data.max_size, c.data.threads, c.data.mask_size = (64, 64), 64, 64, 0, 28
        c.data.phantom.update(size=64, train_images=2, val_images=3)
        c.model.update(fpn_channels=16, box_head_dim=16, mask_channels=8)
        c.test.update(batch_size=2, pre_nms=20, boxes=8, detections=4, score_threshold=0.0)
    return c


def write_run(folder, config):
    """Writes step 7 of a run with `config`; returns the folder."""
    source, _ = pipeline.open_sources(config)
    model = mask_rcnn.build(config, num_classes=len(source.classes) + 1)
    shapes = abstract_params(model, batch_shapes(config, 1, len(source.parts)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(0, 0.05, s.shape).astype(s.dtype), shapes)
    with checkpoint.make_manager(folder, keep=1, best='box_AP50') as manager:
        checkpoint.save(manager, TrainState(np.int32(7), np.uint32(0), params, {}, None), config=config,
                        class_table={k: getattr(source, k) for k in checkpoint.CLASS_TABLE})
    return folder


def write_films(folder, sizes, names=('finding',)):
    """A COCO data set of grey films of these sizes (height, width), each with a box of the last of `names`:
    instances.json and images/ in `folder`, which is returned."""
    (folder / 'images').mkdir(parents=True)
    for i, size in enumerate(sizes, start=77):
        cv2.imwrite(str(folder / 'images' / f'{i}.png'), np.full(size, 90, np.uint8))
    document = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=w, height=h) for i, (h, w) in enumerate(sizes, start=77)],
        categories=[dict(id=10 * i, name=n) for i, n in enumerate(names, start=1)],
        annotations=[dict(id=i, image_id=76 + i, category_id=10 * len(names), bbox=[5, 5, 20, 20], area=400, iscrowd=0)
                     for i in range(1, len(sizes) + 1)])
    (folder / 'instances.json').write_text(json.dumps(document))
    return folder
