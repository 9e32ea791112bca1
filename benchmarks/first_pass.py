"""What the first pass of a detector with relations finds by itself: python -m benchmarks.first_pass RUN [RUN ...]

Box AP50 by class on the validation images, of the first pass alone and of the whole (from RUN/eval/metrics.json). What
the first one lacks against a detector trained without relations is what training with them has cost.
"""
import json
import sys
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from benchmarks.class_ceiling import by_class
from relnet_jax.data import pipeline
from relnet_jax.detector.run import build_model, detect_source, make_detect
from relnet_jax.evaluation.coco import coco_metrics
from relnet_jax.runs import checkpoint, startup


def without_relations(config, params: dict) -> tuple:
    """(config, parameters) of the first pass alone."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.relations = ()
        config.model.mask_head = False
    return config.lock(), {name: leaf for name, leaf in params.items() if name not in ('relation_head', 'part_window')}


def first_pass(run: str) -> dict[str, float]:
    config, params = without_relations(checkpoint.read_config(run), checkpoint.load_params(run))
    source, devices = pipeline.open_sources(config)[1], jax.local_devices()[:1]
    detect = make_detect(build_model(config, checkpoint.read_class_table(run)), devices)
    results = detect_source(detect, jax.device_put(params, devices[0]), source, config, progress=f'{run}, first pass')
    return by_class(coco_metrics(source.ground_truth(), results, 'bbox'), 'AP50')


def main(runs: list[str]) -> None:
    if not runs:
        sys.exit(__doc__)
    startup.use_compilation_cache()
    for run in runs:
        whole = by_class(json.loads((Path(run) / 'eval' / 'metrics.json').read_text())['metrics'], 'box_AP50')
        table = Table('box AP50', *whole, title=run, title_justify='left')
        for name, values in (('first pass', first_pass(run)), ('whole', whole)):
            table.add_row(name, *(f'{100 * values[column]:.1f}' for column in whole))
        Console(width=220).print(table)


if __name__ == '__main__':
    main(sys.argv[1:])
