"""The generated part of docs/ablation_tables.md: every run of configs/lab.py, the lab's figures and ours.

It stands between two marker lines; what people write around them stays. How a result was made is said by the table.md
of its folder, to which the page links.
"""
import os
import textwrap
from pathlib import Path, PurePosixPath

from relnet_jax import files
from relnet_jax.ablation import results
from relnet_jax.ablation.results import ResultError
from relnet_jax.ablation.table import (
    CONTROLS,
    SYNTHETIC,
    Row,
    data_text,
    dates_text,
    difference_text,
    how_to_read,
    machine_text,
    make_rows,
    mean_text,
    pipe_table,
)

BEGIN, END = '<!-- runs: begin (written by relnet_jax.ablate --docs) -->', '<!-- runs: end -->'
SECTIONS = {
    'A': 'Class relation (co-occurrence graph between classes)', 'B': 'Spatial relation (region-to-region graph)',
    'C': 'Spatial and class relation', 'D': 'After the original sources', 'E': 'FPN variants', 'F': 'Public data set',
    '': 'Further runs, not in the lab\'s log'}
OURS = ('"Ours" is box AP50. A run is compared with a control of its own folder, which the difference names: one that '
        'begins as it does, from scratch or from a trained detector, and is otherwise most like it. The '
        'settings, the commands, the other metrics and the classes are in the folder\'s `table.md`.')
COLUMNS = ['run', 'what it is', 'lab mAP50', 'lab mAP1', 'ours', 'seeds', 'difference', 'folder']


def runs_text(tables: dict[str, list[dict]], texts: dict, *, controls: tuple[str, ...]) -> str:
    """A table of the folders, and one for each section of the lab's log. `tables`: path of a result folder, as the page
    links to it -> its results; `texts`: run -> table.LabRun of every run, measured or not.

    A run that is in several folders has a line for each, compared with the control there.
    """
    measured = {path: found for path, found in tables.items() if found}
    rows = {}       # run -> {path of a folder: its Row there}
    for path, found in measured.items():
        for row in make_rows(found, texts, controls=controls):
            rows.setdefault(row.run, {})[path] = row
    parts = [SYNTHETIC] * any(found[0]['about']['synthetic'] for found in measured.values())
    parts.append(textwrap.fill(how_to_read([row for found in rows.values() for row in found.values()], lab=True), 120))
    if measured:
        parts += [textwrap.fill(OURS, 120), pipe_table(
            ['folder', 'data', 'machine', 'measured'],
            [[f'[{_name(path)}]({path}/table.md)', data_text(found), machine_text(found), dates_text(found)]
             for path, found in measured.items()], left=4)]
    for section in sorted({text.section for text in texts.values()}, key=lambda s: (not s, s)):
        body = [[f'`{run}`', text.description, text.map50 or '-', text.map1 or '-', *_ours(rows.get(run, {}))]
                for run, text in texts.items() if text.section == section]
        parts += [f'## {section}. {SECTIONS[section]}' if section else f'## {SECTIONS[section]}',
                  pipe_table(COLUMNS, body, left=2)]
    return '\n\n'.join(part.rstrip('\n') for part in parts)


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _ours(found: dict[str, Row]) -> list[str]:
    """The cells of a run that is measured here, with a line for each folder."""
    if not found:
        return [''] * 4
    lines = [(mean_text(row.means['box_AP50']), str(len(row.seeds)),
              f"{difference_text(row.differences['box_AP50'])} to `{row.compared_with}`" if row.control else '',
              _name(path))
             for path, row in found.items()]
    return ['<br>'.join(cells) if any(cells) else '' for cells in zip(*lines, strict=True)]


def renewed(path: Path, folders: list[Path], texts: dict, *, controls: tuple[str, ...] = CONTROLS) -> str:
    """The text of `path`, with what stands between the marker lines as the results in `folders` have it now.

    Raises ResultError if the file has no markers, or not exactly one of each in order.
    """
    old = path.read_text(encoding='utf-8') if path.exists() else f'# Every run of the lab\'s log\n\n{BEGIN}\n{END}\n'
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise ResultError(f"{path}: expected one line '{BEGIN}' and after it one '{END}'")
    head, tail = old[:old.index(BEGIN)], old[old.index(END):]
    tables = {Path(os.path.relpath(folder, path.parent)).as_posix(): results.read_all(folder) for folder in folders}
    return f'{head}{BEGIN}\n\n{runs_text(tables, texts, controls=controls)}\n\n{tail}'


def renew(path: Path, folders: list[Path], texts: dict, *, controls: tuple[str, ...] = CONTROLS) -> None:
    """Writes `renewed`; makes the file if there is none."""
    text = renewed(path, folders, texts, controls=controls)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text)
