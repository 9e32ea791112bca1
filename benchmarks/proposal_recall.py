"""Which objects the RPN finds at all: python -m benchmarks.proposal_recall RUN [RUN ...]

For each class the share of its objects in the validation images that one of the run's test proposals (config.test.boxes
of them) overlaps at IoU >= 0.5. What no proposal holds only a box regression over a long way can still find.
"""
import sys

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.class_ceiling import IOU
from relnet_jax.data import pipeline
from relnet_jax.detector.run import build_model
from relnet_jax.models.rpn import usable_boxes
from relnet_jax.ops.boxes import pairwise_iou
from relnet_jax.runs import checkpoint, startup
from relnet_jax.types import Batch


def make_overlaps(model):
    """Jitted (params, batch) -> float32 [B, G]: the largest IoU of each ground truth with a proposal."""
    def proposals(detector, batch: Batch):
        pyramid, valid = detector.features(batch.image, batch.image_size)
        return detector.propose(pyramid, valid, batch.image_size, pre_nms=detector.test.pre_nms,
                                post_nms=detector.test.boxes)[0]

    def run(params, batch: Batch):
        found = model.apply({'params': params}, batch, method=proposals)
        return (pairwise_iou(batch.gt_boxes, found.boxes) * found.valid[:, None]).max(-1)
    return jax.jit(run)


def recall(run: str) -> dict[str, tuple[int, float]]:
    """Class -> (number of objects, share of them that a proposal holds; nan without any)."""
    config = checkpoint.read_config(run)
    source = pipeline.open_sources(config)[1]
    overlaps = make_overlaps(build_model(config, checkpoint.read_class_table(run)))
    params, held = jax.device_put(checkpoint.load_params(run)), {name: [] for name in source.classes}
    for batch in pipeline.eval_batches(source, config, config.test.batch_size):
        objects = np.asarray(usable_boxes(batch)[0])
        for label, iou in zip(batch.gt_labels[objects], np.asarray(overlaps(params, batch))[objects], strict=True):
            held[source.classes[label - 1]].append(iou >= IOU)
    return {name: (len(values), np.mean(values) if values else np.nan) for name, values in held.items()}


def main(runs: list[str]) -> None:
    if not runs:
        sys.exit(__doc__)
    startup.use_compilation_cache()
    found = {run: recall(run) for run in runs}
    table = Table('% held by a proposal', 'objects', *runs)
    for name, (count, _) in found[runs[0]].items():
        table.add_row(name, str(count), *(f'{100 * found[run][name][1]:.0f}' for run in runs))
    Console().print(table)


if __name__ == '__main__':
    main(sys.argv[1:])
