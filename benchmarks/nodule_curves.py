"""Nodules found by rate of false positives: python -m benchmarks.nodule_curves DIR PICTURE

DIR: a cross-validated ablation, of which patients.json is read. A panel for each rule of what is a hit; each run is a
line, with its 95 % interval over patients.
"""
import sys
from pathlib import Path

from matplotlib.figure import Figure

from relnet_jax import files
from relnet_jax.ablation.figure import BLUE, GREY, RED
from relnet_jax.evaluation.chest_films import RATES

COLOURS = ('black', GREY, BLUE, RED, '#d98c00', '#2f8f4e')
PANELS = {'nodule_22mm': 'centre within 22 mm', 'nodule_radius': "centre within the nodule's radius"}


def draw(rows: dict[str, dict]) -> Figure:
    """`rows`: those of patients.json. Raises ValueError if there are more runs than colours."""
    figure = Figure(figsize=(9, 3.8), layout='constrained')
    for axes, (prefix, title) in zip(figure.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
        for i, (run, colour) in enumerate(zip(rows, COLOURS[:len(rows)], strict=True)):
            found = [rows[run]['metrics'][f'{prefix}_{rate:g}'] for rate in RATES]
            below, above = ([abs(f[side] - f['mean']) for f in found] for side in ('low', 'high'))
            axes.errorbar([rate * 1.04 ** (i - (len(rows) - 1) / 2) for rate in RATES],     # beside each other
                          [f['mean'] for f in found], (below, above), color=colour, marker='o', markersize=4,
                          capsize=2, linewidth=1.4, label=run)
        axes.set_xscale('log', base=2)
        axes.set_xticks(RATES, [f'{rate:g}' for rate in RATES])
        axes.set_xlabel('false positives per film')
        axes.set_title(title, fontsize=10)
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    figure.axes[0].set_ylabel('nodules found')
    figure.axes[0].legend(frameon=False, loc='upper left')
    return figure


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        sys.exit(__doc__)
    rows = files.read_json(Path(argv[0]) / 'patients.json')
    with files.replacing(Path(argv[1])) as scratch:
        draw(rows).savefig(scratch, dpi=110)


if __name__ == '__main__':
    main(sys.argv[1:])
