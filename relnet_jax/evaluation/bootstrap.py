"""Bootstrap over patients: bias-corrected percentile intervals of any metric that can be weighted by image.

Efron and Tibshirani, "An introduction to the bootstrap", 1993, ch. 13 and 14. Films of one patient are drawn together,
for they are not independent. The correction matters where classes are rare: average precision of a resample, which
holds the same detections several times, is too high on average, and plain percentiles with it (docs/metrics.md).
"""
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from relnet_jax.data.duplicates import PATIENT_KEYS

RESAMPLES = 1000
CONFIDENCE = 0.95
CHUNK = 4_000_000       # weights at a time: what is held of them stays below 32 MB

Measure = Callable[[np.ndarray], dict[str, np.ndarray]]     # weights [R, I] -> name -> [R], or [K, R] by class


def patients(images: Sequence[dict], by: str = '') -> tuple[np.ndarray, str]:
    """(int [I] number of the group that each image is drawn with, what the groups are).

    A group is an equal value of the record key `by`, or else of the first of PATIENT_KEYS, that every image has; else
    each image is one.
    """
    by = next((key for key in (by, *PATIENT_KEYS) if key != 'id' and
               all(image.get(key) not in (None, '') for image in images)), 'id')
    _, group = np.unique([str(image[by]) for image in images], return_inverse=True)
    return group, 'images' if by == 'id' else f'patients ({by})'


def resamples(group: np.ndarray, count: int, *, seed: int = 0) -> Iterator[np.ndarray]:
    """Weights float64 [r, I] of `count` resamples in all: how often the group of each image was drawn."""
    rng = np.random.default_rng(seed)
    groups = int(group.max(initial=-1)) + 1
    while count > 0 and groups:
        r = min(count, max(CHUNK // len(group), 1))
        drawn = rng.integers(groups, size=(r, groups)) + groups * np.arange(r)[:, None]
        times = np.bincount(drawn.ravel(), minlength=r * groups).reshape(r, groups)
        yield times[:, group].astype(float)
        count -= r


def means(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """name -> [R]; values by class, [K, R], become their mean over the classes that are defined, NaN where none is."""
    def mean(v: np.ndarray) -> np.ndarray:
        defined = ~np.isnan(v)
        counted = defined.sum(0)
        return np.divide(np.where(defined, v, 0).sum(0), counted, out=np.full(v.shape[1], np.nan), where=counted > 0)
    return {name: mean(v) if v.ndim == 2 else v for name, v in values.items()}


def draws(measure: Measure, group: np.ndarray, *, count: int = RESAMPLES, seed: int = 0) -> dict[str, np.ndarray]:
    """name -> [count], the metrics of each resample. Equal groups, counts and seeds mean equal resamples."""
    parts = [means(measure(weights)) for weights in resamples(group, count, seed=seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def interval(values: np.ndarray, measured: float) -> tuple[float, float]:
    """95 % interval from the defined ones of `values`, the metric in resamples, and what was measured; NaN without.

    Efron's bias-corrected percentiles: where a share p of the resamples lies below what was measured, the tails are cut
    at normal quantiles that are shifted by twice that of p.
    """
    values = values[~np.isnan(values)]
    if not len(values) or np.isnan(measured):
        return float('nan'), float('nan')
    below = ((values < measured).mean() + (values <= measured).mean()) / 2
    shift = 2 * ndtri(np.clip(below, 1 / len(values), 1 - 1 / len(values))) if len(values) > 1 else 0.0
    tail = ndtri((1 + CONFIDENCE) / 2)
    low, high = np.quantile(values, ndtr([shift - tail, shift + tail]))
    return float(low), float(high)
