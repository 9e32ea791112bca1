"""Detections of a class ranked by score, reduced to counts that can be weighted by image.

A bootstrap resample is a weight for each image: how often it was drawn. Only right detections change recall, so that
sums of weights at these, all resamples at once, are all that average precision and FROC need; the wrong ones between
two right ones are added up by one product with a sparse matrix. Weights of 1 give the measured value itself.
"""
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

RECALLS = np.linspace(0, 1, 101)    # COCO's


class Ranked(NamedTuple):
    """What became of the detections of one class over all images, best first; neither right nor wrong: not counted."""
    image: np.ndarray       # int [D] position of the image
    score: np.ndarray       # float64 [D], falling
    right: np.ndarray       # bool [D]
    wrong: np.ndarray       # bool [D]
    objects: np.ndarray     # float64 [I] objects that count, by image


class Counts(NamedTuple):
    """Sums of weights for R resamples; H right detections, best first."""
    right: np.ndarray       # float64 [H, R] right ones up to and with each
    wrong: np.ndarray       # float64 [H, R] wrong ones ranked before each
    all_wrong: np.ndarray   # float64 [R]
    objects: np.ndarray     # float64 [R]


def counts(ranked: Ranked, weights: np.ndarray) -> Counts:
    """`weights` float64 [R, I], by image."""
    right, wrong = np.flatnonzero(ranked.right), np.flatnonzero(ranked.wrong)
    place = np.searchsorted(right, wrong)       # how many right ones come before
    shape = len(right) + 1, weights.shape[1]
    between = csr_array((np.ones(len(wrong)), (place, ranked.image[wrong])), shape=shape) @ weights.T
    before = np.cumsum(between, 0)
    return Counts(np.cumsum(weights.T[ranked.image[right]], 0), before[:-1], before[-1], weights @ ranked.objects)


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole > 0)


def _envelope(c: Counts) -> np.ndarray:
    """Precision [H, R] at each right detection, made non-increasing from the right."""
    ranked = c.right + c.wrong
    precision = np.divide(c.right, ranked, out=np.zeros_like(ranked), where=ranked > 0)
    return np.maximum.accumulate(precision[::-1], 0)[::-1]


def average_precision(c: Counts) -> np.ndarray:
    """Area [R] under all points of the precision envelope (`voc.average_precision`); NaN without objects."""
    return share((np.diff(c.right, axis=0, prepend=0) * _envelope(c)).sum(0), c.objects)


def average_precision_101(c: Counts) -> np.ndarray:
    """Mean [R] of the precision envelope at COCO's 101 recalls; NaN without objects."""
    reached = np.searchsorted(RECALLS, np.nan_to_num(share(c.right, c.objects)), side='right')
    area = (np.diff(reached, axis=0, prepend=0) * _envelope(c)).sum(0) / len(RECALLS)
    return np.where(c.objects > 0, area, np.nan)


def sensitivity(c: Counts, films: np.ndarray, fp_per_film, *, below: bool = False) -> np.ndarray:
    """Share [R] of the objects found by the part of the ranking that has at most `fp_per_film` wrong ones per film.

    films: float64 [R], the weight of the films in which wrong ones are counted. below: less than `fp_per_film`, that
    is, up to the point where the wrong ones reach it. NaN without objects or films.
    """
    rate = share(c.wrong, films)
    within = rate < fp_per_film if below else rate <= fp_per_film
    found = np.where(within, c.right, 0).max(0, initial=0)
    return np.where(films > 0, share(found, c.objects), np.nan)


def precision_recall(ranked: Ranked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(recall, precision, score) after each detection that counts, best first; there must be objects."""
    listed = ranked.right | ranked.wrong
    hits = np.cumsum(ranked.right[listed])
    return hits / ranked.objects.sum(), hits / np.arange(1, len(hits) + 1), ranked.score[listed]
