"""Whether a film is one of the kind that a detector was trained on: a plain statistic of how films look as a whole.

A film becomes 30 numbers: the ranks of its grey levels on a grid of 5 x 5 (what is bright and what dark of it, whatever
its exposure), and its brightness, contrast, detail and colour. Of the training films the mean and the covariance of
these are kept, shrunk as in Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
2004. A film is unfamiliar where its Mahalanobis distance is beyond the limit, which the training films set among
themselves: each is measured by a mean and covariance that it had no part in. It says nothing of findings.
"""
import dataclasses
from collections.abc import Mapping

import cv2
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from relnet_jax.data import pipeline
from relnet_jax.data.grey import is_blank
from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.issues import listed
from relnet_jax.data.source import Source

SIDE, GRID = 64, 5
LOOKED_AT = 120             # training films, evenly over all
FEWEST = 20                 # of which a statistic is made
FLOOR = 1e-4                # variance of a number in which all films are equal
FOLDS, QUANTILE, MARGIN = 5, 0.98, 1.25     # the limit: MARGIN times this quantile of the held-out distances


def look(image: np.ndarray) -> np.ndarray:
    """float64 [30] of an image uint8 [h, w, 3]; about as far apart in each number for two kinds of pictures."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    counts = np.bincount(grey.ravel(), minlength=256)
    ranks = ((np.cumsum(counts) - counts / 2) / grey.size)[grey]        # 0..1, ties at their middle
    grid = cv2.resize(ranks, (GRID, GRID), interpolation=cv2.INTER_AREA)
    level = grey / 255
    detail = [np.log(np.abs(np.diff(level, axis=axis)).mean() + 0.01) for axis in (0, 1)]
    colour = np.ptp(small / 255, axis=-1).mean()
    return np.array([*((grid - 0.5) * np.sqrt(12)).ravel(), 4 * level.mean(), 8 * level.std(), *detail, 10 * colour])


def measure(looks: np.ndarray) -> dict | None:
    """What `distance` compares with, of the `look`s float64 [n, 30] of n films, as JSON values: `mean`, `covariance`,
    `limit`. None for fewer than FEWEST films."""
    count = len(looks)
    if count < FEWEST:
        return None
    fold = np.arange(count) % FOLDS
    held_out = np.concatenate([_mahalanobis(looks[fold == k], *_fit(looks[fold != k])) for k in range(FOLDS)])
    mean, covariance = _fit(looks)
    return dict(mean=np.round(mean, 6).tolist(), covariance=np.round(covariance, 6).tolist(),
                limit=max(float(MARGIN * np.quantile(held_out, QUANTILE)), 1.0))


def of_source(source: Source, config: ConfigDict) -> dict | None:
    """`measure` of up to LOOKED_AT films of a source, as the detector is shown them; unreadable ones are passed by."""
    looks, blank = [], []
    source = dataclasses.replace(source, memory=None)       # what training keeps there has another size
    for index in np.unique(np.linspace(0, len(source) - 1, min(LOOKED_AT, len(source))).astype(int)):
        try:
            example, _ = pipeline.prepared(source, int(index), config.data, jitter=1.0)
        except UnreadableImage:     # training names it
            continue
        looks.append(look(example.image))
        if is_blank(example.image):
            blank.append(source.image_ids[index])
    if blank:
        logging.warning('%s: %d of %d images looked at are of one grey level, with nothing to see in them: %s',
                        source.name, len(blank), len(looks), listed(map(str, blank)))
    return measure(np.array(looks))


def distance(image: np.ndarray, known: Mapping) -> float:
    """How far an image uint8 [h, w, 3] is from the films that `known`, a result of `measure`, was made of: 1 is the
    limit, above it the image is unfamiliar."""
    found = _mahalanobis(look(image)[None], np.array(known['mean']), np.array(known['covariance']))
    return float(found[0] / known['limit'])


def _fit(looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and covariance [d, d], shrunk towards a multiple of the identity by Ledoit and Wolf's share."""
    mean = looks.mean(0)
    centred = looks - mean
    count, d = centred.shape
    covariance = centred.T @ centred / count
    target = np.trace(covariance) / d * np.eye(d)
    spread = ((covariance - target) ** 2).sum()
    # Sum over films of |x x' - covariance|^2, without the products x x'.
    noise = ((centred ** 2).sum(1) ** 2).sum() / count ** 2 - (covariance ** 2).sum() / count
    share = min(noise / spread, 1.0) if spread else 1.0
    return mean, (1 - share) * covariance + share * target + FLOOR * np.eye(d)


def _mahalanobis(looks: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    centred = looks - mean
    return np.sqrt((centred * np.linalg.solve(covariance, centred.T).T).sum(1))
