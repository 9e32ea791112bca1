"""Numbers and ids as files give them: as numbers, as text that spells one, or not at all."""
import math
import re
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np

NUMBERS = (int, float, np.integer, np.floating)     # a reader may take them out of an array
WHOLE = re.compile(r'[+-]?\d{1,40}', re.ASCII)


def number(value: Any) -> float | None:
    """The finite number that `value` is or spells; None for anything else, as booleans, NaN and 400 digits are."""
    if isinstance(value, bool) or not isinstance(value, (*NUMBERS, str)) or (isinstance(value, str) and '_' in value):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """The whole number that `value` is or spells (7, 7.0, '7', '7.0'); None for anything else."""
    if isinstance(value, (int, np.integer)):
        return None if isinstance(value, bool) else int(value)
    if isinstance(value, str) and WHOLE.fullmatch(value.strip()):
        return int(value)
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def are_numbers(values: Any) -> bool:
    """Whether `values` is a list of finite numbers, and nothing else."""
    if not isinstance(values, list):
        return False
    if not set(map(type, values)) <= {int, float} and not all(
            isinstance(v, NUMBERS) and not isinstance(v, bool) for v in values):
        return False
    try:
        return math.isfinite(sum(values)) or all(map(math.isfinite, values))    # the sum alone may overflow
    except OverflowError:
        return False


def id_key(ids: Iterable) -> Callable[[Any], Hashable]:
    """A function that gives equal keys for what means the same id among `ids`, and None for what cannot be an id.

    1, 1.0 and '1' are the same id, and so is '007' with 7; but where two ids of text would become one number ('7' and
    '07' are both there), text is compared as it is.
    """
    texts = {i.strip() for i in ids if isinstance(i, str)}
    numeric = [whole(text) for text in texts if whole(text) is not None]
    as_numbers = len(numeric) == len(set(numeric))

    def key(value: Any) -> Hashable:
        if isinstance(value, str) and not (as_numbers and WHOLE.fullmatch(value.strip())):
            return value.strip() or None
        found = whole(value)
        return found if as_numbers or found is None else str(found)
    return key
