"""JSON files that hold one record per film with parallel lists of names, boxes and polygons: what ChestX-Det and the
lab's files have in common."""
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_records(path: str | Path) -> Iterator[tuple[int, dict | None, str]]:
    """(index, record, problem) of every entry of a JSON list; the record is None where it has no `file_name`.

    Raises FileNotFoundError without a file and ValueError for one that is no JSON list.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file '{path}'")
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise ValueError(f'{path}: not valid JSON: {e}') from e
    if not isinstance(entries, list):
        raise ValueError(f'{path}: expected a list of records with file_name, syms and boxes, '
                         f'got {type(entries).__name__}')
    seen = {}
    for i, entry in enumerate(entries):
        name = entry.get('file_name') if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            yield i, None, 'no dict with a file_name: dropped'
        elif name in seen:
            yield i, None, f"file_name '{name[:100]}' is also that of record {seen[name]}: dropped"
        else:
            seen[name] = i
            yield i, entry, ''


def parallel(record: dict, *keys: str) -> list[tuple]:
    """The lists under these keys side by side; missing or null is []. Raises ValueError for others or unequal ones."""
    lists = [[] if record.get(key) is None else record[key] for key in keys]
    for key, values in zip(keys, lists):
        if not isinstance(values, list):
            raise ValueError(f'{key} is no list')
    if len({len(values) for values in lists}) > 1:
        counts = ', '.join(f'{len(values)} {key}' for key, values in zip(keys, lists))
        raise ValueError(f'{counts}: which belongs to which cannot be told')
    return list(zip(*lists))


def is_number(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:       # an integer of hundreds of digits
        return False


def box_xywh(box: Any) -> list[float]:
    """A box [x1, y1, x2, y2] as COCO's [x, y, width, height]. Raises ValueError for one that is none."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError(f'box {str(box)[:100]} is not four finite numbers')
    x1, y1, x2, y2 = map(float, box)
    if x1 >= x2 or y1 >= y2:
        raise ValueError(f'box {box} (xyxy) has no positive width and height')
    return [x1, y1, x2 - x1, y2 - y1]


def flat_polygons(value: Any) -> list[list[float]]:
    """One polygon or a list of them, each [[x, y], ...] or [x, y, x, y, ...], as COCO's list of flat ones.

    Null and [] give []. Raises ValueError for what is none of these.
    """
    if value is None or value == []:
        return []
    if not isinstance(value, list):
        raise ValueError('polygon is no list')
    return [_flat(polygon) for polygon in ([value] if is_number(value[0]) or _is_point(value[0]) else value)]


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _flat(polygon: Any) -> list[float]:
    if isinstance(polygon, list) and all(map(_is_point, polygon)):
        return [float(v) for point in polygon for v in point]
    if isinstance(polygon, list) and len(polygon) % 2 == 0 and all(map(is_number, polygon)):
        return [float(v) for v in polygon]
    raise ValueError('polygon is neither [x, y] points nor a flat list of them')
