"""How much memory of the computer a process may still take."""
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 1 << 60             # bytes; a limit of a group of processes above it is none
CGROUPS, PROC = Path('/sys/fs/cgroup'), Path('/proc')


def host_free(*, proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Bytes that the system has to give, or less where a limit of the process (ulimit -v) or of its group (a container,
    a batch system) comes first. None outside Linux."""
    found = []
    if available := _number(proc / 'meminfo', r'MemAvailable:\s*(\d+) kB'):
        found.append(1024 * available)
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and (pages := _number(proc / 'self' / 'statm', r'(\d+)')):
        found.append(max(limit - pages * os.sysconf('SC_PAGE_SIZE'), 0))
    for folder, most, taken, cache in _groups(proc, cgroups):
        limit, used = _number(folder / most, r'(\d+)'), _number(folder / taken, r'(\d+)')
        if limit is not None and used is not None and limit < UNLIMITED:
            given_back = _number(folder / 'memory.stat', rf'{cache} (\d+)') or 0    # of files, when it is wanted
            found.append(max(limit - used + given_back, 0))
    return min(found, default=None)


def _groups(proc: Path, cgroups: Path) -> Iterator[tuple[Path, str, str, str]]:
    """(folder, names of its limit, of what is taken and of the part of that which can be given back) of the control
    groups, of version 2 and 1, that this process is in and of those around them."""
    try:
        lines = (proc / 'self' / 'cgroup').read_text(encoding='utf-8').splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, kinds, name = line.split(':', 2)
        if kinds and 'memory' not in kinds.split(','):
            continue
        root = cgroups / 'memory' if kinds else cgroups
        names = (('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file') if kinds else
                 ('memory.max', 'memory.current', 'inactive_file'))
        folder = root / name.lstrip('/')
        for place in (folder, *folder.parents):
            yield place, *names
            if place == root:
                break


def _number(file: Path, pattern: str) -> int | None:
    """What the pattern finds at the beginning of a line of a file; None without it."""
    try:
        found = re.search(f'^{pattern}', file.read_text(encoding='utf-8'), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return int(found[1]) if found else None


def gigabytes(count: int) -> str:
    return f'{count / 1e9:.2f} GB' if count < 1e10 else f'{count / 1e9:.0f} GB'
