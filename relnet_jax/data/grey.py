"""Values of more than 8 bits -> 256 grey levels, spread between two percentiles."""
import math

import numpy as np


def by_percentiles(values: np.ndarray, counts: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """float64 [n] in 0..255: `values` [n] from the lower to the upper percentile of `window`, spread over the levels.

    counts: int [n], how many pixels have each value. A percentile is the smallest value that so many percent of all
    pixels do not exceed; without any spread all become 0.
    """
    order = np.argsort(values, kind='stable')
    not_above = np.cumsum(counts[order])
    ranks = [max(1, math.ceil(not_above[-1] * percent / 100)) for percent in window]
    low, high = values[order][np.minimum(np.searchsorted(not_above, ranks), len(values) - 1)].astype(np.float64)
    if high <= low:
        return np.zeros(len(values))
    return np.clip((values - low) * (255 / (high - low)), 0, 255)


def window_16bit(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """uint16 -> uint8 of the same shape, by the percentiles of all samples."""
    counts = np.bincount(image.ravel(), minlength=65536)
    return np.rint(by_percentiles(np.arange(65536), counts, window)).astype(np.uint8)[image]


def is_blank(image: np.ndarray) -> bool:
    """Whether all values of an array are the same: a picture that shows nothing."""
    return bool(image.min() == image.max())
