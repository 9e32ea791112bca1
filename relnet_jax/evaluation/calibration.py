"""Whether scores are probabilities: reliability by bins, expected calibration error, the temperature that mends it.

A detection's score is taken as the probability that it is right (Kueppers et al., "Multivariate confidence calibration
for object detection", CVPR workshops 2020). What the detector leaves out below its score threshold is not seen.
"""
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from relnet_jax.evaluation.ranking import Ranked, share
from relnet_jax.runs.operating_points import calibrated

BINS = 15       # of equal width, as in Guo et al., "On calibration of modern neural networks", ICML 2017
COLDEST, HOTTEST = 1 / 20, 20.0     # bounds of a fitted temperature


class Judged(NamedTuple):
    """Detections of all classes that are right or wrong."""
    image: np.ndarray       # int [D]
    score: np.ndarray       # float64 [D]
    right: np.ndarray       # bool [D]


class Reliability(NamedTuple):
    """By bins of the score, for R resamples."""
    count: np.ndarray       # float64 [BINS, R]
    score: np.ndarray       # float64 [BINS, R] mean; NaN in an empty bin
    right: np.ndarray       # float64 [BINS, R] share; NaN in an empty bin


def judged(rankings: list[Ranked]) -> Judged:
    parts = [(r.image[own], r.score[own], r.right[own]) for r in rankings for own in [r.right | r.wrong]]
    empty = np.zeros(0, int), np.zeros(0), np.zeros(0, bool)
    return Judged(*map(np.concatenate, zip(empty, *parts)))


def reliability(of: Judged, weights: np.ndarray) -> Reliability:
    """`weights` float64 [R, I], by image."""
    images = weights.shape[1]
    place = np.minimum((of.score * BINS).astype(int), BINS - 1) * images + of.image
    count, score, right = (np.bincount(place, values, BINS * images).reshape(BINS, images) @ weights.T
                           for values in (np.ones(len(place)), of.score, of.right.astype(float)))
    return Reliability(count, share(score, count), share(right, count))


def expected_calibration_error(r: Reliability) -> np.ndarray:
    """Mean [R] over the detections of |share that is right - mean score| of their bin; NaN without detections."""
    return share((r.count * np.nan_to_num(np.abs(r.right - r.score))).sum(0), r.count.sum(0))


def fit_temperature(of: Judged) -> float:
    """The temperature of `calibrated` with the least negative log likelihood; 1 where all or none are right."""
    if of.right.all() or not of.right.any():
        return 1.0

    def loss(coldness: float) -> float:     # convex in 1 / temperature
        p = calibrated(of.score, 1 / coldness)
        return -np.log(np.maximum(np.where(of.right, p, 1 - p), 1e-300)).mean()
    return float(1 / minimize_scalar(loss, bounds=(1 / HOTTEST, 1 / COLDEST), method='bounded',
                                     options=dict(xatol=1e-6)).x)
