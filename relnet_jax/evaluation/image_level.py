"""Films as a whole: how well the best detection of a class tells the films that show it from the others."""
from typing import NamedTuple

import numpy as np

from relnet_jax.evaluation.matching import image_order
from relnet_jax.evaluation.ranking import Ranked, share

NO_FINDING = 'No finding'


class Films(NamedTuple):
    """One row per class. The score that a film has no finding is 1 - the best score of any class."""
    names: tuple[str, ...]
    scores: np.ndarray      # float64 [K, I] best detection of the class in the film; 0 without any
    shown: np.ndarray       # bool [K, I] an object of the class is annotated

    @property
    def any_score(self) -> np.ndarray:
        return self.scores.max(0, initial=0)

    @property
    def any_shown(self) -> np.ndarray:
        return self.shown.any(0)


def films(ground_truth: dict, results: list) -> Films:
    """Raises ValueError for a result of an unknown image."""
    order = image_order(ground_truth, results)
    row = {c['id']: k for k, c in enumerate(ground_truth['categories'])}
    scores = np.zeros((len(row), len(order)))
    shown = np.zeros(scores.shape, bool)
    for a in ground_truth['annotations']:
        shown[row[a['category_id']], order[a['image_id']]] = True
    known = [r for r in results if r['category_id'] in row]
    place = [row[r['category_id']] for r in known], [order[r['image_id']] for r in known]
    np.maximum.at(scores, tuple(np.array(p, int) for p in place), [r['score'] for r in known])
    return Films(tuple(c['name'] for c in ground_truth['categories']), scores, shown)


def auc(score: np.ndarray, shown: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area [R] under the ROC curve: how often a film that shows it scores above one that does not, ties half.

    score: float64 [I]; shown: bool [I]; weights: float64 [R, I]. NaN where a resample lacks one of the two kinds.
    Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 1982.
    """
    order = np.argsort(score, kind='stable')
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    if not len(starts):
        return np.full(len(weights), np.nan)
    shown = shown[order]
    positive, negative = (np.add.reduceat(weights[:, order] * kind, starts, axis=1) for kind in (shown, ~shown))
    below = np.cumsum(negative, 1) - negative / 2
    return share((positive * below).sum(1), positive.sum(1) * negative.sum(1))


def roc(score: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(false positive rate, sensitivity, score), one point per score that occurs, highest first, and (0, 0, inf)."""
    order = np.argsort(-score, kind='stable')
    ends = np.flatnonzero(np.diff(score[order], append=-np.inf))
    shown = shown[order]
    rates = [share(np.cumsum(kind)[ends].astype(float), np.float64(kind.sum())) for kind in (~shown, shown)]
    columns = zip((0, 0, np.inf), (*rates, score[order][ends]))
    return tuple(np.concatenate([[start], values]) for start, values in columns)


def no_finding(of: Films) -> Ranked:
    """'No finding' as a class of its own, as VinDr-CXR's competition had it: each film has one detection of it, which
    is right where nothing is annotated."""
    score = 1 - of.any_score
    order = np.argsort(-score, kind='stable')
    return Ranked(order, score[order], ~of.any_shown[order], of.any_shown[order], (~of.any_shown).astype(float))
