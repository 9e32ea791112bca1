"""The class graph of a run: which findings occur together in its training images, or a matrix from a file.

It is an input of the model, no parameter: the loop makes it at the start, prints it, keeps it beside the run and in
every checkpoint's class table (`graph`), and evaluation and prediction take it from there.
"""
import json
import warnings
import zlib
from pathlib import Path

import numpy as np
from absl import logging
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from relnet_jax import files
from relnet_jax.data.source import Source
from relnet_jax.errors import UserError
from relnet_jax.models.relations import chosen, needs
from relnet_jax.ops.graph import cooccurrence, read_adjacency

CACHE = 'class_graph.csv'           # in the run's folder
_counted = {}                       # by description: an ablation trains many runs on the same data in one process
MAX_CLASSES = 20                    # a table with more columns is printed as a list of its strongest edges


def needs_graph(config: ConfigDict) -> bool:
    """Whether a relation of config.model asks for the class graph."""
    return 'graph' in needs(chosen(config.model))


def presence(source: Source) -> np.ndarray:
    """bool [images, K]: which classes an image of `source` holds, crowds included; column 0, background, is False."""
    truth = source.ground_truth()
    rows = {image['id']: i for i, image in enumerate(truth['images'])}
    labels = {category: i + 1 for i, category in enumerate(source.category_ids)}
    found = np.zeros((len(rows), len(labels) + 1), bool)
    for annotation in truth['annotations']:
        found[rows[annotation['image_id']], labels[annotation['category_id']]] = True
    return found


def chosen_labels(source: Source, names: tuple[str, ...]) -> list[int] | None:
    """Labels of config.data.graph_classes; None = all. Names that the data set lacks are left out with a warning.

    Raises ValueError if fewer than two are left, since a graph among them has no edge.
    """
    if not names:
        return None
    absent = [name for name in names if name not in source.classes]
    present = [source.classes.index(name) + 1 for name in names if name in source.classes]
    if absent:
        logging.warning('config.data.graph_classes: %s has no class %s; the graph does without', source.name,
                        ', '.join(f"'{name}'" for name in absent))
    if len(present) < 2:
        raise UserError(f'config.data.graph_classes: expected two or more classes of {source.name}, which are '
                         f'{list(source.classes)}, got {list(names)}')
    return present


def class_graph(source: Source, config: ConfigDict, *, workdir: str | Path | None = None) -> tuple | None:
    """Adjacency of the classes of `source`, the training images: K rows of K numbers, background first; None if no
    relation needs it.

    config.data.graph is a file of `ops.graph.read_adjacency`, or '' for `ops.graph.cooccurrence` among
    config.data.graph_classes, which is read from WORKDIR/class_graph.csv if it was written there for the same data.
    With a `workdir` that file is written and the table printed. The numbers are float32 values as Python floats, which
    survive JSON. Raises what the two functions raise, and ValueError for a file together with graph_classes.
    """
    if not needs_graph(config):
        return None
    names = ('background', *source.classes)
    if config.data.graph:
        if config.data.graph_classes:
            raise UserError('config.data.graph is a file, so config.data.graph_classes must be (), '
                             f'got {config.data.graph_classes}')
        matrix, title = read_adjacency(config.data.graph, len(names)), config.data.graph
    else:
        title = f'co-occurrence in {len(source)} images of {source.name}'
        matrix = _cooccurrence(source, config, names, Path(workdir) / CACHE if workdir else None)
    if workdir:
        show(matrix, names, title=f'class graph: {title}')
    return tuple(tuple(float(v) for v in row) for row in matrix)


def _cooccurrence(source: Source, config: ConfigDict, names: tuple[str, ...], cache: Path | None) -> np.ndarray:
    about = json.dumps(dict(classes=names, data=source.name, images=len(source), ids=_digest(source),
                            file=_file_state(config.data.train.annotations),
                            edges_among=list(config.data.graph_classes)))
    if cache and cache.exists() and cache.read_text(encoding='utf-8').split('\n', 1)[0] == f'# {about}':
        return read_adjacency(cache, len(names))
    if about not in _counted:
        _counted[about] = _count(source, config, names)
    if cache:
        _write(cache, _counted[about], about)
    return _counted[about]


def _count(source: Source, config: ConfigDict, names: tuple[str, ...]) -> np.ndarray:
    subset = chosen_labels(source, tuple(config.data.graph_classes))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        matrix = cooccurrence(presence(source), subset=subset, class_names=names)
    for warning in caught:
        logging.warning('%s: %s', source.name, warning.message)
    return matrix


def _write(path: Path, matrix: np.ndarray, about: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as scratch:
        np.savetxt(scratch, matrix, fmt='%.9g', delimiter=',', header=about)    # nine digits hold a float32 exactly


def _file_state(annotations: str) -> list:
    """Size and time of change of the annotation file, as its contents decide; [] for data that are no file."""
    if not annotations or not Path(annotations).is_file():
        return []
    state = Path(annotations).stat()
    return [annotations, state.st_size, state.st_mtime_ns]


def _digest(source: Source) -> int:
    """A number that changes with the images and their order."""
    return zlib.crc32(json.dumps(source.image_ids).encode())


def show(matrix: np.ndarray, names: tuple[str, ...], *, title: str) -> None:
    """Prints the adjacency matrix [K, K] without the background, or its strongest edges where it is wide."""
    table = Table(title=title, title_justify='left')
    names, matrix = names[1:], np.asarray(matrix)[1:, 1:]
    if len(names) <= MAX_CLASSES:
        table.add_column('class')
        for i in range(len(names)):
            table.add_column(str(i + 1), justify='right')
        for i, (name, row) in enumerate(zip(names, matrix), start=1):
            table.add_row(f'{i} {name}', *('' if v == 0 else f'{v:.2f}' for v in row))
    else:
        table.add_column(f'strongest {MAX_CLASSES} edges of {len(names)} classes')
        table.add_column('', justify='right')
        rows, columns = np.triu_indices(len(names), 1)
        for e in np.argsort(-matrix[rows, columns], kind='stable')[:MAX_CLASSES]:
            table.add_row(f'{names[rows[e]]}, {names[columns[e]]}', f'{matrix[rows[e], columns[e]]:.2f}')
    Console(stderr=True, width=max(100, 7 * len(names) + 30) if len(names) <= MAX_CLASSES else None).print(table)
