"""Lung nodules as on JSRT: a detection hits by where its centre lies, whatever its box.

The films: Shiraishi et al., "Development of a digital image database for chest radiographs with and without a lung
nodule", AJR 174, 2000.
"""
from collections.abc import Sequence

import numpy as np

from relnet_jax.evaluation.bootstrap import Measure
from relnet_jax.evaluation.froc import froc
from relnet_jax.evaluation.matching import by_distance, ranked
from relnet_jax.evaluation.ranking import Ranked

USUAL_MM = 22.0
RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def ranking(ground_truth: dict, results: list, *, category: str = 'Nodule', mm: float = USUAL_MM) -> Ranked:
    """Detections of the class: the first within `mm` of a nodule's centre is right, later ones are ignored, all others
    are wrong. mm=0: within the nodule's radius (strict), which needs no `mm_per_pixel` of the images.

    Raises UserError for an image without `mm_per_pixel`, ValueError for a result of an unknown image.
    """
    return ranked(by_distance(ground_truth, results, mm=mm)[category], 1.0, duplicates='ignored')


def measure_of(of: Ranked, *, prefix: str = 'nodules', rates: Sequence[float] = RATES,
               normal: np.ndarray | None = None) -> Measure:
    """{prefix}_0.25 and so on, the sensitivity at each rate of false positives per film, and {prefix}_mean of them.

    Over all films, or with `normal` (`froc.normal_films`) over these.
    """
    def measure(weights: np.ndarray) -> dict:
        found = froc(of, weights, rates=rates, normal=normal)
        return {f'{prefix}_{rate:g}': found[i] for i, rate in enumerate(rates)} | {f'{prefix}_mean': found.mean(0)}
    return measure


