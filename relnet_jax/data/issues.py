"""What is wrong with a record of a data set, where it stands, and what was done about it."""
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from absl import logging

EXAMPLES = 3        # of each kind, in a summary
LONGEST = 200       # characters of what was found
A_FEW = 3           # a share of broken records says little before so many are broken

_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 60


class Issue(NamedTuple):
    """One thing that was found wrong; its text is 'where: problem (found): rule'.

    Issues of equal `problem` and `rule` are of one kind, and a summary counts them together: what differs from record
    to record belongs into `found`.
    """
    where: str          # 'instances.json: annotations[3] id 7'
    problem: str        # 'category_id is not in the category table'
    rule: str           # what was done: 'dropped', 'clipped', 'box kept without mask', 'both kept', ...
    found: str = ''     # '99'

    def __str__(self) -> str:
        return f'{self.where}: {self.problem}{f" ({self.found})" if self.found else ""}: {self.rule}'


def shown(value: Any) -> str:
    """`repr` of anything that a file may hold, cut to what fits into a line."""
    text = _short.repr(value)
    return text if len(text) <= LONGEST else f'{text[:LONGEST]}...'


def listed(names: Iterable[str]) -> str:
    """The first of many names."""
    names = list(names)
    return ', '.join(names[:20]) + (f' and {len(names) - 20} more' if len(names) > 20 else '')


def by_kind(issues: Sequence[Issue]) -> dict[tuple[str, str], list[Issue]]:
    """(problem, rule) -> the issues of this kind, the most frequent kind first."""
    kinds = {}
    for issue in issues:
        kinds.setdefault((issue.problem, issue.rule), []).append(issue)
    return dict(sorted(kinds.items(), key=lambda kind: -len(kind[1])))


def summary(issues: Sequence[Issue]) -> list[str]:
    """One line for each kind: how many, what was done, and the first few of them."""
    lines = []
    for (problem, rule), same in by_kind(issues).items():
        if len(same) == 1:
            lines.append(str(same[0]))
            continue
        first = '; '.join(i.where + (f' ({i.found})' if i.found else '') for i in same[:EXAMPLES])
        lines.append(f'{len(same)} x {problem}: {rule}; {"first" if len(same) > EXAMPLES else "all"}: {first}')
    return lines


def log_summary(name: str, issues: Sequence[Issue]) -> None:
    if issues:
        logging.warning('%s: issues: %d\n%s', name, len(issues), '\n'.join(f'  {line}' for line in summary(issues)))


def too_many(bad: int, count: int, share: float) -> bool:
    """Whether more than `share` of `count` are bad; up to `A_FEW` bad ones are never too many, unless all are."""
    return bad > share * count and (bad >= A_FEW or bad == count)
