"""Tables and sentences of Markdown pages, and whether a number as a page states it is one of a result file."""
import json
import re
from pathlib import Path

from tests.docs_text import ROOT

RESULTS = ROOT / 'benchmarks' / 'results'


def tables(text: str) -> list[list[list[str]]]:
    """The pipe tables of a page in order: rows of cells without bold and code marks, the head first."""
    found = []
    for block in re.findall(r'(?:^\|.*\n?)+', text, re.MULTILINE):
        rows = [[re.sub(r'\*\*|`', '', cell).strip() for cell in line.strip().strip('|').split('|')]
                for line in block.splitlines()]
        assert all(re.fullmatch(':?-+:?', cell) for cell in rows[1]), rows[:2]
        found.append([rows[0], *rows[2:]])
    return found


def table(page: str | Path, *head: str) -> list[list[str]]:
    """The rows below the head of the one table of the page (from the project's folder) whose head begins so."""
    rows, = (rows for rows in tables((ROOT / page).read_text()) if rows[0][:len(head)] == list(head))
    return rows[1:]


def plain(page: str | Path) -> str:
    """A page (from the project's folder) in one line, wherever its lines break."""
    return ' '.join((ROOT / page).read_text().split())


def lines(name: str) -> list[dict]:
    """The records of a .jsonl file in benchmarks/results."""
    return [json.loads(line) for line in (RESULTS / name).read_text().splitlines()]


def states(text: str, value: float) -> bool:
    """Whether `text`, '0.80', '1,200', '9.1e-6' or '64 %', is `value` rounded to the digits it has."""
    number = re.fullmatch(r'([+-]?[\d,]+(?:\.(\d+))?)(?:e(-?\d+))?(?: [%\w]+)?', text)
    assert number, text
    unit = 10.0 ** (int(number[3] or 0) - len(number[2] or ''))
    return abs(float(number[1].replace(',', '')) * 10.0 ** int(number[3] or 0) - value) <= 0.5001 * unit


def gives(cell: str, measured: dict, *, signed: bool = False) -> bool:
    """Whether a cell is 'value [low, high]' of what was measured, a difference that is not 0 with its sign."""
    value, low, high = re.fullmatch(r'([+-]?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]', cell).groups()
    return (all(states(text, measured[key]) for text, key in ((value, 'value'), (low, 'low'), (high, 'high')))
            and (value[0] in '+-') == (signed and (value[0] in '+-' or float(value) != 0)))


def by_folds(folder: str, run: str, kind: str = 'metrics') -> dict[str, dict]:
    """metric -> value, low, high of a run in all films, each held out once; or the 'differences' to its control."""
    found = json.loads((RESULTS / folder / 'patients.json').read_text(encoding='utf-8'))[run]
    return {name: dict(value=m['mean'], low=m['low'], high=m['high']) for name, m in found[kind].items()
            if m['mean'] is not None}
