"""Which nodules are found: python -m benchmarks.nodules_by FIELD EVAL [EVAL ...]

Of the nodules in films with the same FIELD in their record (JSRT: subtlety, size_mm), the share found within 22 mm at
RATE false positives per film over all films. EVAL: evaluation folders of one detector's seeds, as an ablation's
runs/base_s*/eval; the last column is their mean.
"""
import sys

import numpy as np
from rich.console import Console
from rich.table import Table

from relnet_jax.evaluation import nodules
from relnet_jax.evaluation.report import read_evaluation

RATE = 1.0


def found_by(field: str, truth: dict, results: list) -> dict[str, tuple[float, int]]:
    """Value of `field` -> share of the nodules that is found, and their number; films without nodules count only in
    the rate of false positives. Raises KeyError for a field that a film lacks."""
    ranking = nodules.ranking(truth, results)
    within = np.cumsum(ranking.wrong) <= RATE * len(truth['images'])
    found = np.bincount(ranking.image[ranking.right & within], minlength=len(truth['images']))
    values = np.array([str(image[field]) for image in truth['images']])
    numbers = {value: int(ranking.objects[values == value].sum()) for value in sorted(set(values))}
    return {value: (found[values == value].sum() / n, n) for value, n in numbers.items() if n}


def main(argv: list[str]) -> None:
    if len(argv) < 2:
        sys.exit(__doc__)
    field, *folders = argv
    rows = [found_by(field, *read_evaluation(folder)) for folder in folders]
    table = Table(field, 'nodules', *folders, 'mean')
    for value, (_, number) in rows[0].items():
        shares = [row[value][0] for row in rows]
        table.add_row(value, str(number), *(f'{share:.2f}' for share in [*shares, np.mean(shares)]))
    Console(width=160).print(table)


if __name__ == '__main__':
    main(sys.argv[1:])
