"""Which parameters hold something of each class or part, and how to carry it to a model with others."""
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
    """What a parameter counts: along its last axis so many numbers of each entry of a class table, in a row."""
    kind: str       # 'classes', background first, or 'parts'
    numbers: int    # 0: along the first axis a row of each class but the background, once or several times over


PREDICTOR = r'(box_predictor(_\d+)?|relation_head/predictor)'
ROWS = ((re.compile(PREDICTOR + '/cls_score/.*'), Rows('classes', 1)),
        (re.compile(PREDICTOR + '/bbox_pred/.*'), Rows('classes', 4)),
        (re.compile('mask_predictor/mask_fcn_logits/.*'), Rows('classes', 1)),
        (re.compile('relation_head/presence/fc/kernel'), Rows('classes', 0)),
        (re.compile('anatomy_head/presence/.*'), Rows('parts', 1)),
        (re.compile('anatomy_head/(columns|rows)_sides/.*'), Rows('parts', 32)))     # two sides on a grid of 16


def rows_of(path: str) -> Rows | None:
    """Of the parameter at `path` ('box_predictor/cls_score/kernel'); None if it is of no class and no part."""
    return next((rows for pattern, rows in ROWS if pattern.fullmatch(path)), None)


def row_names(table: dict, kind: str) -> tuple[str, ...]:
    """Names of the entries that rows of `kind` have, in order, by a class table."""
    return ('background', *table['classes']) if kind == 'classes' else tuple(table['parts'])


def namesakes(names: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """Place in `names` -> place in `others` of the same name; if there is none, of one that differs in case, spaces and
    underscores alone."""
    def plain(name: str) -> str:
        return ' '.join(name.replace('_', ' ').split()).casefold()

    alike = {plain(name): place for place, name in reversed(list(enumerate(others)))}
    same = {name: place for place, name in reversed(list(enumerate(others)))}
    found = {place: same.get(name, alike.get(plain(name))) for place, name in enumerate(names)}
    return {place: other for place, other in found.items() if other is not None}


def carry_over(initial: np.ndarray, stored: np.ndarray, same: dict[int, int], *, numbers: int) -> np.ndarray:
    """`initial` [..., K * numbers] with what belongs to the keys of `same` taken from `stored` [..., K' * numbers]."""
    new = np.array(initial).reshape(*initial.shape[:-1], -1, numbers)
    old = np.asarray(stored).reshape(*stored.shape[:-1], -1, numbers)
    new[..., list(same), :] = old[..., list(same.values()), :]
    return new.reshape(initial.shape)


def carry_over_rows(initial: np.ndarray, stored: np.ndarray, same: dict[int, int], *, classes: int,
                    others: int) -> np.ndarray:
    """`carry_over` where `numbers` is 0: `initial` [n * (classes - 1), F], `stored` [n * (others - 1), F]; `same` and
    the two counts are with background."""
    foreground = {k - 1: other - 1 for k, other in same.items() if k and other}
    tables, width = len(initial) // (classes - 1), initial.shape[1]
    new, old = initial.reshape(tables, -1), stored.reshape(len(stored) // (others - 1), -1)
    return carry_over(new, old, foreground, numbers=width).reshape(initial.shape)


def what_differs(names: Sequence[str], others: Sequence[str], same: dict[int, int]) -> dict[str, list[str]]:
    """For a report: which of `names` were taken, which are new, and which of `others` were left out."""
    return {'taken by name': [names[place] for place in same],
            'new': [name for place, name in enumerate(names) if place not in same],
            'left out': [name for place, name in enumerate(others) if name and place not in same.values()]}
