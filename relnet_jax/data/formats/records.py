"""JSON files that hold one record per film with parallel lists of names, boxes and polygons: what ChestX-Det and the
lab's files have in common."""
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relnet_jax.data.formats import json_file
from relnet_jax.data.formats.broken import Broken
from relnet_jax.data.issues import Issue
from relnet_jax.errors import UserError

NO_MASK = 'box kept without mask'


def read_json(path: Path) -> Any:
    """What the file holds. Raises FileNotFoundError without it and UserError, naming it, if it is no JSON."""
    if not path.is_file():
        raise FileNotFoundError(f"annotation file '{path}' is not there")
    try:
        return json_file.load(path)
    except RecursionError as e:
        raise UserError(f'{path}: not valid JSON: {e}') from e


def read_records(path: Path, issues: list[Issue]) -> Iterator[tuple[int, str, dict]]:
    """(index, place for messages, record) of every entry of a JSON list that has a `file_name` of its own; the others
    join `issues`. Raises as `read_json`, and UserError for a file that is no list."""
    entries = read_json(path)
    if not isinstance(entries, list):
        hint = "; a COCO file is read with data.format='coco'" if isinstance(entries, dict) else ''
        raise UserError(f'{path}: expected a list of records with file_name, syms and boxes, '
                        f'got {type(entries).__name__}{hint}')
    seen = {}
    for i, entry in enumerate(entries):
        name = entry.get('file_name') if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            issues.append(Broken('no dict with a file_name', entry).at(f'{path.name}: record {i}'))
        elif name in seen:
            issues.append(Broken('file_name is also that of an earlier record', [name, seen[name]])
                          .at(f'{path.name}: record {i}'))
        else:
            seen[name] = i
            yield i, f'record {i}', entry


def parallel(record: dict, *keys: str) -> list[tuple]:
    """The lists under these keys side by side; missing or null is []. Raises Broken for others or unequal ones."""
    lists = [[] if record.get(key) is None else record[key] for key in keys]
    for key, values in zip(keys, lists):
        if not isinstance(values, list):
            raise Broken(f'{key} is no list', values)
    if len({len(values) for values in lists}) > 1:
        raise Broken(f'{", ".join(keys)} are not equally many', [len(values) for values in lists])
    return list(zip(*lists))


def is_number(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:       # an integer of hundreds of digits
        return False


def a_name(value: Any) -> str:
    """`value`, if it is text. Raises Broken if it is not."""
    if not isinstance(value, str) or not value:
        raise Broken('expected a name', value)
    return value


def box_xywh(box: Any) -> list[float]:
    """A box [x1, y1, x2, y2] as COCO's [x, y, width, height]. Raises Broken for one that is none."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise Broken('box is not four finite numbers', box)
    x1, y1, x2, y2 = map(float, box)
    if x1 >= x2 or y1 >= y2:
        raise Broken('box (xyxy) without positive width and height', box)
    return [x1, y1, x2 - x1, y2 - y1]


def flat_polygons(value: Any) -> list[list[float]]:
    """One polygon or a list of them, each [[x, y], ...] or [x, y, x, y, ...], as COCO's list of flat ones.

    Null and [] give []. Raises Broken for what is none of these.
    """
    if value is None or value == []:
        return []
    if isinstance(value, list):
        found = [_flat(polygon) for polygon in ([value] if is_number(value[0]) or _is_point(value[0]) else value)]
        if None not in found:
            return found
    raise Broken('polygon is neither [x, y] points nor a flat list of them', value)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _flat(polygon: Any) -> list[float] | None:
    if isinstance(polygon, list) and all(map(_is_point, polygon)):
        return [float(v) for point in polygon for v in point]
    if isinstance(polygon, list) and len(polygon) % 2 == 0 and all(map(is_number, polygon)):
        return [float(v) for v in polygon]
    return None
