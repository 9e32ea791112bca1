"""Every metric of boxes, masks and films as one function of the weights of the images, matched once."""
import numpy as np
from pycocotools.cocoeval import COCOeval

from relnet_jax.evaluation import calibration, image_level, operating
from relnet_jax.evaluation.bootstrap import Measure
from relnet_jax.evaluation.chest_films import of_chest_films
from relnet_jax.evaluation.coco import coco_evaluation, has_mask, rankings
from relnet_jax.evaluation.froc import CHESTX_DET10_RATES, RATES, chestx_det10_recall, froc, lab_recall
from relnet_jax.evaluation.matching import by_overlap, ranked
from relnet_jax.evaluation.ranking import Ranked, average_precision, average_precision_101, counts
from relnet_jax.runs.operating_points import OperatingPoints, calibrated

HIT = 0.5                                       # IoU of a hit where a metric does not say otherwise
LAB_IOUS = (0.01, 0.50)                         # the lab's mAP1 and mAP50
VINDR_IOU = 0.40
RSNA_IOUS = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75)
COCO_AT = {'AP': slice(None), 'AP50': slice(0, 1), 'AP75': slice(5, 6)}     # of COCO's IoUs 0.50, 0.55 .. 0.95


def everything(ground_truth: dict, results: list, *, convention: str = 'pixel_inclusive',
               points: OperatingPoints | None = None) -> tuple[dict[str, COCOeval], Measure]:
    """('box' and, if the ground truth holds any mask and no result lacks one, 'mask' -> pycocotools' evaluation; all of
    `of_coco`, `of_boxes` and `chest_films.of_chest_films`)."""
    masks = any(map(has_mask, ground_truth['annotations'])) and all('segmentation' in r for r in results)
    coco = {prefix: coco_evaluation(ground_truth, results, iou_type)
            for prefix, iou_type in (('box', 'bbox'), ('mask', 'segm'))[:1 + masks]}
    parts = [of_coco(rankings(evaluation, ground_truth), prefix) for prefix, evaluation in coco.items()]
    parts.append(of_boxes(ground_truth, results, convention=convention, points=points))
    parts.append(of_chest_films(ground_truth, results, masks=masks))
    return coco, lambda weights: {name: v for part in parts for name, v in part(weights).items()}


def of_coco(rankings: list[list[Ranked]], prefix: str) -> Measure:
    """{prefix}_AP, {prefix}_AP50 and {prefix}_AP75 by class; `rankings` are those of `coco.rankings`."""
    def measure(weights: np.ndarray) -> dict:
        by_class = [np.stack([average_precision_101(counts(r, weights)) for r in ious]) for ious in rankings]
        return {f'{prefix}_{name}': np.stack([found[ious].mean(0) for found in by_class])
                for name, ious in COCO_AT.items()}
    return measure


def of_boxes(ground_truth: dict, results: list, *, convention: str = 'pixel_inclusive',
             points: OperatingPoints | None = None) -> Measure:
    """Everything else, by class where there are classes: VOC-style AP, FROC, recall at fixed rates of false positives,
    AUC of films, calibration, and, with operating points, what they give."""
    looks = by_overlap(ground_truth, results, convention=convention)
    rankings = {t: [ranked(of_class, t) for of_class in looks.values()] for t in {*LAB_IOUS, *RSNA_IOUS}}
    films = image_level.films(ground_truth, results)
    empty = image_level.no_finding(films)
    judged = calibration.judged(rankings[HIT])

    def measure(weights: np.ndarray) -> dict:
        images = weights.sum(1)
        at = {t: np.stack([average_precision(counts(r, weights)) for r in rankings[t]]) for t in rankings}
        rsna = np.stack([at[t] for t in RSNA_IOUS]).mean(0)
        no_finding = average_precision(counts(empty, weights))[None]
        values = {f'voc_AP_{t:.2f}': at[t] for t in (*LAB_IOUS, VINDR_IOU)}
        values |= {'voc_AP_0.40_no_finding': np.concatenate([at[VINDR_IOU], no_finding]), 'voc_AP_0.40_0.75': rsna,
                   'voc_AP_0.40_0.75_no_finding': np.concatenate([rsna, no_finding])}

        curves = np.stack([froc(r, weights) for r in rankings[HIT]], 1)
        values |= {f'froc_{rate:g}': curves[i] for i, rate in enumerate(RATES)} | {'froc_mean': curves.mean(0)}
        hit = [counts(r, weights) for r in rankings[HIT]]
        recall = np.stack([chestx_det10_recall(c, images) for c in hit], 1)
        values |= {f'chestx_det10_recall_{rate:.2f}': recall[i] for i, rate in enumerate(CHESTX_DET10_RATES)}
        values |= {'chestx_det10_recall_mean': recall.mean(0),
                   'lab_recall_0.20': np.stack([lab_recall(c, images) for c in hit])}

        values['image_AUC'] = np.stack([image_level.auc(*of_class, weights)
                                        for of_class in zip(films.scores, films.shown)])
        values['no_finding_AUC'] = image_level.auc(films.any_score, films.any_shown, weights)
        values['ECE'] = _ece(judged, weights)
        return values

    if points is None:
        return measure
    shown = operating.hits(ground_truth, results, convention=convention)
    cooled = judged._replace(score=calibrated(judged.score, points.temperature))

    def with_points(weights: np.ndarray) -> dict:
        at = [operating.at_threshold(r, points.thresholds.get(name, 0.0), weights) for name, r in shown.items()]
        return measure(weights) | {
            'operating_sensitivity': np.stack([a.sensitivity for a in at]),
            'operating_fp_per_film': np.stack([a.fp_per_film for a in at]).sum(0),
            'ECE_calibrated': _ece(cooled, weights)}
    return with_points


def _ece(judged: calibration.Judged, weights: np.ndarray) -> np.ndarray:
    return calibration.expected_calibration_error(calibration.reliability(judged, weights))
