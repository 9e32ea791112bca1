"""Where a relation gains on the phantom: python -m benchmarks.gain_by_cue DIR [CONTROL]

For the results of an ablation (DIR/results) the difference of each run's box AP50 to the control's (default: base),
paired by seed, as a mean over all classes, and over those that the phantom tells by company, by position and by
texture.
"""
import sys

import numpy as np
from rich.console import Console
from rich.table import Table

from relnet_jax.ablation import results, statistics
from relnet_jax.ablation.table import difference_text
from relnet_jax.data.phantom import class_cues

CUES = ('co-occurrence', 'position', 'texture')
ALL = 'all classes'
TITLES = {ALL: ALL} | {cue: f'told by {cue}' for cue in CUES}


def gains(found: list[dict], control: str) -> dict[str, dict[str, statistics.Interval]]:
    """Run -> cue, or ALL -> paired difference of the mean AP50 of its classes."""
    cues = class_cues()

    def by_seed(run: str, cue: str) -> dict[int, float]:
        return {r['seed']: np.mean([v for name, v in r['per_class_AP50'].items() if cue in (ALL, cues[name].cue)])
                for r in found if r['run'] == run}
    runs = sorted({r['run'] for r in found} - {control})
    return {run: {cue: statistics.paired_difference(by_seed(run, cue), by_seed(control, cue)) for cue in (ALL, *CUES)}
            for run in runs}


def main(argv: list[str]) -> None:
    if not 1 <= len(argv) <= 2:
        sys.exit(__doc__)
    control = argv[1] if len(argv) == 2 else 'base'
    found = results.read_all(argv[0])
    if not any(r['run'] == control for r in found):
        sys.exit(f"{argv[0]}: no result of the control '{control}'")
    table = Table(f'box AP50 minus {control}', *TITLES.values())
    for run, row in gains(found, control).items():
        table.add_row(run, *(difference_text(row[cue]) for cue in TITLES))
    Console(width=120).print(table)


if __name__ == '__main__':
    main(sys.argv[1:])
