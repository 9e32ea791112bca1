"""The generated part of docs/ablations.md: every run of configs/lab.py, its command, the lab's figures and ours.

It stands between two marker lines; what people write around them stays.
"""
from pathlib import Path

from relnet_jax import files
from relnet_jax.ablation.results import ResultError
from relnet_jax.ablation.table import CONTROLS, LAB_NOTE, difference_text, make_rows, mean_text, pipe_table, summary

BEGIN, END = '<!-- runs: begin (written by relnet_jax.ablate --docs) -->', '<!-- runs: end -->'
SECTIONS = {
    'A': 'Class relation (co-occurrence graph between classes)', 'B': 'Spatial relation (region-to-region graph)',
    'C': 'Spatial and class relation', 'D': 'After the original sources', 'E': 'FPN variants', 'F': 'Public data set',
    '': 'Further runs, not in the lab\'s log'}


def runs_text(tables: list[list[dict]], texts: dict, *, controls: tuple[str, ...]) -> str:
    """A table for each section of the lab's log; `texts`: run -> table.LabRun of every run, measured or not.

    tables: the results of each folder. Raises ResultError if a run is in two of them: they need not be comparable.
    """
    rows = {}
    for results in tables:
        new = {row.run: row for row in make_rows(results, texts, controls=controls)}
        if twice := sorted(rows.keys() & new.keys()):
            raise ResultError(f"documents: results of {', '.join(twice)} in more than one folder, expected in one")
        rows |= new
    command = '`python train.py --config=configs/lab.py:RUN,data=phantom` trains and evaluates a run.'
    ours = [[f"Ours, {', '.join(f'`{r}`' for r in dict.fromkeys(r['run'] for r in results))}:", *summary(results)]
            for results in tables if results]
    parts = [command + ' Per cent; ours is box AP50, mean over seeds ± half of the 95 % t interval, with the '
             'difference to the plain run paired by seed (bold: the interval excludes 0). ' + LAB_NOTE,
             *('\n'.join(f'{line}  ' for line in lines) for lines in ours)]
    for section in sorted({text.section for text in texts.values()}, key=lambda s: (not s, s)):
        body = []
        for run, text in texts.items():
            if text.section == section:
                row = rows.get(run)
                difference = row.differences.get('box_AP50') if row else None
                body.append([f'`{run}`', text.description, text.map50 or '-', text.map1 or '-',
                             mean_text(row.means['box_AP50']) if row else '',
                             f'{difference_text(difference)} to `{row.control}`' if difference else ''])
        title = f'{section}. {SECTIONS[section]}' if section else SECTIONS[section]
        parts += [f'### {title}', pipe_table(['run', 'what it is', 'lab mAP50', 'lab mAP1', 'ours', 'difference'],
                                             body, left=2)]
    return '\n\n'.join(part.rstrip('\n') for part in parts if part)


def renew(path: Path, tables: list[list[dict]], texts: dict, *, controls: tuple[str, ...] = CONTROLS) -> None:
    """Replaces what stands between the marker lines of `path`, see `runs_text`; makes the file if there is none.

    Raises ResultError if the file has no markers, or not exactly one of each in order.
    """
    old = path.read_text(encoding='utf-8') if path.exists() else f'# Every run of the lab\'s log\n\n{BEGIN}\n{END}\n'
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise ResultError(f"{path}: expected one line '{BEGIN}' and after it one '{END}'")
    head, tail = old[:old.index(BEGIN)], old[old.index(END):]
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, f'{head}{BEGIN}\n\n{runs_text(tables, texts, controls=controls)}\n\n{tail}')
