"""How the readers of formats say that a row or a record cannot be used."""
from collections.abc import Callable
from typing import Any

from relnet_jax.data.issues import Issue, shown


class Broken(Exception):
    """Something in a file that cannot be used: what is wrong, what was found, and what is done about it."""

    def __init__(self, problem: str, found: Any = '', rule: str = 'dropped'):
        super().__init__(problem)
        self.problem, self.found, self.rule = problem, '' if found == '' else shown(found), rule

    def at(self, where: str) -> Issue:
        return Issue(where, self.problem, self.rule, self.found)


def attempt(issues: list[Issue], where: str, function: Callable, *arguments: Any, rule: str = '') -> Any:
    """function(*arguments), or None where it is Broken, which joins `issues`, with `rule` for its own if given."""
    try:
        return function(*arguments)
    except Broken as e:
        issues.append(Issue(where, e.problem, rule or e.rule, e.found))
        return None
