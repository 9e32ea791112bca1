"""The folder that a long prediction writes: a line for each film as soon as it is done, the whole when all are.

* predict.json: what the results depend on. Nothing else is written into the same folder.
* predictions.jsonl: `outputs.film_line` of each film, with the absolute `path` by which a second start knows it, and
  the file name of its picture, `overlay` (null without one).
* dicom/UID.sr.dcm, dicom/UID.seg.dcm: if asked for, DICOM documents of each DICOM film (`data.archive`).
* predictions.json (COCO) and findings.csv, made of these lines, which are never all in memory.
"""
import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from relnet_jax import config as config_lib
from relnet_jax import files
from relnet_jax.detector import outputs
from relnet_jax.detector.detector import Detector
from relnet_jax.errors import UserError
from relnet_jax.trees import path_name

SETTINGS, LINES, COCO, TABLE = 'predict.json', 'predictions.jsonl', 'predictions.json', 'findings.csv'
HARMLESS = ('data.threads', 'data.prefetch', 'data.cache', 'test.batch_size')


def settings_of(detector: Detector, lowest: Sequence[float], *, overlays: bool, documents: Sequence[str] = ()) -> dict:
    """What the results in a folder depend on, as JSON values. documents: kinds of DICOM documents."""
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(detector.params):
        digest.update(f'{path_name(path)} {leaf.dtype} {leaf.shape}'.encode())
        digest.update(np.ascontiguousarray(leaf))
    config = {key: value for key, value in config_lib.flat(detector.config).items()
              if key.split('.')[0] in ('data', 'model', 'test') and key not in HARMLESS}
    score = float(lowest[0]) if len(set(lowest)) == 1 else dict(zip(detector.names, map(float, lowest)))
    temperature = detector.points.temperature if detector.points else None
    return json.loads(files.to_json(dict(parameters=digest.hexdigest(), classes=detector.names, score=score,
                                         temperature=temperature, overlays=overlays, documents=documents,
                                         config=config)))


@contextmanager
def begun(out: Path, settings: dict) -> Iterator[tuple[dict[Path, str | None], TextIO]]:
    """Makes the folder, or looks at what it holds: (absolute path -> overlay of each film that is done, the file that
    `append` writes to).

    A last line that was cut off is removed. Raises UserError if the folder holds results of other settings, for lines
    that are none, and while another process is at it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with open(out / LINES, 'a', encoding='utf-8') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)        # dropped by the system however the process ends
        except BlockingIOError:
            raise UserError(f'{out}: another process writes predictions there') from None
        except OSError:     # a file system without locks
            pass
        if os.fstat(file.fileno()).st_size:
            _check(out, settings)
        else:
            files.write_json(out / SETTINGS, settings)
        yield {Path(line['path']): line['overlay'] for line in lines(out, mend=True)}, file


def _check(out: Path, settings: dict) -> None:
    try:
        stored = files.read_json(out / SETTINGS)
    except (OSError, ValueError):
        raise UserError(f'{out}: holds {LINES} without a readable {SETTINGS} beside it: choose another folder, or '
                        'remove them') from None
    before, now = (_flat(values) for values in (stored, settings))
    changes = [f'{key}: {before.get(key, "absent")} -> {now.get(key, "absent")}'
               for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if changes:
        raise UserError(f'{out}: holds predictions of another checkpoint or of other options; choose another folder, '
                        f'or remove this one:\n  ' + '\n  '.join(changes[:8]) + ('\n  ...' if changes[8:] else ''))


def _flat(values: dict) -> dict[str, Any]:
    groups = {key: value for key, value in values.items() if isinstance(value, dict)}
    return {key: value for key, value in values.items() if key not in groups} | {
        f'{group}.{key}': value for group, inner in groups.items() for key, value in inner.items()}


def append(file: TextIO, line: dict) -> None:
    """One film, in the file before anything else is done."""
    file.write(files.to_json(line) + '\n')
    file.flush()


def lines(out: Path, *, mend: bool = False) -> Iterator[dict]:
    """The lines of the folder, one at a time. mend: a last one that is cut off is removed."""
    path = out / LINES
    with open(path, 'rb+' if mend else 'rb') as file:
        for number in itertools.count(1):
            start, text = file.tell(), file.readline()
            if not text.endswith(b'\n'):        # the end, or a line whose writing was interrupted
                if mend:
                    file.truncate(start)
                return
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if not isinstance(line, dict) or not {'path', 'overlay', 'file_name', 'findings'} <= line.keys():
                raise UserError(f'{path}: line {number} is no prediction of a film; remove the line to have it made '
                                'again')
            yield line


def finish(out: Path, categories: list[dict]) -> list[Path]:
    """Writes the COCO file and the table of all lines, and returns their paths."""
    with files.replacing(out / COCO) as scratch, open(scratch, 'w', encoding='utf-8') as file:
        file.write('{"images": [')
        _write_items(file, (outputs.coco_image(line, i) for i, line in enumerate(lines(out), 1)))
        file.write(f'],\n"categories": {json.dumps(categories)},\n"annotations": [')
        ids = itertools.count(1)
        _write_items(file, (a for i, line in enumerate(lines(out), 1) for a in outputs.coco_annotations(line, i, ids)))
        file.write(']}\n')
    with files.replacing(out / TABLE) as scratch, open(scratch, 'w', encoding='utf-8', newline='') as file:
        outputs.write_table(lines(out), file)
    return [out / COCO, out / TABLE]


def _write_items(file: TextIO, items: Iterator[dict]) -> None:
    for i, item in enumerate(items):
        file.write((',\n' if i else '\n') + json.dumps(item))
