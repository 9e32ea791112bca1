"""Evaluation of a checkpoint on a data set: open both, detect, measure, report."""
import math
from pathlib import Path

from absl import logging
from rich.console import Console
from rich.table import Table

from relnet_jax import files
from relnet_jax.data import pipeline
from relnet_jax.data.source import with_parts
from relnet_jax.evaluation import anatomy, report
from relnet_jax.evaluation.overlays import overlays
from relnet_jax.evaluation.run import detect_source, evaluate_at, load_detector
from relnet_jax.runs import checkpoint, startup

SWEEP_METRICS = ('box_AP', 'box_AP50', 'mask_AP50', 'voc_AP_0.50', 'voc_AP_0.01')


def check_classes(checkpoint_classes, data_classes) -> None:
    """Raises CheckpointError, naming the difference, unless both name the same classes in the same order."""
    expected, got = list(checkpoint_classes), list(data_classes)
    if expected == got:
        return
    only = dict(checkpoint=[c for c in expected if c not in got], data=[c for c in got if c not in expected])
    differences = [f'{where} only: {", ".join(names)}' for where, names in only.items() if names]
    raise checkpoint.CheckpointError(
        'the classes of the checkpoint and of the data differ (--config.data.classes chooses among those of the data): '
        + ('; '.join(differences) or f'same names, other order: expected {expected}, got {got}'))


def open_split(config, split: str):
    """The data source of 'val' or 'train'. Validation files of their own are opened without the training files, which
    need not be on this machine."""
    if split == 'val' and config.data.val.annotations:
        config = config.copy_and_resolve_references()
        config.data.train = config.data.val
    train, val = pipeline.open_sources(config)
    return train if split == 'train' else val


def open_checkpoint(ckpt: str, config, split: str) -> tuple:
    """(step folder, class table, data source of the split) for `ckpt`, whose classes are those of the source."""
    startup.quiet_libraries()
    startup.use_compilation_cache()
    step_folder = checkpoint.find(ckpt)
    class_table = checkpoint.read_class_table(step_folder)
    source = with_parts(open_split(config, split), class_table['parts'])
    check_classes(class_table['classes'], source.classes)
    return step_folder, class_table, source


def evaluate_checkpoint(ckpt: str, config, *, out: str = '', split: str = 'val', num_overlays: int = 8,
                        convention: str = 'pixel_inclusive') -> dict:
    """Detect in the chosen split, print the report and write it with overlays to `out` (default: the run's eval/).

    A model with an anatomy head is also measured on the parts that are annotated, in parts.json. Returns the metrics of `report.evaluate`.
    Raises CheckpointError, and what opening the data raises.
    """
    step_folder, class_table, source = open_checkpoint(ckpt, config, split)
    detect_fn, params = load_detector(step_folder, config, class_table)
    results = detect_source(detect_fn, params, source, config, progress=f'{split} images')
    ground_truth = source.ground_truth()
    metrics = report.evaluate(ground_truth, results, convention=convention)
    about = report.describe(source, ground_truth, config, checkpoint=str(step_folder), convention=convention)
    out = Path(out) if out else step_folder.parent.parent / 'eval'
    report.print_report(metrics, about)
    path = report.write_report(out, metrics=metrics, results=results, about=about)
    if config.model.anatomy_head:
        parts = anatomy.part_metrics(anatomy.make_find_parts(config, class_table), params, source, config)
        anatomy.print_parts(parts, title=f'anatomical parts, {about["data_set"]}')
        files.write_json(out / 'parts.json', parts)
    overlays(source, results, out / 'overlays', config=config, count=num_overlays)
    logging.info('written: %s, detections.json and overlays/ beside it', path)
    return metrics


def sweep_boxes(ckpt: str, config, counts: list, *, out: str = '', split: str = 'val',
                convention: str = 'pixel_inclusive') -> dict:
    """Evaluate at each number of test boxes in `counts`, print one table, and write it to boxes.json in `out`.

    Returns count -> metrics of `report.evaluate`. Raises as `evaluate_checkpoint`.
    """
    step_folder, class_table, source = open_checkpoint(ckpt, config, split)
    found = evaluate_at(counts, step_folder, config, class_table, source, convention=convention)
    names = [name for name in SWEEP_METRICS if any(name in metrics for metrics in found.values())]
    table = Table('test boxes', *names, title=f'{source.name}, {step_folder}, per cent', title_justify='left')
    for count, metrics in found.items():
        values = [metrics.get(name, math.nan) for name in names]
        table.add_row(str(count), *('-' if math.isnan(v) else f'{100 * v:.2f}' for v in values))
    Console().print(table)
    path = (Path(out) if out else step_folder.parent.parent / 'eval') / 'boxes.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = {count: {name: metrics.get(name) for name in names} for count, metrics in found.items()}
    files.write_json(path, dict(checkpoint=str(step_folder), data=source.name, boxes=numbers))
    logging.info('written: %s', path)
    return found
