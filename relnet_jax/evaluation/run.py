"""Run a jitted detector over a data source and collect COCO result records."""
import sys
import time

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from relnet_jax.data import pipeline
from relnet_jax.evaluation.results import to_coco_results

REPORT_EVERY = 30.0  # seconds between progress lines where there is no terminal


def make_detect(model):
    """Jitted function (params, image uint8 [B, H, W, 3], image_size float32 [B, 2]) -> Detections of a MaskRCNN."""
    def detect(params, image, image_size):
        return model.apply({'params': params}, image, image_size, method='detect')
    return jax.jit(detect)


def detect_source(detect_fn, params, source, config, *, progress: str = '') -> list:
    """COCO result records of all images of `source`, in its order.

    `detect_fn(params, image, image_size) -> Detections` as from `make_detect`; batches hold `config.test.batch_size`
    images. While the device works on a batch, the host pastes and encodes the masks of the one before. `progress` names
    the work: a bar on a terminal, else a line now and then with the time left; '' is silent. Unreadable images have
    no results, and their number is logged.
    """
    results, pending, seen = [], None, 0
    report = _progress(progress, len(source))

    def collect(pair):
        detections, batch = pair
        results.extend(to_coco_results(jax.device_get(detections), batch, source,
                                       mask_threshold=config.test.mask_threshold))
        report(int(np.sum(batch.image_valid)))
        return int(np.sum(batch.image_valid))

    for batch in pipeline.eval_batches(source, config, config.test.batch_size):
        running = detect_fn(params, batch.image, batch.image_size), batch
        if pending:
            seen += collect(pending)
        pending = running
    if pending:
        seen += collect(pending)
    report(None)
    if seen < len(source):
        logging.warning('%s: %d of %d images could not be read; they count as images without detections',
                        source.name, len(source) - seen, len(source))
    return results


def _progress(title: str, total: int):
    """A function to call with the number of images just done, and with None at the end."""
    if not title:
        return lambda done: None
    if sys.stderr.isatty():
        bar = tqdm(total=total, desc=title, unit='img')
        return lambda done: bar.close() if done is None else bar.update(done)
    start = last = time.monotonic()
    so_far = 0

    def line(done):
        nonlocal last, so_far
        now = time.monotonic()
        so_far += done or 0
        if done is None or now - last >= REPORT_EVERY:
            last, elapsed = now, now - start
            left = elapsed / max(so_far, 1) * (total - so_far)
            logging.info('%s: %d/%d images, %.1f img/s, eta %.0f s', title, so_far, total,
                         so_far / max(elapsed, 1e-9), left)
    return line
