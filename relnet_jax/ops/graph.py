"""Graphs between classes, built on the host with numpy: which findings occur together."""
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from relnet_jax.errors import UserError


def cooccurrence(presence: np.ndarray, *, subset: Sequence[int] | None = None,
                 class_names: Sequence[str] | None = None) -> np.ndarray:
    """Normalised co-occurrence of classes over images: presence [images, K] -> A float32 [K, K], symmetric.

    presence is non-zero where an image contains a class; column 0, the background, is ignored. With n_ij the number
    of images that contain both i and j, A_ij = n_ij / sqrt(n_ii n_jj), A_00 = 1 and A_0j = 0 (Xu et al.,
    Reasoning-RCNN, CVPR 2019). `subset`: classes 1..K-1 among which edges are kept; None = all; the
    diagonal stays for every class. A class without any image has a zero row and column, and a UserWarning names it
    (by `class_names`, K names with the background first, or by number).

    Raises ValueError if presence is not a matrix, class_names has not K entries or subset leaves 1..K-1.
    """
    present = np.asarray(presence)
    if present.ndim != 2 or present.shape[1] < 1:
        raise ValueError(f'co-occurrence: presence must be [images, K], got shape {present.shape}')
    classes = present.shape[1]
    names = [str(k) for k in range(classes)] if class_names is None else list(class_names)
    if len(names) != classes:
        raise ValueError(f'co-occurrence: expected {classes} class names, got {len(names)}')
    present = (present != 0).astype(np.float64)
    present[:, 0] = 0
    together = present.T @ present
    images = np.diag(together)
    missing = [names[k] for k in range(1, classes) if images[k] == 0]
    if missing:
        warnings.warn(f'co-occurrence: no image of class {", ".join(missing)}; its row and column are zero',
                      stacklevel=2)
    adjacency = together / np.sqrt(np.maximum(np.outer(images, images), 1))
    if subset is not None:
        wrong = [k for k in subset if not 1 <= k < classes]
        if wrong:
            raise ValueError(f'co-occurrence: subset must lie in 1..{classes - 1}, got {wrong}')
        chosen = np.isin(np.arange(classes), list(subset))
        adjacency = np.where(np.outer(chosen, chosen) | np.eye(classes, dtype=bool), adjacency, 0)
    adjacency[0, 0] = 1
    return adjacency.astype(np.float32)


def read_adjacency(path: str | Path, num_classes: int) -> np.ndarray:
    """Reads a class graph, such as a knowledge graph, from `.npy` or comma-separated `.csv` -> float32 [K, K].

    Raises ValueError, naming the file, for another extension, unreadable numbers, a shape that is not
    [num_classes, num_classes] (background included), values that are not finite, or a matrix that is not symmetric.
    """
    path = Path(path)
    if path.suffix not in ('.npy', '.csv'):
        raise UserError(f'{path}: expected a .npy or .csv file, got {path.suffix!r}')
    try:
        matrix = (np.load(path, allow_pickle=False) if path.suffix == '.npy'
                  else np.loadtxt(path, delimiter=',', ndmin=2)).astype(np.float64)
    except (ValueError, TypeError) as error:
        raise UserError(f'{path}: not a numeric matrix: {error}') from error
    if matrix.shape != (num_classes, num_classes):
        raise UserError(f'{path}: expected a matrix [{num_classes}, {num_classes}] (classes and background), '
                         f'got shape {list(matrix.shape)}')
    if not np.isfinite(matrix).all():
        row, col = np.argwhere(~np.isfinite(matrix))[0]
        raise UserError(f'{path}: expected finite numbers, got {matrix[row, col]} at row {row}, column {col}')
    difference = np.abs(matrix - matrix.T)
    if difference.max() > 1e-6 * max(1.0, np.abs(matrix).max()):
        row, col = np.unravel_index(difference.argmax(), difference.shape)
        raise UserError(f'{path}: expected a symmetric matrix, got {matrix[row, col]} at row {row}, column {col} '
                         f'and {matrix[col, row]} at row {col}, column {row}')
    return matrix.astype(np.float32)
