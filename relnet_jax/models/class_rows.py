"""Which parameters hold something of each class, and how to carry it to a model with other classes."""
import re
from collections.abc import Sequence

import numpy as np

# Paths of kernels and biases whose last axis counts classes, background first, and numbers of each class.
PER_CLASS = ((re.compile(r'(box_predictor(_\d+)?|relation_head/predictor)/cls_score/'), 1),
             (re.compile(r'(box_predictor(_\d+)?|relation_head/predictor)/bbox_pred/'), 4),
             (re.compile(r'mask_predictor/mask_fcn_logits/'), 1))


def numbers_per_class(path: str) -> int:
    """How many entries of the last axis of the parameter at `path` each class has; 0 if none is of a class."""
    return next((count for pattern, count in PER_CLASS if pattern.match(path)), 0)


def namesakes(classes: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """Label in `classes` -> label in `others` of the same name, whatever its case and spaces; 0, background, to 0."""
    def plain(name: str) -> str:
        return ' '.join(name.replace('_', ' ').split()).casefold()

    labels = {plain(name): label for label, name in enumerate(others, start=1)}
    found = {label: labels.get(plain(name)) for label, name in enumerate(classes, start=1)}
    return {0: 0} | {label: other for label, other in found.items() if other is not None}


def carry_over(initial: np.ndarray, stored: np.ndarray, same: dict[int, int], *, numbers: int) -> np.ndarray:
    """`initial` [..., K * numbers] with the entries of every label in `same` from `stored` [..., K' * numbers]."""
    new = np.array(initial).reshape(*initial.shape[:-1], -1, numbers)
    old = np.asarray(stored).reshape(*stored.shape[:-1], -1, numbers)
    new[..., list(same), :] = old[..., list(same.values()), :]
    return new.reshape(initial.shape)
