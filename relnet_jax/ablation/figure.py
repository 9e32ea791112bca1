"""The table as a picture: each run's mean with its interval, and its paired difference to the plain run."""
import math

from matplotlib.figure import Figure

from relnet_jax.ablation.table import TITLES, Row
from relnet_jax.visualize import PHANTOM_CAPTION

BLUE, GREY, RED = '#1f6fb4', '#9a9a9a', '#c23b22'


def draw(rows: list[Row], *, metric: str = 'box_AP50', synthetic: bool) -> Figure:
    """Two panels that share their rows, per cent: left the mean over seeds with its 95 % interval and a dot for each
    seed, right the difference to the control with its interval, coloured where that excludes 0. The lab's figures are
    on other data and therefore not drawn."""
    height = 1.6 + 0.34 * max(len(rows), 1)
    figure = Figure(figsize=(9, height), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    for y, row in enumerate(rows):
        for value in row.values[metric].values():
            if value is not None:
                left.plot(100 * value, y, 'o', color=GREY, markersize=3.5)
        _bar(left, y, row.means[metric], BLUE if row.control else 'black')
        if row.differences:
            difference = row.differences[metric]
            _bar(right, y, difference,
                 GREY if not difference.excludes_zero else BLUE if difference.mean > 0 else RED)
    right.axvline(0, color='black', linewidth=0.8)
    left.set_yticks(range(len(rows)), [row.run for row in rows])
    left.set_ylim(max(len(rows), 1) - 0.5, -0.5)    # first run on top
    controls = sorted({row.compared_with for row in rows if row.differences})
    left.set_xlabel(f'{TITLES[metric]}, %')
    right.set_xlabel(f'difference to {" / ".join(controls)} by seed, points' if controls else 'no control run')
    for axes in (left, right):
        axes.grid(axis='x', alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    figure.suptitle(f'{TITLES[metric]}: mean over seeds, 95 % interval' + (f'\n{PHANTOM_CAPTION}' if synthetic else ''),
                    fontsize=10)
    return figure


def _bar(axes, y: int, interval, color: str) -> None:
    if interval.count == 0:
        return
    if not math.isnan(interval.low):
        axes.plot([100 * interval.low, 100 * interval.high], [y, y], color=color, linewidth=2)
    axes.plot(100 * interval.mean, y, 'D', color=color, markersize=5)
