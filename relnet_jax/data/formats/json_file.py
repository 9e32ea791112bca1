"""JSON files of any size: what they become in memory is reckoned before it is made.

Measured on a COCO file of 1 GB, of polygons: until it is opened 225 s of a core, and 8 bytes for each byte of the file.
"""
import json
from pathlib import Path
from typing import Any

from absl import logging

from relnet_jax.errors import UserError
from relnet_jax.host_memory import gigabytes, host_free

SMALL = 1 << 24         # bytes; below, nothing is reckoned
LARGE = 1 << 28         # above, a line says that it takes long
LIST, DICT, VALUE, QUOTE = 88, 240, 50, 12      # bytes of a list, a dict, any other value; more for a quote
BYTES_PER_SECOND = 5e6      # until a file is opened


def load(path: Path) -> Any:
    """What the file holds. Raises UserError, naming it, for one that would take more memory than is free and for one
    that is no JSON, RecursionError for one that is nested too deep, and OSError."""
    size = path.stat().st_size
    if size > LARGE:
        minutes = size / BYTES_PER_SECOND / 60
        logging.info('%s: %s of JSON, opened in about %.0f minutes', path, gigabytes(size), minutes)
    free = host_free() if size > SMALL else None
    _check(path, size, 2 * size, free)
    data = path.read_bytes()
    _check(path, size, size if free is None else memory_of(data), free)
    try:
        return json.loads(data)
    except ValueError as e:
        raise UserError(f'{path}: not valid JSON: {e}') from e


def memory_of(data: bytes) -> int:
    """Bytes that reading a JSON text takes at most: the text itself, as read and decoded, and what becomes of it."""
    copies = 3 if data.isascii() and b'\\u' not in data else 9      # one letter beyond 16 bits makes all of 32
    values = data.count(b',') + data.count(b':')
    return (copies * len(data) + LIST * data.count(b'[') + DICT * data.count(b'{') + VALUE * values
            + QUOTE * data.count(b'"'))


def _check(path: Path, size: int, needed: int, free: int | None) -> None:
    if free is not None and needed > free:
        raise UserError(f'{path}: {gigabytes(size)} of JSON may take {gigabytes(needed)} of memory once read, and '
                        f'{gigabytes(free)} are free')
