"""Trains and evaluates one run with one seed, and evaluates its checkpoint at other numbers of test boxes."""
import time
from pathlib import Path

from ml_collections import ConfigDict

from relnet_jax import files
from relnet_jax.ablation import results
from relnet_jax.data import pipeline
from relnet_jax.evaluation.evaluate import evaluate_at
from relnet_jax.runs import checkpoint
from relnet_jax.training.loop import train


def run_once(config: ConfigDict, workdir: str | Path) -> dict | None:
    """Trains in `workdir`, or resumes there, and returns the measured part of a result file; None if it was stopped.

    Raises ResultError if the folder holds a checkpoint of another config.
    """
    workdir = Path(workdir)
    finished = checkpoint.steps(workdir)
    if finished:
        changes = checkpoint.config_changes(checkpoint.read_config(workdir), config)
        if changes:
            raise results.ResultError(f'{workdir} holds a checkpoint of another config; remove it, or choose another '
                                      'folder:\n  ' + '\n  '.join(changes))
    written = workdir / 'eval' / 'metrics.json'
    written.unlink(missing_ok=True)     # the training writes it after its last step: its being there says finished
    started = time.monotonic()
    state = train(config, workdir)
    if not written.exists():
        return None
    found = files.read_json(written)
    return dict(measured(config, found['metrics'], found['about']), steps=int(state.step),
                resumed_at_step=finished[-1] if finished else 0, seconds=round(time.monotonic() - started, 1))


def measured(config: ConfigDict, metrics: dict, about: dict) -> dict:
    """What a result file has of `metrics` and `about` in a metrics.json."""
    chosen = {m: metrics.get(m) for m in results.METRICS}
    return dict(about=about_data(about), metrics=chosen, boxes={str(config.test.boxes): chosen},
                per_class_AP50={name: v['box_AP50'] for name, v in metrics['per_class'].items()})


def about_data(about: dict) -> dict:
    """Of `report.describe`, what is the same for all runs of a table, but for the number of boxes."""
    keys = ('data_set', 'images', 'images_without_findings', 'objects', 'synthetic', 'post_processing')
    return {key: about[key] for key in keys}


def sweep(config: ConfigDict, workdir: str | Path, counts: list[int]) -> dict:
    """Metrics of the last checkpoint in `workdir` at each number of test boxes in `counts`: '512' -> metric -> 0..1."""
    if not counts:
        return {}
    folder = checkpoint.find(workdir)
    _, val = pipeline.open_sources(config)
    found = evaluate_at(counts, folder, config, checkpoint.read_class_table(folder), val)
    return {str(count): files.nulls({m: metrics.get(m) for m in results.METRICS}) for count, metrics in found.items()}
