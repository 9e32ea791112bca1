"""data.meta: a CSV file with a row per image, for any format; what it says joins the image's record, size included."""
from pathlib import Path

from relnet_jax.data.formats.broken import Broken, attempt
from relnet_jax.data.formats.rows import Row, read_rows
from relnet_jax.data.issues import Issue
from relnet_jax.errors import UserError

NAMES = ('image_id', 'patientid', 'imageid', 'file_name', 'image', 'id')     # columns that may name the image
SIZES = (('dim0', 'dim1'), ('height', 'width'), ('rows', 'columns'), ('rows', 'cols'))      # height, width


def add_meta(document: dict, path: Path) -> tuple[dict, list[Issue]]:
    """(document, issues) with the cells of the table `path` in the records of its images.

    The first column of NAMES that is there, else the first column, names the image: by its id, file name, or file name
    without the suffix. A pair of SIZES gives the pixels that annotations refer to, in place of a size that was known;
    the other columns, but `id` and `file_name`, are strings in the record under their names in lower case. Rows of
    other images are passed over: one table may serve several data sets. Raises UserError if it has none of the images.
    """
    rows, issues = read_rows(path, ())
    table, size = {}, ()
    for row in rows:
        name = next((n for n in NAMES if n in row.cells), next(iter(row.cells)))
        size = next((pair for pair in SIZES if set(pair) <= row.cells.keys()), ())
        cells = attempt(issues, f'{path.name}: {row.where}', _cells, row, name, size)
        if cells is None:
            continue
        first = table.setdefault(row.get(name), cells)
        if first != cells:
            issues.append(Issue(f'{path.name}: {row.where}', 'says other things of an image than an earlier row',
                                'the first is used', row.get(name)))
    images, known = [], 0
    for image in document['images']:
        cells = next((table[key] for key in _keys(image) if key in table), None)
        known += cells is not None
        if cells is None and isinstance(image, dict):
            issues.append(Issue(path.name, 'image without a row in data.meta', 'kept as it is', str(image.get('id'))))
        images.append(image if cells is None else image | cells)
    if images and not known:
        raise UserError(f'{path}: data.meta has a row for none of the images; its first is of '
                         f'{next(iter(table), None)!r}, the first image is {next(iter(_keys(images[0])), None)!r}')
    return document | dict(images=images), issues


def _cells(row: Row, name: str, size: tuple[str, str]) -> dict:
    """What joins the record. Raises Broken for a row without a name or with a size that is none."""
    if not row.get(name):
        raise Broken(f'no {name}')
    cells = {column: cell for column, cell in row.cells.items() if column not in (name, *size, 'id', 'file_name')}
    if size:
        sides = row.numbers(size)
        if sides is None or min(sides) < 1 or any(side != int(side) for side in sides):
            raise Broken(f'{" and ".join(size)} are no size in pixels', [row.get(column) for column in size])
        cells |= dict(height=int(sides[0]), width=int(sides[1]))
    return cells


def _keys(image) -> list[str]:
    """The names by which a table may call an image."""
    if not isinstance(image, dict):
        return []
    names = [str(image[key]) for key in ('id', 'file_name') if key in image]
    return names + [Path(names[-1]).stem, Path(names[-1]).name] if 'file_name' in image else names
