"""COCO average precision and recall of boxes and masks, computed by pycocotools."""
import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from relnet_jax.evaluation.ranking import Ranked

NAMES = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl')


def has_mask(annotation: dict) -> bool:
    return bool(annotation.get('segmentation'))


def _image_numbers(ground_truth: dict) -> dict:
    """Image id -> a number for pycocotools, which wants no text, in the order of the ids, as it takes them itself."""
    ids = [image['id'] for image in ground_truth['images']]
    return {i: n for n, i in enumerate(sorted(ids, key=str if any(isinstance(i, str) for i in ids) else None), start=1)}


def _as_coco(ground_truth: dict, iou_type: str, numbers: dict) -> COCO:
    """Ground truth as pycocotools wants it, without touching the caller's dict.

    Ids are renumbered from 1, since pycocotools takes a match with annotation 0 for no match; images get their
    `numbers`. For 'segm', an object without a mask becomes an ignored region (its box, as a crowd): a detection there
    is neither right nor wrong.
    """
    annotations = []
    for number, a in enumerate(ground_truth['annotations'], start=1):
        x, y, w, h = a['bbox']
        a = dict(a, id=number, image_id=numbers[a['image_id']], iscrowd=a.get('iscrowd', 0), area=a.get('area', w * h))
        if iou_type == 'segm' and not has_mask(a):
            a.update(iscrowd=1, segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]])
        annotations.append(a)
    coco = COCO()
    images = [dict(image, id=numbers[image['id']]) for image in ground_truth['images']]
    coco.dataset = dict(images=images, categories=ground_truth['categories'], annotations=annotations)
    coco.createIndex()
    return coco


def _load_results(coco: COCO, results: list, iou_type: str, numbers: dict) -> COCO:
    for i, r in enumerate(results):
        if r['image_id'] not in numbers:
            raise ValueError(f'result {i}: image_id {r["image_id"]!r} is not in the ground truth '
                             f'({len(numbers)} images)')
        if iou_type == 'segm' and 'segmentation' not in r:
            raise ValueError(f'result {i}: has no segmentation, which mask AP needs')
    if not results:
        empty = COCO()
        empty.dataset = dict(coco.dataset, annotations=[])
        empty.createIndex()
        return empty
    # Without its box, the size class (small, medium, large) of a result is that of its mask.
    keep = ('category_id', 'score', 'bbox' if iou_type == 'bbox' else 'segmentation')
    return coco.loadRes([{k: r[k] for k in keep} | dict(image_id=numbers[r['image_id']]) for r in results])


def _mean(values) -> float:
    """Mean over what is defined (pycocotools marks the rest by -1); NaN if nothing is."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float('nan')


def coco_evaluation(ground_truth: dict, results: list, iou_type: str, *, image_ids=None) -> COCOeval:
    """pycocotools' evaluation, matched and accumulated. Arguments and errors as those of `coco_metrics`."""
    numbers = _image_numbers(ground_truth)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _as_coco(ground_truth, iou_type, numbers)
        evaluation = COCOeval(truth, _load_results(truth, results, iou_type, numbers), iou_type)
        if image_ids is not None:
            evaluation.params.imgIds = sorted(numbers[i] for i in image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def coco_metrics(ground_truth: dict, results: list, iou_type: str, *, image_ids=None) -> dict:
    """AP, AP50, AP75, APs/m/l, AR1/10/100, ARs/m/l in 0..1, and `per_class`: name -> dict(AP, AP50).

    `ground_truth` is a COCO dict, `results` COCO result records, `iou_type` 'bbox' or 'segm'. All images of the ground
    truth are evaluated, or those of `image_ids`. Classes without ground truth stay out of every mean and are NaN
    themselves, as is a size class without objects; with ground truth and no results everything is 0. Raises ValueError
    for results of unknown images or, for 'segm', without segmentation.
    """
    return summary(coco_evaluation(ground_truth, results, iou_type, image_ids=image_ids), ground_truth)


def summary(evaluation: COCOeval, ground_truth: dict) -> dict:
    """The metrics of `coco_metrics`."""
    metrics = {name: float(v) if v > -1 else float('nan') for name, v in zip(NAMES, evaluation.stats)}
    precision = evaluation.eval['precision'][:, :, :, 0, -1]  # [IoU, recall, class] for all sizes, most detections
    names = {c['id']: c['name'] for c in ground_truth['categories']}
    metrics['per_class'] = {
        names[i]: dict(AP=_mean(precision[:, :, k]), AP50=_mean(precision[0, :, k]))
        for k, i in enumerate(evaluation.params.catIds)}
    return metrics


def rankings(evaluation: COCOeval, ground_truth: dict) -> list[list[Ranked]]:
    """For each class, in pycocotools' order of them, and each of its ten IoUs: what became of the detections, at all
    sizes and the most detections per image."""
    numbers, count = _image_numbers(ground_truth), len(ground_truth['images'])
    position = {numbers[image['id']]: i for i, image in enumerate(ground_truth['images'])}
    images = len(evaluation.params.imgIds)
    per_class = len(evaluation.params.areaRng) * images     # evalImgs: by class, then size, all sizes first, then image
    found = []
    for k in range(len(evaluation.params.catIds)):
        entries = [e for e in evaluation.evalImgs[k * per_class:k * per_class + images] if e is not None]
        objects = np.zeros(count)
        for e in entries:
            objects[position[e['image_id']]] = np.count_nonzero(e['gtIgnore'] == 0)
        score = np.concatenate([np.zeros(0), *(e['dtScores'] for e in entries)])
        image = np.repeat([position[e['image_id']] for e in entries], [len(e['dtScores']) for e in entries]).astype(int)
        ranked = np.argsort(-score, kind='stable')
        match, ignored = (np.concatenate([np.zeros((len(evaluation.params.iouThrs), 0)), *(e[key] for e in entries)], 1)
                          .astype(bool)[:, ranked] for key in ('dtMatches', 'dtIgnore'))
        found.append([Ranked(image[ranked], score[ranked], right, wrong, objects)
                      for right, wrong in zip(match & ~ignored, ~match & ~ignored)])
    return found
