"""Sensitivity at fixed rates of false positives per film: FROC, ChestX-Det10's recall, the lab's operating point.

FROC: Bunch et al., "A free-response approach to the measurement and characterization of radiographic-observer
performance", J. Appl. Photogr. Eng. 1978; the mean at 1/8 to 8 false positives: van Ginneken et al., "Comparing and
combining algorithms for computer-aided detection of pulmonary nodules ... (ANODE09)", Medical Image Analysis 2010.
"""
from collections.abc import Sequence

import numpy as np

from relnet_jax.evaluation.ranking import Counts, Ranked, counts, sensitivity

RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
CHESTX_DET10_RATES = (0.05, 0.1, 0.2)
LAB_RATE = 0.2


def normal_films(ground_truth: dict) -> np.ndarray:
    """bool [I]: films without an annotation of any class."""
    with_findings = {a['image_id'] for a in ground_truth['annotations']}
    return np.array([image['id'] not in with_findings for image in ground_truth['images']], bool)


def froc(ranked: Ranked, weights: np.ndarray, *, rates: Sequence[float] = RATES,
         normal: np.ndarray | None = None) -> np.ndarray:
    """Sensitivity [len(rates), R] where the false positives of the class per film are at most each rate.

    weights: float64 [R, I], by image. False positives are counted in all films, or with `normal`, bool [I], in these
    only and per one of them. The curve is a step: no point between two thresholds is made up.
    """
    films = weights.sum(1)
    if normal is not None:
        ranked, films = ranked._replace(wrong=ranked.wrong & normal[ranked.image]), weights[:, normal].sum(1)
    c = counts(ranked, weights)
    return np.stack([sensitivity(c, films, rate) for rate in rates])


def chestx_det10_recall(c: Counts, films: np.ndarray) -> np.ndarray:
    """Recall [3, R] at 0.05, 0.1 and 0.2 false positives per film, as eval.py of the ChestX-Det10-Dataset reckons it.

    Its linear interpolation over (false positives per film, recall) is flat between two false positives and takes the
    first point at one, that is, what is found before the rate is reached; beyond the last false positive, what is found
    before that one. c: of rankings at IoU 0.5 of `pixel_inclusive` boxes, in which duplicates are wrong. films: [R].
    """
    last = np.where(c.all_wrong > 0, c.all_wrong / np.maximum(films, 1), np.inf)
    return np.stack([sensitivity(c, films, np.minimum(rate, last), below=True) for rate in CHESTX_DET10_RATES])


def lab_recall(c: Counts, films: np.ndarray) -> np.ndarray:
    """Recall [R] at the first point of the ranking where the false positives reach 0.2 per film."""
    return sensitivity(c, films, LAB_RATE, below=True)
