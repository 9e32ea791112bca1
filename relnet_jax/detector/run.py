"""Run a jitted detector over a data source and collect COCO result records."""
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from absl import logging

from relnet_jax import processes
from relnet_jax.data import pipeline
from relnet_jax.detector.devices import on_all, over_devices
from relnet_jax.detector.results import to_coco_results
from relnet_jax.models import mask_rcnn
from relnet_jax.progress import Bar
from relnet_jax.runs import checkpoint
from relnet_jax.runs.state import abstract_params, batch_shapes


def make_detect(model, devices: Sequence[jax.Device]):
    """Jitted function (params, image uint8 [B, H, W, 3], image_size float32 [B, 2], part_boxes float32 [B, P, 4],
    part_valid bool [B, P], all False where no parts are known) -> Detections of a MaskRCNN; see `over_devices`."""
    def detect(params, image, image_size, part_boxes, part_valid):
        return model.apply({'params': params}, image, image_size, part_boxes, part_valid, method='detect')
    return over_devices(detect, devices)


def build_model(config, class_table: dict) -> mask_rcnn.MaskRCNN:
    """The detector of `config` for the classes, and with the class graph, of a checkpoint's class table."""
    return mask_rcnn.build(config, num_classes=len(class_table['classes']) + 1,
                           adjacency=class_table.get(checkpoint.GRAPH))


def load_detector(ckpt, config, class_table: dict, *, devices: Sequence[jax.Device] | None = None):
    """(detect_fn of `make_detect`, its parameters on the devices) of a checkpoint, under the given config; by default
    for all devices of this process.

    Raises CheckpointError if there is no such checkpoint or if the config asks for a model that it does not fit.
    """
    model = build_model(config, class_table)
    template = abstract_params(model, batch_shapes(config, 1, len(class_table['parts'])))
    devices = jax.local_devices() if devices is None else devices
    return make_detect(model, devices), on_all(checkpoint.load_params(ckpt, template), devices)


def rows_of(count: int, batch_size: int) -> int:
    """Rows of a batch: `batch_size` on each device of this process, or on one where all `count` images fit."""
    return batch_size * (jax.local_device_count() if count > batch_size else 1)


def detect_batches(detect_fn, params, source, config, *, batch_size: int,
                   lowest: Sequence[float] | None = None, positions: range | None = None) -> Iterator:
    """Pairs (Batch, its COCO result records, `lowest` as for `to_coco_results`) over all images of `source`, or over
    those at `positions`, in its order.

    `detect_fn(params, image, image_size, part_boxes, part_valid) -> Detections`, as from `make_detect`, always sees
    `rows_of(number of images, batch_size)` images. The devices work on a batch while the host reads the next one and
    pastes and encodes the masks of the one before.
    """
    def finish(detections, batch):
        return batch, to_coco_results(jax.device_get(detections), batch, source,
                                      mask_threshold=config.test.mask_threshold, lowest=lowest)
    running = None
    positions = range(len(source)) if positions is None else positions
    for batch in pipeline.eval_batches(source, config, rows_of(len(positions), batch_size), positions):
        started = detect_fn(params, batch.image, batch.image_size, batch.part_boxes, batch.part_valid), batch
        if running:
            yield finish(*running)
        running = started
    if running:
        yield finish(*running)


def detect_source(detect_fn, params, source, config, *, progress: str = '') -> list:
    """COCO result records of all images of `source`, in its order, `config.test.batch_size` at once on each device.

    Several processes, all of which call this, divide the images among them; process 0 has the results, the others [].
    `progress` names the work: a bar on a terminal, else a line now and then with the time left; '' is silent.
    Unreadable images have no results; how many there were is logged.
    """
    results, seen, own = [], 0, processes.own_share(len(source))
    with Bar(progress if processes.is_first() else '', total=len(own), unit='img') as bar:
        for batch, found in detect_batches(detect_fn, params, source, config, batch_size=config.test.batch_size,
                                           positions=own):
            results.extend(found)
            done = int(np.sum(batch.image_valid))
            seen += done
            bar.advance(done)
    parts = processes.gather((results, seen))
    results, seen = [r for found, _ in parts for r in found], sum(count for _, count in parts)
    if parts and seen < len(source):
        logging.warning('%s: %d of %d images could not be read; they count as images without detections',
                        source.name, len(source) - seen, len(source))
    return results
