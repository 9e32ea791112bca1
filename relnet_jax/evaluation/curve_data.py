"""The curves, tables and counts behind the metrics as plain lists and dicts: what a report draws, written as JSON."""
from collections.abc import Sequence

import numpy as np

from relnet_jax.evaluation import calibration, failures, image_level, operating
from relnet_jax.evaluation.froc import froc, normal_films
from relnet_jax.evaluation.matching import by_overlap, ranked
from relnet_jax.evaluation.measures import HIT
from relnet_jax.evaluation.overlays import MIN_SCORE
from relnet_jax.evaluation.ranking import Ranked, average_precision, counts, precision_recall
from relnet_jax.runs.operating_points import OperatingPoints, calibrated

POINTS = 200            # of a curve at most
FROC_RATES = tuple(2.0 ** (k / 4) for k in range(-20, 13))     # 1/32 to 8
HISTOGRAM_BINS = 50
ANY_FINDING = 'Any finding'


def curves(ground_truth: dict, results: list, *, convention: str = 'pixel_inclusive',
           points: OperatingPoints | None = None) -> dict:
    """JSON values, in 0..1 unless said otherwise; classes without objects have no curves:

    * iou: of a hit.
    * precision_recall: class -> recall, precision, score (lists, best first), AP.
    * froc: class -> fp_per_film, sensitivity, score (lists, best first). froc_mean: sensitivity, mean over classes, at
      FROC_RATES, false positives counted in `all_films` and in `normal_films`, those without any finding.
    * roc: class, and ANY_FINDING -> false_positive_rate, sensitivity, score (lists; null: above all), AUC.
    * reliability: count (detections), score, right (lists by bin of equal width), ECE; `calibrated`: the same under the
      temperature of `points`, null without.
    * scores: edges, right, wrong: detections by score.
    * thresholds: of the next two, class -> lowest score: those of `points`, else overlays.MIN_SCORE.
    * confusion: names, counts (rows what is there, columns what was said, the last of each nothing).
    * failures: truth and detections, reason -> number, see `failures.Failures`.
    * operating: class -> threshold, sensitivity, fp_per_film, objects (number); null without `points`.
    """
    names, once = [c['name'] for c in ground_truth['categories']], np.ones((1, len(ground_truth['images'])))
    looks = by_overlap(ground_truth, results, convention=convention)
    rankings = {name: ranked(of_class, HIT) for name, of_class in looks.items()}
    judged = calibration.judged(list(rankings.values()))
    thresholds = {name: points.thresholds.get(name, 0.0) if points else MIN_SCORE for name in names}
    found = failures.failures(ground_truth, results, thresholds, convention=convention)
    confused, matrix = failures.confusion(ground_truth, results, found)
    with_objects = {name: r for name, r in rankings.items() if r.objects.any()}
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    return dict(
        iou=HIT,
        precision_recall={name: _precision_recall(r, once) for name, r in with_objects.items()},
        froc={name: _froc(r) for name, r in with_objects.items()},
        froc_mean=_froc_mean(list(with_objects.values()), once, normal_films(ground_truth)),
        roc=_rocs(image_level.films(ground_truth, results), once),
        reliability=_reliability(judged, once),
        calibrated=points and _reliability(judged._replace(score=calibrated(judged.score, points.temperature)), once),
        scores=dict(edges=edges.tolist(), right=np.histogram(judged.score[judged.right], edges)[0].tolist(),
                    wrong=np.histogram(judged.score[~judged.right], edges)[0].tolist()),
        thresholds=thresholds, confusion=dict(names=confused, counts=matrix.tolist()), failures=found.counts,
        operating=points and operating.table(ground_truth, results, points, convention=convention))


def thin(*columns: np.ndarray) -> list[list[float]]:
    """At most POINTS of the points of a curve, the first and the last among them, as lists."""
    count = len(columns[0])
    rows = np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))
    return [column[rows].tolist() for column in columns]


def _precision_recall(r: Ranked, once: np.ndarray) -> dict:
    recall, precision, score = thin(*precision_recall(r))
    return dict(recall=recall, precision=precision, score=score, AP=float(average_precision(counts(r, once))[0]))


def _froc(r: Ranked) -> dict:
    listed = r.right | r.wrong
    wrong, sensitivity, score = thin(np.cumsum(r.wrong[listed]) / len(r.objects),
                                     np.cumsum(r.right[listed]) / r.objects.sum(), r.score[listed])
    return dict(fp_per_film=wrong, sensitivity=sensitivity, score=score)


def _froc_mean(rankings: Sequence[Ranked], once: np.ndarray, normal: np.ndarray) -> dict:
    def mean(films: np.ndarray | None) -> list:
        curves = [froc(r, once, rates=FROC_RATES, normal=films)[:, 0] for r in rankings]
        return np.mean(curves, 0).tolist() if curves else []
    return dict(fp_per_film=list(FROC_RATES), all_films=mean(None), normal_films=mean(normal))


def _rocs(films: image_level.Films, once: np.ndarray) -> dict:
    rows = [*zip(films.names, films.scores, films.shown), (ANY_FINDING, films.any_score, films.any_shown)]
    found = {}
    for name, score, shown in rows:
        if shown.any() and not shown.all():
            rate, sensitivity, at = thin(*image_level.roc(score, shown))
            found[name] = dict(false_positive_rate=rate, sensitivity=sensitivity, score=at,
                               AUC=float(image_level.auc(score, shown, once)[0]))
    return found


def _reliability(judged: calibration.Judged, once: np.ndarray) -> dict:
    r = calibration.reliability(judged, once)
    return dict(count=r.count[:, 0].tolist(), score=r.score[:, 0].tolist(), right=r.right[:, 0].tolist(),
                ECE=float(calibration.expected_calibration_error(r)[0]))
