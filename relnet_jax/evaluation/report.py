"""All metrics of one result list, and the report that says what they were measured on."""
import datetime
import math
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from relnet_jax import __version__, files
from relnet_jax.evaluation import bootstrap, chest_films, html_report, measures, structures
from relnet_jax.evaluation.coco import has_mask, summary
from relnet_jax.evaluation.curve_data import curves
from relnet_jax.evaluation.worst_films import worst_films
from relnet_jax.runs.operating_points import OperatingPoints

GROUND_TRUTH, DETECTIONS = 'ground_truth.json', 'detections.json'
# What is shown of all classes together, and what it is; the names with more detail are in docs/metrics.md.
HEADLINE = {
    'box_AP': 'COCO, boxes, IoU 0.50 to 0.95', 'box_AP50': 'COCO, boxes, IoU 0.50',
    'mask_AP': 'COCO, masks, IoU 0.50 to 0.95', 'mask_AP50': 'COCO, masks, IoU 0.50',
    'voc_AP_0.50': 'VOC, boxes, IoU 0.50', 'voc_AP_0.01': 'VOC, boxes, IoU 0.01',
    'froc_mean': 'sensitivity at 1/8 to 8 false positives per film and class',
    'chestx_det10_recall_0.20': 'recall at 0.2 false positives per film and class',
    **{f'{prefix}_{rate:g}': f'nodules: sensitivity at {rate:g} false positives per film, centre within {hit}'
       for prefix, hit in (('nodule_radius', 'the radius'), ('nodule_22mm', '22 mm')) for rate in chest_films.RATES},
    **{f'jaccard_{name}': f'Jaccard index, mean over films: {name.lower()}' for name in structures.SCR},
    'image_AUC': 'films with the class against films without',
    'no_finding_AUC': 'films without findings against others',
    'ECE': 'calibration error of scores', 'ECE_calibrated': 'the same under the temperature of the checkpoint',
    'operating_sensitivity': 'objects hit at the operating points',
    'operating_fp_per_film': 'false positives per film at the operating points, all classes'}
NOT_SHARES = ('operating_fp_per_film',)     # shown as they are, not in per cent
MEASURED_WITH = ('jax', 'jaxlib', 'flax', 'numpy', 'pycocotools')
PER_CLASS = ('voc_AP_0.01', 'voc_AP_0.40', 'voc_AP_0.50', 'froc_mean', 'chestx_det10_recall_0.20', 'image_AUC')


def evaluate(ground_truth: dict, results: list, *, convention: str = 'pixel_inclusive',
             points: OperatingPoints | None = None, resamples: int = 0, by: str = '') -> dict:
    """Flat metrics in 0..1: `box_AP`, `box_AP50`, ... (see `coco.NAMES`), `mask_AP`, ..., and those of
    `measures.of_boxes`: `voc_AP_0.01`, `voc_AP_0.50`, `froc_mean`, `image_AUC`, ... (docs/metrics.md has all).

    `per_class` is nested: name -> dict(objects, box_AP, box_AP50, mask_AP, mask_AP50 and PER_CLASS).
    `ground_truth` is a COCO dict and `results` are COCO result records; `convention` is that of `matching.by_overlap`;
    `points` are the checkpoint's, if it has any. With `resamples` there is `intervals`, name -> (low, high), of all but
    the size classes and AR, by `bootstrap` over patients, as the record key `by` or else the images themselves say.
    Mask metrics are there if the ground truth holds any mask and no result lacks one.
    What is undefined (no ground truth of a class or size) is NaN.
    """
    categories, annotations = ground_truth['categories'], ground_truth['annotations']
    objects = {c['id']: 0 for c in categories}
    for a in annotations:
        objects[a['category_id']] += not a.get('iscrowd')
    per_class = {c['name']: dict(objects=objects[c['id']]) for c in categories}
    coco, measure = measures.everything(ground_truth, results, convention=convention, points=points)
    metrics = {}
    for prefix, evaluation in coco.items():
        found = summary(evaluation, ground_truth)
        for name, values in found.pop('per_class').items():
            per_class[name].update({f'{prefix}_{k}': v for k, v in values.items()})
        metrics.update({f'{prefix}_{k}': v for k, v in found.items()})
    values = measure(np.ones((1, len(ground_truth['images']))))
    metrics = {name: float(v[0]) for name, v in bootstrap.means(values).items()} | metrics
    for k, category in enumerate(categories):
        per_class[category['name']].update({name: float(values[name][k, 0]) for name in PER_CLASS})
    metrics['per_class'] = per_class
    if resamples:
        group, _ = bootstrap.patients(ground_truth['images'], by)
        metrics['intervals'] = {name: bootstrap.interval(drawn, metrics[name]) for name, drawn in
                                bootstrap.draws(measure, group, count=resamples).items()}
    return metrics


def describe(source, ground_truth: dict, config, *, checkpoint: str, convention: str = 'pixel_inclusive',
             points: OperatingPoints | None = None, resamples: int = 0) -> dict:
    """What a number of `evaluate` means: data set, its size, checkpoint, config, post-processing, what was drawn, and
    the command, time and versions.

    `source` is the data source, `ground_truth` its COCO dict, `checkpoint` names the weights for the reader.
    """
    annotations = ground_truth['annotations']
    with_findings = len({a['image_id'] for a in annotations})
    t = config.test
    drawn = dict(resamples=resamples, of=bootstrap.patients(ground_truth['images'], config.data.split.by)[1],
                 confidence=bootstrap.CONFIDENCE, method='bias-corrected percentile bootstrap')
    return dict(
        data_set=source.name, images=len(ground_truth['images']), images_with_findings=with_findings,
        images_without_findings=len(ground_truth['images']) - with_findings, objects=len(annotations),
        objects_without_mask=sum(not has_mask(a) for a in annotations), checkpoint=checkpoint, config=config.name,
        synthetic=config.data.format == 'phantom',
        post_processing=dict(
            proposals=t.boxes, score_threshold=t.score_threshold, nms_iou=t.nms, detections_per_image=t.detections,
            mask_threshold=t.mask_threshold, coordinates='pixels of the original image', voc_convention=convention),
        operating_points=points and points._asdict(), intervals=drawn if resamples else None,
        command=shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]),
        date=datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d %H:%M UTC'),
        versions=dict(relnet_jax=__version__, python=platform.python_version(),
                      **{name: metadata.version(name) for name in MEASURED_WITH}))


def print_report(metrics: dict, about: dict, *, console: Console | None = None) -> None:
    """The summary of `describe`, the headline and a table per class, values in per cent, on screen or `console`."""
    console = console or Console()
    p = about['post_processing']
    if about['synthetic']:
        console.print('PHANTOM: synthetic images. These numbers say nothing about patients.', style='bold yellow')
    for name, value in (
            ('data set', f"{about['data_set']}: {about['images']} images ({about['images_with_findings']} with and "
                         f"{about['images_without_findings']} without findings), {about['objects']} objects"),
            ('checkpoint', f"{about['checkpoint']} (config {about['config']})"),
            ('post-processing', f"{p['proposals']} proposals, score > {p['score_threshold']:g}, per-class NMS IoU "
                                f"{p['nms_iou']:g}, {p['detections_per_image']} detections per image, mask > "
                                f"{p['mask_threshold']:g}, {p['coordinates']}, VOC boxes {p['voc_convention']}")):
        console.print(f'{name + ":":16} {value}', highlight=False, markup=False)
    if points := about['operating_points']:
        console.print(f"{'operating:':16} {points['fp_per_film']:g} false positives per film and class wanted, "
                      f"temperature {points['temperature']:.3g}, chosen on {points['data_set']}", highlight=False,
                      markup=False)
    console.print(_headline(metrics, about['intervals']))
    masks = 'mask_AP' in metrics
    if masks and about['objects_without_mask']:
        console.print(f"{'masks:':16} {about['objects_without_mask']} objects without a mask are ignored in mask AP",
                      highlight=False)
    columns = ['box_AP', 'box_AP50'] + ['mask_AP', 'mask_AP50'] * masks + ['voc_AP_0.01', 'voc_AP_0.50']
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column('class', no_wrap=True)
    for column in ['objects'] + columns:
        table.add_column('\n'.join(column.rsplit('_', 1)).replace('_', ' '), justify='right')
    shown = {name: values for name, values in metrics['per_class'].items() if values['objects']}
    for name, values in shown.items():
        table.add_row(name, str(values['objects']), *(_percent(values[c]) for c in columns))
    table.add_section()
    table.add_row('mean', str(sum(v['objects'] for v in metrics['per_class'].values())),
                  *(_percent(metrics[c]) for c in columns), style='bold')
    console.print(table)
    if absent := [name for name in metrics['per_class'] if name not in shown]:
        console.print(f'without objects here, so neither shown nor averaged: {", ".join(absent)}')


def print_operating(table: dict, *, console: Console | None = None) -> None:
    """`operating.table` as a table, on screen or `console`."""
    shown = Table('class', title='operating points', title_justify='left', box=box.SIMPLE_HEAD)
    for column in ('threshold', 'objects', 'hit, %', 'false positives per film'):
        shown.add_column(column, justify='right')
    for name, row in table.items():
        shown.add_row(name, f"{row['threshold']:.3f}", str(row['objects']), _percent(row['sensitivity']),
                      _plain(row['fp_per_film']))
    (console or Console()).print(shown)


def _headline(metrics: dict, drawn: dict | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in ('metric', 'value') + ('95 % interval',) * bool(drawn) + ('what it is',):
        table.add_column(column, justify='right' if column in ('value', '95 % interval') else 'left')
    for name, meaning in HEADLINE.items():
        if name in metrics:
            show = _plain if name in NOT_SHARES else _percent
            between = ()
            if drawn:
                low, high = metrics['intervals'][name]
                between = ('-' if math.isnan(low) else f'{show(low)} to {show(high)}',)
            table.add_row(name, show(metrics[name]), *between, meaning)
    if drawn:
        table.caption = f"{drawn['resamples']} resamples of {drawn['of']}"
    return table


def _percent(value: float) -> str:
    return '-' if math.isnan(value) else f'{100 * value:.1f}'


def _plain(value: float) -> str:
    return '-' if math.isnan(value) else f'{value:.2f}'


def full_report(out, source, ground_truth: dict, results: list, config, *, checkpoint: str,
                convention: str = 'pixel_inclusive', points: OperatingPoints | None = None) -> dict:
    """Measures with intervals, prints the report and writes it to the folder `out` (`write_report`, `describe`) with
    report.html (`html_report`).

    Returns the metrics of `evaluate`.
    """
    options = dict(convention=convention, points=points, resamples=bootstrap.RESAMPLES)
    metrics = evaluate(ground_truth, results, by=config.data.split.by, **options)
    about = describe(source, ground_truth, config, checkpoint=checkpoint, **options)
    print_report(metrics, about)
    drawn = curves(ground_truth, results, convention=convention, points=points)
    write_report(out, metrics=metrics, results=results, about=about, ground_truth=ground_truth, curves=drawn)
    films = worst_films(source, ground_truth, results, drawn['thresholds'], convention=convention)
    html_report.write(Path(out) / 'report.html', about=about, metrics=metrics, curves=drawn, films=films,
                      headline=HEADLINE, not_shares=NOT_SHARES)
    return metrics


def write_report(out, *, metrics: dict, results: list, about: dict, ground_truth: dict, curves: dict) -> Path:
    """Writes into the folder `out`, which is made if needed: `metrics.json` (about and metrics), `curves.json` (of
    `curve_data`), `detections.json` and `ground_truth.json` (COCO), undefined numbers as null. Returns the path of
    metrics.json."""
    path = write_detections(out, results).with_name('metrics.json')
    files.write_json(path.with_name(GROUND_TRUTH), ground_truth, indent=None)
    files.write_json(path.with_name('curves.json'), curves, indent=None)
    files.write_json(path, dict(about=about, metrics=metrics))
    return path


def read_evaluation(folder: str | Path) -> tuple[dict, list]:
    """(ground truth, results) that `write_report` wrote into the folder."""
    return files.read_json(Path(folder) / GROUND_TRUTH), files.read_json(Path(folder) / DETECTIONS)


def write_detections(out, results: list) -> Path:
    """Write `detections.json` into the folder `out`, which is made if needed. Returns its path."""
    path = Path(out) / DETECTIONS
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, results, indent=None)
    return path
