"""How a run's gain grows with the phantom's ambiguity: python -m benchmarks.ambiguity_curve RUN PICTURE DIR [DIR ...]

Each DIR holds the results of an ablation at one ambiguity, all else alike, with RUN and `base`. Prints the paired
differences of `benchmarks.gain_by_cue` by ambiguity and draws them with their 95 % intervals.
"""
import sys
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.gain_by_cue import ALL, TITLES, gains
from relnet_jax import files
from relnet_jax.ablation import results, statistics
from relnet_jax.ablation.figure import BLUE, GREY, RED
from relnet_jax.ablation.table import difference_text
from relnet_jax.visualize import PHANTOM_CAPTION

CONTROL = 'base'
AMBIGUITY = 'data.phantom.ambiguity'
COLOURS = dict(zip(TITLES, ('black', RED, BLUE, GREY), strict=True))


def curve(folders: list[list[dict]], run: str) -> dict[float, dict[str, statistics.Interval]]:
    """Ambiguity, from low to high -> cue, or ALL -> difference of `run` to CONTROL. `folders`: results of each.

    Raises ValueError for folders without both, of one ambiguity, or that differ in more than it.
    """
    points = {}
    for found in folders:
        both = [r for r in found if r['run'] in (run, CONTROL)]
        if {r['run'] for r in both} != {run, CONTROL}:
            raise ValueError(f'expected results of {run} and {CONTROL} in each folder')
        settings = results.complete(both[0]['settings'])
        value = settings.pop(AMBIGUITY)
        if value in points:
            raise ValueError(f'two folders have the ambiguity {value}')
        points[value] = settings, gains(both, CONTROL)[run]
    first = next(iter(points.values()))[0]
    for value, (settings, _) in points.items():
        if wrong := results.differences(first, settings):
            raise ValueError(f'the folders differ in more than the ambiguity ({value}):\n  ' + '\n  '.join(wrong))
    return {value: points[value][1] for value in sorted(points)}


def draw(points: dict[float, dict[str, statistics.Interval]], run: str) -> Figure:
    figure = Figure(figsize=(7, 4), layout='constrained')
    axes = figure.subplots()
    for i, (cue, colour) in enumerate(COLOURS.items()):
        at = [value + 0.006 * (i - 1.5) for value in points]        # beside each other
        rows = [row[cue] for row in points.values()]
        axes.errorbar(at, [100 * row.mean for row in rows], [100 * row.half_width for row in rows], color=colour,
                      marker='o', markersize=4, capsize=2, linewidth=2 if cue == ALL else 1.2,
                      label=TITLES[cue])
    axes.axhline(0, color='black', linewidth=0.8)
    axes.set_xlabel('ambiguity: share of findings whose look says nothing')
    axes.set_ylabel(f'box AP50, {run} - {CONTROL}, points')
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.set_title(f'gain by ambiguity, 95 % intervals over seeds\n{PHANTOM_CAPTION}', fontsize=10)
    return figure


def main(argv: list[str]) -> None:
    if len(argv) < 3:
        sys.exit(__doc__)
    run, picture, *folders = argv
    try:
        points = curve([results.read_all(folder) for folder in folders], run)
    except ValueError as error:
        sys.exit(str(error))
    table = Table('ambiguity', 'seeds', *TITLES.values())
    for value, row in points.items():
        table.add_row(f'{value:g}', str(row[ALL].count), *(difference_text(row[cue]) for cue in TITLES))
    Console(width=120).print(table)
    with files.replacing(Path(picture)) as scratch:
        draw(points, run).savefig(scratch, dpi=130)


if __name__ == '__main__':
    main(sys.argv[1:])
