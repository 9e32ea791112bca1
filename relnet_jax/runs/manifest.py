"""What a step folder must hold: size and checksum of every file of its items, in STEP/manifest.json.

It is written when the items are, before the folder gets its final name, so that a finished step without one is damaged,
or of a version before manifests, which had no item `about` either. Files beside the items belong to Orbax (its own
marks, which nothing here relies on) or came later, and are not covered.
"""
import hashlib
import json
import os
from pathlib import Path

from relnet_jax import files

FILE = 'manifest.json'
ABOUT = 'about'
FORMAT = 1      # of a step folder; a version of relnet_jax reads its own and all before it
DIGEST = 16     # bytes

Covered = dict[str, tuple[int, str]]    # path within the step folder -> bytes, checksum


class Damaged(Exception):
    """The manifest itself is not what was written."""


class NewerFormat(Exception):
    """The step folder is of a later version."""


def seal(folder: Path) -> None:
    """Writes the manifest of a folder whose items are all there, and sees to it that they are on the disk."""
    found = sorted(path for path in folder.rglob('*') if path.is_file() and path.parent != folder)
    covered = {path.relative_to(folder).as_posix(): (path.stat().st_size, _checksum(path, flush=True))
               for path in found}
    files.write_json(folder / FILE, dict(format=FORMAT, files=covered))


def read(folder: Path) -> Covered | None:
    """What the manifest says; None for a folder of before manifests. Raises Damaged and NewerFormat."""
    path = folder / FILE
    if not path.exists():
        if (folder / ABOUT).exists():
            raise Damaged(f'{FILE} is missing')
        return None
    try:
        found = json.loads(path.read_bytes())
        version, covered = found['format'], {name: (int(n), str(mark)) for name, (n, mark) in found['files'].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(f'{FILE} is not what was written') from error
    if version != FORMAT:
        raise NewerFormat(f"'{folder}' has the format {version} of a later version of relnet_jax; this one reads up to "
                          f'{FORMAT}')
    return covered


def damage(folder: Path, covered: Covered, *, contents: bool = True) -> list[str]:
    """What differs from `covered`, a line for each file; [] where all is as it was written.

    contents: False compares the sizes alone, which reads no file.
    """
    wrong = []
    for name, (size, checksum) in covered.items():
        try:
            found = (folder / name).stat().st_size
            if found != size:
                wrong.append(f'{name} has {found} bytes, expected {size}')
            elif contents and _checksum(folder / name) != checksum:
                wrong.append(f'{name} has other contents than were written')
        except OSError as error:
            wrong.append(f'{name}: {error.strerror}')
    return wrong


def _checksum(path: Path, *, flush: bool = False) -> str:
    with open(path, 'rb') as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST)).hexdigest()
        if flush:
            os.fsync(file.fileno())     # a power cut must not leave less than the manifest says
    return found
