"""Where the image of a record lies: as its file name says, or else as near to that as can be told without doubt."""
import difflib
import os
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from relnet_jax.data.images import SUFFIXES

BY_STEM = 'by its name without the extension'
LOOKED_AT = 5000        # names compared when the nearest one is looked for


class Found(NamedTuple):
    """path: the file, None if there is none. remark: how its place differs from the name, or why there is none."""
    path: Path | None
    remark: str = ''


def image_finder(folder: Path, names: Iterable[str], *, allow_outside: bool = False) -> Callable[[str], Found]:
    """A function that finds the file of a name below `folder`. `names`: all that will be looked for.

    A name that is no file's is also tried with slashes for backslashes, with %20 and the like decoded, without its
    leading folders, in other case, and by its base name or stem anywhere below `folder`: but only if these folders do
    not exist there, one file alone fits best, and it is not that of another name. What lies outside of `folder`, by
    '..', by an absolute name or behind a link, is not read unless `allow_outside`.
    """
    root = os.path.realpath(folder)
    claimed = {_slashed(name) for name in names}
    real_folders: dict[str, str] = {}
    index: dict[str, list[str]] = {}
    given: set[str] = set()

    def is_inside(path: str) -> bool:
        parent = os.path.dirname(path)
        if parent not in real_folders:
            real_folders[parent] = os.path.realpath(parent)
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(real_folders[parent], 'x')
        return os.path.commonpath([root, real]) == root

    def at(name: str) -> Found:
        """The file of exactly this name."""
        path = os.path.join(folder, name)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                return Found(None, 'not a file')
            if allow_outside or is_inside(path):
                return Found(Path(path))
        except (OSError, ValueError):       # not there; or a name too long, with a null byte, half a surrogate pair
            return Found(None, _not_found(name))
        return Found(None, 'outside of the image folder')

    def by_ending(name: str) -> Found:
        """The one file below the folder whose path ends most as `name` does."""
        if not index:
            index.update(_index(folder) or {'': []})
        parts = [_folded(part) for part in name.split('/')]
        paths = index.get(parts[-1]) or index.get(os.path.splitext(parts[-1])[0]) or []
        same = {path: _same_ending(parts, path) for path in paths}
        best = [path for path in paths if same[path] == max(same.values())]
        if len(best) > 1:
            return Found(None, f'not found, and {len(best)} files are called so')
        if not best or best[0] in claimed or best[0] in given:
            return Found(None, _not_found(name))
        given.add(best[0])
        return at(best[0])

    def find(name: str) -> Found:
        exact = at(name)
        if exact.path:
            return exact
        slashed = _slashed(name)
        for other, remark in ((slashed, 'by its name with slashes'), (_slashed(unquote(name)), 'by its name decoded')):
            if other != name and not _leaves(other) and (found := at(other)).path:
                return Found(found.path, remark)
        parts = [part for part in _slashed(unquote(name)).split('/') if part not in ('', '.', '..')]
        if not parts or not name.isprintable():
            return exact
        if len(parts) > 1 and not _leaves(slashed) and os.path.isdir(os.path.join(folder, *parts[:-1])):
            return exact        # its own folder is there: a file elsewhere is another one
        for i in range(1, len(parts)):
            shorter = '/'.join(parts[i:])
            if shorter not in claimed and shorter not in given and (found := at(shorter)).path:
                given.add(shorter)
                return Found(found.path, 'by the end of its name')
        found = by_ending('/'.join(parts))
        if found.path:
            same_base = _folded(found.path.name) == _folded(parts[-1])
            return Found(found.path, 'by its base name' if same_base else BY_STEM)
        return exact if exact.remark == 'outside of the image folder' else found

    return find


def _not_found(name: str) -> str:
    encoding = sys.getfilesystemencoding()
    return 'not found' if name.isascii() or encoding == 'utf-8' else (
        f'not found (this system writes file names in {encoding}; PYTHONUTF8=1 makes it UTF-8)')


def nearest_name(folder: Path, name: str) -> str:
    """The name of a file below `folder` that is most like `name`; '' if there is none."""
    names = []
    for paths in _index(folder).values():
        names += paths
        if len(names) > LOOKED_AT:
            break
    base = _slashed(name).rsplit('/', 1)[-1][:200]
    by_base = {os.path.basename(path): path for path in sorted(names, reverse=True)}
    near = difflib.get_close_matches(base, by_base, 1, 0)
    return by_base[near[0]] if near else ''


def _index(folder: Path) -> dict[str, list[str]]:
    """Folded base names, and stems of image files, -> the paths, relative to `folder`, of the files called so."""
    found: dict[str, list[str]] = {}
    for here, _, files in os.walk(folder):
        for file in files:
            path = os.path.relpath(os.path.join(here, file), folder).replace(os.sep, '/')
            stem, suffix = os.path.splitext(file)
            for key in {_folded(file), _folded(stem if suffix.lower() in SUFFIXES else file)}:
                found.setdefault(key, []).append(path)
    return found


def _same_ending(parts: list[str], path: str) -> int:
    """How many components from the last but one on are the same; the last is so already."""
    count = 0
    for a, b in zip(reversed(parts[:-1]), reversed(path.split('/')[:-1])):
        if a != _folded(b):
            break
        count += 1
    return count


def _leaves(name: str) -> bool:
    return os.path.isabs(name) or '..' in name.split('/')


def _slashed(name: str) -> str:
    return name.strip().replace('\\', '/')


def _folded(text: str) -> str:
    return unicodedata.normalize('NFC', text).casefold()
