"""Names of the leaves of a parameter tree: 'backbone/conv1/kernel'."""
from typing import Any

import jax
import numpy as np


def path_name(path) -> str:
    """'backbone/conv1/kernel' of a jax key path."""
    return '/'.join(str(getattr(k, 'key', getattr(k, 'idx', getattr(k, 'name', k)))) for k in path)


def path_names(params: Any) -> list[str]:
    """Path of every leaf, in tree order."""
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def compact(names: set[str], everything: set[str], prefix: str = '') -> list[str]:
    """`names` with every subtree of `everything` that lies wholly in `names` written as one entry 'a/b/* (count)'."""
    lines = []
    for child in sorted({n[len(prefix):].split('/')[0] for n in everything if n.startswith(prefix)}):
        path = prefix + child
        if path in everything:
            lines += [path] if path in names else []
            continue
        below = {n for n in everything if n.startswith(path + '/')}
        lines += [f'{path}/* ({len(below)})'] if below <= names else compact(names, everything, path + '/')
    return lines


def not_finite(params: Any) -> list[str]:
    """'backbone/conv1/kernel: 3 of 400 numbers' for every leaf (an array) that holds NaN or infinity."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if bad := np.size(leaf) - int(np.isfinite(np.asarray(leaf)).sum()):
            found.append(f'{path_name(path)}: {bad} of {np.size(leaf)} numbers')
    return found
