"""Files that are there whole or not at all, and JSON without numbers that JSON has no word for."""
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives another name beside `path`, with the same suffix, to write to; at the end it is renamed to `path`.

    A killed process leaves the old file or the new one, and of two that write at once the later one wins. Where writing
    fails the old file stays, and nothing else.
    """
    path = Path(path)
    scratch = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
    try:
        yield scratch
        os.replace(scratch, path)
    except BaseException as error:
        with suppress(OSError):
            scratch.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(scratch)):
            error.filename = str(path)      # the name that says something
        raise


def write_text(path: str | Path, text: str) -> None:
    """`text` as the file `path`, see `replacing`."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding='utf-8')


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


def read_json(path: str | Path) -> Any:
    """Raises ValueError for a file that is no JSON."""
    return json.loads(Path(path).read_text(encoding='utf-8'))


def write_json(path: str | Path, value: Any, *, indent: int | None = 1) -> None:
    """`to_json` as a file, see `replacing`."""
    write_text(path, to_json(value, indent=indent) + '\n')
