"""Nodules and anatomical structures by the measures of JSRT and SCR, where a data set allows them.

`nodules` and `structures` say whose they are. They join the other metrics by themselves, so that intervals, reports and
comparisons have them too.
"""
import numpy as np

from relnet_jax.evaluation import nodules, structures
from relnet_jax.evaluation.bootstrap import Measure

NODULE = 'Nodule'
RATES = (0.5, 1.0, 2.0, 4.0)                                    # false positives per film
HITS = {'nodule_radius': 0.0, 'nodule_22mm': nodules.USUAL_MM}   # prefix -> mm, see `nodules.ranking`


def of_chest_films(ground_truth: dict, results: list, *, masks: bool) -> Measure:
    """nodule_radius_{rate} and nodule_22mm_{rate}, the sensitivity at RATES, and their mean, for the class NODULE in
    films whose records have `mm_per_pixel`; jaccard_{structure}, of SCR's whose classes are all known, with `masks`.

    masks: whether results and ground truth have any. Empty where nothing of this is there.
    """
    names = {c['name'] for c in ground_truth['categories']}
    parts = []
    if NODULE in names and all(image.get('mm_per_pixel') for image in ground_truth['images']):
        for prefix, mm in HITS.items():
            ranking = nodules.ranking(ground_truth, results, category=NODULE, mm=mm)
            parts.append(nodules.measure_of(ranking, prefix=prefix, rates=RATES))
    known = {name: classes for name, classes in structures.SCR.items() if names.issuperset(classes)}
    if masks and known:
        values = structures.jaccard(ground_truth, results, known)
        parts.append(structures.measure_of({f'jaccard_{name}': v for name, v in values.items()}))

    def measure(weights: np.ndarray) -> dict:
        return {name: v for part in parts for name, v in part(weights).items()}
    return measure
