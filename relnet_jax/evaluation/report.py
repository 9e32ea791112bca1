"""All metrics of one result list, and the report that says what they were measured on."""
import math
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from relnet_jax import files
from relnet_jax.evaluation.coco import coco_metrics, has_mask
from relnet_jax.evaluation.voc import voc_metrics

VOC_IOUS = (0.01, 0.50)  # the lab's mAP1 and mAP50


def evaluate(ground_truth: dict, results: list, *, convention: str = 'pixel_inclusive') -> dict:
    """Flat metrics in 0..1: `box_AP`, `box_AP50`, ... (see `coco.NAMES`), `mask_AP`, ..., `voc_AP_0.01`, `voc_AP_0.50`.

    `per_class` is nested: name -> dict(objects, box_AP, box_AP50, mask_AP, mask_AP50, voc_AP_0.01, voc_AP_0.50).
    `ground_truth` is a COCO dict and `results` are COCO result records; `convention` is that of `voc.voc_metrics`.
    Mask metrics are there if the ground truth holds any mask and no result lacks one.
    What is undefined (no ground truth of a class or size) is NaN.
    """
    categories, annotations = ground_truth['categories'], ground_truth['annotations']
    objects = {c['id']: 0 for c in categories}
    for a in annotations:
        objects[a['category_id']] += not a.get('iscrowd')
    per_class = {c['name']: dict(objects=objects[c['id']]) for c in categories}
    metrics = {}

    masks = any(map(has_mask, annotations)) and all('segmentation' in r for r in results)
    for prefix, iou_type in (('box', 'bbox'), ('mask', 'segm'))[:1 + masks]:
        found = coco_metrics(ground_truth, results, iou_type)
        for name, values in found.pop('per_class').items():
            per_class[name].update({f'{prefix}_{k}': v for k, v in values.items()})
        metrics.update({f'{prefix}_{k}': v for k, v in found.items()})
    for iou, found in voc_metrics(ground_truth, results, iou_thresholds=VOC_IOUS, convention=convention).items():
        metrics[f'voc_AP_{iou:.2f}'] = found['mAP']
        for name, ap in found['per_class'].items():
            per_class[name][f'voc_AP_{iou:.2f}'] = ap
    return dict(metrics, per_class=per_class)


def describe(source, ground_truth: dict, config, *, checkpoint: str, convention: str = 'pixel_inclusive') -> dict:
    """What a number of `evaluate` means: data set, its size, checkpoint, config and post-processing.

    `source` is the data source, `ground_truth` its COCO dict, `checkpoint` names the weights for the reader.
    """
    annotations = ground_truth['annotations']
    with_findings = len({a['image_id'] for a in annotations})
    t = config.test
    return dict(
        data_set=source.name, images=len(ground_truth['images']), images_with_findings=with_findings,
        images_without_findings=len(ground_truth['images']) - with_findings, objects=len(annotations),
        objects_without_mask=sum(not has_mask(a) for a in annotations), checkpoint=checkpoint, config=config.name,
        synthetic=config.data.format == 'phantom',
        post_processing=dict(
            proposals=t.boxes, score_threshold=t.score_threshold, nms_iou=t.nms, detections_per_image=t.detections,
            mask_threshold=t.mask_threshold, coordinates='pixels of the original image', voc_convention=convention))


def print_report(metrics: dict, about: dict, *, console: Console | None = None) -> None:
    """The summary of `describe` and a table per class, values in percent, on the screen (or `console`)."""
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
    masks = 'mask_AP' in metrics
    if masks and about['objects_without_mask']:
        console.print(f"{'masks:':16} {about['objects_without_mask']} objects without a mask are ignored in mask AP",
                      highlight=False)
    columns = ['box_AP', 'box_AP50'] + ['mask_AP', 'mask_AP50'] * masks + [f'voc_AP_{iou:.2f}' for iou in VOC_IOUS]
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


def _percent(value: float) -> str:
    return '-' if math.isnan(value) else f'{100 * value:.1f}'


def write_report(out, *, metrics: dict, results: list, about: dict) -> Path:
    """Write `metrics.json` (about and metrics; undefined numbers are null) and `detections.json` (COCO result format)
    into the folder `out`, which is made if needed. Returns the path of metrics.json."""
    path = write_detections(out, results).with_name('metrics.json')
    files.write_json(path, dict(about=about, metrics=metrics))
    return path


def write_detections(out, results: list) -> Path:
    """Write `detections.json` into the folder `out`, which is made if needed. Returns its path."""
    path = Path(out) / 'detections.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, results, indent=None)
    return path
