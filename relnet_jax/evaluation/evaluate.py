"""Evaluation of a checkpoint on a data set: open both, detect, measure, report."""
import math
from pathlib import Path

from absl import logging
from rich.console import Console
from rich.table import Table

from relnet_jax import files, processes
from relnet_jax.data import pipeline
from relnet_jax.detector.run import detect_source, load_detector
from relnet_jax.errors import UserError
from relnet_jax.evaluation import anatomy, operating, report, submissions
from relnet_jax.evaluation.overlays import overlays
from relnet_jax.runs import checkpoint, operating_points, startup

SWEEP_METRICS = ('box_AP', 'box_AP50', 'mask_AP50', 'voc_AP_0.50', 'voc_AP_0.01')


def open_checkpoint(ckpt: str, config, split: str) -> tuple:
    """(step folder, class table, data source of the split) for `ckpt`, whose classes are those of the source."""
    startup.quiet_libraries()
    startup.use_compilation_cache()
    step_folder = checkpoint.find(ckpt)
    class_table = checkpoint.read_class_table(step_folder)
    return step_folder, class_table, pipeline.open_for_model(config, split, class_table)


def evaluate_checkpoint(ckpt: str, config, *, out: str = '', split: str = 'val', num_overlays: int = 8,
                        convention: str = 'pixel_inclusive', submission: str = '', calibrate: float = 0.0) -> dict:
    """Detect in the chosen split, print the report and write it with overlays to `out` (default: the run's eval/).

    Several processes divide the detection among them; process 0 measures and writes, the others return {}.
    A model with an anatomy head is also measured on the parts that are annotated, in parts.json. Of images without
    annotations detections.json and overlays are written, and there are no metrics. submission: '', or the form in
    `submissions.SUBMISSIONS` of a submission.csv beside them. calibrate: above 0, the false positives of each class per
    film for which operating points are chosen on these images and written to the step folder; else those that are there
    are measured. Returns the metrics of `report.evaluate`, {} without annotations.
    Raises CheckpointError, UserError for calibration without annotations, and what opening the data raises.
    """
    step_folder, class_table, source = open_checkpoint(ckpt, config, split)
    submissions.check_form(submission, source.classes)
    if calibrate and not source.annotated:
        raise UserError(f'--calibrate: {source.name} has no annotations')
    detect_fn, params = load_detector(step_folder, config, class_table)
    startup.log_compilation('the detector')
    results = detect_source(detect_fn, params, source, config, progress=f'{split} images')
    metrics = {}

    def measure() -> None:
        metrics.update(_measure(results, source, step_folder, config, out, num_overlays=num_overlays,
                                convention=convention, submission=submission, calibrate=calibrate))
        if config.model.anatomy_head and source.annotated:
            parts = anatomy.part_metrics(anatomy.make_find_parts(config, class_table), params, source, config)
            anatomy.print_parts(parts, title=f'anatomical parts, {source.name}')
            path = folder_of(out, step_folder) / 'parts.json'
            files.write_json(path, parts)
            logging.info('written: %s', path)
    processes.from_first(measure)
    return metrics


def folder_of(out: str, step_folder: Path) -> Path:
    return Path(out) if out else step_folder.parent.parent / 'eval'


def _measure(results: list, source, step_folder: Path, config, out: str, *, num_overlays: int, convention: str,
             submission: str, calibrate: float) -> dict:
    """`evaluate_checkpoint` from the results on."""
    out = folder_of(out, step_folder)
    if submission:
        out.mkdir(parents=True, exist_ok=True)
        submissions.write_submission(out / 'submission.csv', submission, results, source)
        logging.info('written: %s', out / 'submission.csv')
    if not source.annotated:
        path = report.write_detections(out, results)
        overlays(source, results, out / 'overlays', config=config, count=num_overlays)
        logging.warning('%s has no annotations: no metrics; written: %s and overlays/ beside it', source.name, path)
        return {}
    ground_truth = source.ground_truth()
    points = operating_points.read(step_folder)
    if calibrate:
        points = operating.choose(ground_truth, results, fp_per_film=calibrate, data_set=source.name,
                                  convention=convention)
        logging.info('written: %s', operating_points.write(step_folder, points))
        report.print_operating(operating.table(ground_truth, results, points, convention=convention))
    metrics = report.full_report(out, source, ground_truth, results, config, checkpoint=str(step_folder),
                                 convention=convention, points=points)
    overlays(source, results, out / 'overlays', config=config, count=num_overlays)
    logging.info('written: %s (open it); metrics.json, curves.json, detections.json, ground_truth.json and overlays/ '
                 'beside it', out / 'report.html')
    return metrics


def evaluate_at(box_counts: list, folder, config, class_table: dict, source, *,
                convention: str = 'pixel_inclusive') -> dict:
    """Metrics of `report.evaluate` for the checkpoint in `folder` at each number of test boxes: count -> metrics, {}
    but in process 0."""
    truth, found = source.ground_truth() if processes.is_first() else {}, {}
    for count in box_counts:
        config = config.copy_and_resolve_references()
        with config.unlocked():
            config.test.boxes = count
        detect_fn, params = load_detector(folder, config, class_table)
        results = detect_source(detect_fn, params, source, config, progress=f'{source.name}, {count} test boxes')
        if processes.is_first():
            found[count] = report.evaluate(truth, results, convention=convention)
    return found


def sweep_boxes(ckpt: str, config, counts: list, *, out: str = '', split: str = 'val',
                convention: str = 'pixel_inclusive') -> dict:
    """Evaluate at each number of test boxes in `counts`, print one table, and write it to boxes.json in `out`.

    Returns count -> metrics of `report.evaluate`. Raises as `evaluate_checkpoint`.
    """
    step_folder, class_table, source = open_checkpoint(ckpt, config, split)
    if not source.annotated:
        raise UserError(f'{source.name} has no annotations: no metrics')
    found = evaluate_at(counts, step_folder, config, class_table, source, convention=convention)
    processes.from_first(lambda: _write_sweep(found, source, step_folder, out))
    return found


def _write_sweep(found: dict, source, step_folder: Path, out: str) -> None:
    names = [name for name in SWEEP_METRICS if any(name in metrics for metrics in found.values())]
    table = Table('test boxes', *names, title=f'{source.name}, {step_folder}, per cent', title_justify='left')
    for count, metrics in found.items():
        values = [metrics.get(name, math.nan) for name in names]
        table.add_row(str(count), *('-' if math.isnan(v) else f'{100 * v:.2f}' for v in values))
    Console().print(table)
    path = folder_of(out, step_folder) / 'boxes.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = {count: {name: metrics.get(name) for name in names} for count, metrics in found.items()}
    files.write_json(path, dict(checkpoint=str(step_folder), data=source.name, boxes=numbers))
    logging.info('written: %s', path)
