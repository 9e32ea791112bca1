"""What holds masks back, their boxes or their outlines: python -m benchmarks.true_boxes RUN [train|val]

Jaccard index of each class (mean over the films that show it) for the run's own detections, and for its masks within
the true boxes, on its validation or its training images. What the second lacks is for outlines to mend; what the first
lacks beside it, for boxes.
"""
import sys

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from relnet_jax.data import pipeline
from relnet_jax.detector.results import to_coco_results
from relnet_jax.detector.run import build_model, make_detect
from relnet_jax.evaluation.structures import jaccard
from relnet_jax.models.rpn import usable_boxes
from relnet_jax.runs import checkpoint, startup
from relnet_jax.types import Detections


def masks_in_true_boxes(model):
    """Jitted (params, batch) -> `Detections` that are the ground truths with the model's masks."""
    def masks(detector, batch) -> Detections:
        pyramid, _ = detector.features(batch.image, batch.image_size)
        truth = Detections(batch.gt_boxes, jnp.ones(batch.gt_labels.shape), batch.gt_labels, usable_boxes(batch)[0],
                           jnp.zeros((*batch.gt_labels.shape, 0, 0)))
        logits = detector.roi_heads.masks(detector.roi_maps(pyramid, batch.image_size), truth)
        return truth._replace(masks=jax.nn.sigmoid(logits))
    return jax.jit(lambda params, batch: model.apply({'params': params}, batch, method=masks))


def measure(run: str, split: str) -> dict[str, dict[str, float]]:
    """'own boxes' and 'true boxes' -> class -> Jaccard index."""
    config, table = checkpoint.read_config(run), checkpoint.read_class_table(run)
    source = pipeline.open_sources(config)[('train', 'val').index(split)]
    devices = jax.local_devices()[:1]
    params, model = jax.device_put(checkpoint.load_params(run), devices[0]), build_model(config, table)
    detect, ideal = make_detect(model, devices), masks_in_true_boxes(model)
    found = {'own boxes': [], 'true boxes': []}
    for batch in pipeline.eval_batches(source, config, config.test.batch_size):
        own = detect(params, batch.image, batch.image_size, batch.part_boxes, batch.part_valid)
        for name, detections in (('own boxes', own), ('true boxes', ideal(params, batch))):
            found[name] += to_coco_results(jax.device_get(detections), batch, source)
    truth = source.ground_truth()
    return {name: {k: float(np.nanmean(v)) for k, v in jaccard(truth, records).items() if not np.isnan(v).all()}
            for name, records in found.items()}


def main(argv: list[str]) -> None:
    if not argv or argv[1:] not in ([], ['train'], ['val']):
        sys.exit(__doc__)
    startup.use_compilation_cache()
    found = measure(argv[0], (argv[1:] or ['val'])[0])
    table = Table('Jaccard index', *found['own boxes'], title=' '.join(argv), title_justify='left')
    for name, values in found.items():
        table.add_row(name, *(f'{value:.3f}' for value in values.values()))
    Console(width=160).print(table)


if __name__ == '__main__':
    main(sys.argv[1:])
