"""Files that are there whole or not at all, and JSON without numbers that JSON has no word for."""
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes under another name beside `path` and renames: a killed process leaves the old file or the new one."""
    path = Path(path)
    scratch = path.with_name(f'{path.name}.tmp')
    scratch.write_bytes(data)
    os.replace(scratch, path)


def write_text(path: str | Path, text: str) -> None:
    """As `write_bytes`."""
    write_bytes(path, text.encode())


@contextmanager
def replacing(path: str | Path) -> Iterator[TextIO]:
    """A text file to be written bit by bit, in the place of `path` once the block ends without an error."""
    path = Path(path)
    scratch = path.with_name(f'{path.name}.tmp')
    with open(scratch, 'w', newline='') as file:
        yield file
    os.replace(scratch, path)


def nulls(value: Any) -> Any:
    """`value` with every NaN and infinity in its dicts, lists and tuples replaced by None."""
    if isinstance(value, dict):
        return {key: nulls(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [nulls(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Text in which undefined numbers are null."""
    return json.dumps(nulls(value), indent=indent, allow_nan=False)


def write_json(path: str | Path, value: Any, *, indent: int | None = 1) -> None:
    """`to_json` as a file, written at once."""
    write_text(path, to_json(value, indent=indent) + '\n')
