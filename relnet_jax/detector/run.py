"""Run a jitted detector over a data source and collect COCO result records."""
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from absl import logging

from relnet_jax.data import pipeline
from relnet_jax.detector.results import to_coco_results
from relnet_jax.models import mask_rcnn
from relnet_jax.progress import Bar
from relnet_jax.runs import checkpoint
from relnet_jax.runs.state import abstract_params, batch_shapes


def make_detect(model):
    """Jitted function (params, image uint8 [B, H, W, 3], image_size float32 [B, 2], part_boxes float32 [B, P, 4],
    part_valid bool [B, P], all False where no parts are known) -> Detections of a MaskRCNN."""
    def detect(params, image, image_size, part_boxes, part_valid):
        return model.apply({'params': params}, image, image_size, part_boxes, part_valid, method='detect')
    return jax.jit(detect)


def build_model(config, class_table: dict) -> mask_rcnn.MaskRCNN:
    """The detector of `config` for the classes, and with the class graph, of a checkpoint's class table."""
    return mask_rcnn.build(config, num_classes=len(class_table['classes']) + 1,
                           adjacency=class_table.get(checkpoint.GRAPH))


def load_detector(ckpt, config, class_table: dict):
    """(detect_fn of `make_detect`, its parameters on the device) of a checkpoint, under the given config.

    Raises CheckpointError if there is no such checkpoint or if the config asks for a model that it does not fit.
    """
    model = build_model(config, class_table)
    template = abstract_params(model, batch_shapes(config, 1, len(class_table['parts'])))
    return make_detect(model), jax.device_put(checkpoint.load_params(ckpt, template))


def detect_batches(detect_fn, params, source, config, *, batch_size: int,
                   lowest: Sequence[float] | None = None) -> Iterator:
    """Pairs (Batch, its COCO result records, `lowest` as for `to_coco_results`) over all images of `source`, in its
    order.

    `detect_fn(params, image, image_size, part_boxes, part_valid) -> Detections`, as from `make_detect`, always sees
    `batch_size` images. The device works on a batch while the host reads the next one and pastes and encodes the masks
    of the one before.
    """
    def finish(detections, batch):
        return batch, to_coco_results(jax.device_get(detections), batch, source,
                                      mask_threshold=config.test.mask_threshold, lowest=lowest)
    running = None
    for batch in pipeline.eval_batches(source, config, batch_size):
        started = detect_fn(params, batch.image, batch.image_size, batch.part_boxes, batch.part_valid), batch
        if running:
            yield finish(*running)
        running = started
    if running:
        yield finish(*running)


def detect_source(detect_fn, params, source, config, *, progress: str = '') -> list:
    """COCO result records of all images of `source`, in its order, by batches of `config.test.batch_size`.

    `progress` names the work: a bar on a terminal, else a line now and then with the time left; '' is silent.
    Unreadable images have no results; how many there were is logged.
    """
    results, seen = [], 0
    with Bar(progress, total=len(source), unit='img') as bar:
        for batch, found in detect_batches(detect_fn, params, source, config, batch_size=config.test.batch_size):
            results.extend(found)
            done = int(np.sum(batch.image_valid))
            seen += done
            bar.advance(done)
    if seen < len(source):
        logging.warning('%s: %d of %d images could not be read; they count as images without detections',
                        source.name, len(source) - seen, len(source))
    return results
