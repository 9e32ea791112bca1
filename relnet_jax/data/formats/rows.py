"""CSV files row by row: cells by column name, every row with its line number, what cannot be read reported."""
import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from relnet_jax.data.formats.broken import Broken
from relnet_jax.data.issues import Issue, shown
from relnet_jax.errors import UserError

DELIMITERS = ',;\t'
EMPTY = ('', 'nan', 'na', 'null', 'none')


class Row(NamedTuple):
    line: int               # of the file, from 1; the header is line 1
    cells: dict[str, str]   # column name in lower case -> its cell, without surrounding blanks

    @property
    def where(self) -> str:
        return f'row {self.line}'

    def get(self, column: str) -> str:
        """The cell of a column, '' where the file has no such column."""
        return self.cells.get(column, '')

    def has(self, column: str) -> bool:
        return column in self.cells

    def number(self, column: str) -> float | None:
        """The finite number in a cell, None for an empty one or NaN. Raises Broken for anything else."""
        cell = self.get(column)
        if cell.lower() in EMPTY:
            return None
        try:
            value = float(cell) if '_' not in cell else math.inf
        except ValueError:
            value = math.inf
        if not math.isfinite(value):
            raise Broken(f'{column} is no number', cell)
        return value

    def numbers(self, columns: Sequence[str]) -> list[float] | None:
        """The numbers in these columns, None where all are empty. Raises Broken for anything else."""
        values = [self.number(column) for column in columns]
        if all(value is None for value in values):
            return None
        if None in values:
            raise Broken(f'no number in {columns[values.index(None)]}')
        return values


def read_rows(path: Path, columns: Sequence[str]) -> tuple[list[Row], list[Issue]]:
    """(rows, issues) of a CSV file with a header that names at least `columns` (lower case), in whatever order.

    A table that has the first of `columns` alone is a list of films, as for a test set: `Row.has` tells.
    A byte order mark, CRLF, quotes, semicolons or tabs for commas, capitals and blanks in the header are read; further
    columns ride along. Lines without any cell are no rows. A row with more or fewer cells than the header is an issue.
    Raises FileNotFoundError without a file, and UserError, naming the file, for one that is no such table.
    """
    if not path.is_file():
        raise FileNotFoundError(f"annotation file '{path}' is not there")
    try:
        text = path.read_bytes().decode('utf-8-sig')
    except UnicodeDecodeError as e:
        raise UserError(f'{path}: not text in UTF-8, byte {e.start} is {e.object[e.start]:#x}') from e
    header = next(iter(text.splitlines()), '')
    delimiter = max(DELIMITERS, key=header.count)       # the first of equals
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows, issues, names = [], [], None
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if names is None:
                names = _header(path, cells, columns)
            elif len(cells) == len(names):
                rows.append(Row(reader.line_num, dict(zip(names, cells))))
            elif cells:
                issues.append(Issue(f'{path.name}: row {reader.line_num}',
                                    f'the header has {len(names)} cells, the row another number', 'dropped',
                                    str(len(cells))))
    except csv.Error as e:
        raise UserError(f'{path}: line {reader.line_num} is no CSV: {e}') from e
    if names is None:
        raise UserError(f'{path}: empty, expected a header with the columns {", ".join(columns)}')
    return rows, issues


def _header(path: Path, cells: list[str], columns: Sequence[str]) -> list[str]:
    names = [cell.lower() for cell in cells]
    lacking = [column for column in columns if column not in names]
    if lacking and (len(columns) == 1 or lacking != list(columns[1:])):
        raise UserError(f'{path}: no column {", ".join(map(repr, lacking))}; its first line is {shown(cells)}')
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise UserError(f'{path}: column {twice[0]!r} is there twice')
    return names


def contradictions(path: Path, images: dict[str, dict], annotations: list[dict]) -> list[Issue]:
    """Issues of rows that say 'nothing' of an image of which others say something; they leave the image's `rows`."""
    issues = []
    for image_id in dict.fromkeys(a['image_id'] for a in annotations):
        lines, images[image_id]['rows'] = images[image_id]['rows'], []
        issues += [Issue(f'{path.name}: row {line}', 'says nothing is there, but other rows of the image do not',
                         'dropped', shown(image_id)) for line in lines]
    return issues
