"""Whether an exported file finds what the model finds: it is run on noise and on validation images in a new process."""
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from relnet_jax.data import pipeline
from relnet_jax.errors import UserError
from relnet_jax.interop.agreement import Agreement, compare, rows, total
from relnet_jax.interop.standalone import INPUTS
from relnet_jax.types import Detections

REAL_BATCHES = 2        # of validation images that are looked at
LARGEST = dict(box=1e-2, score=1e-4, mask=1e-3)     # differences: pixels, probabilities


class Disagreement(UserError):
    """The exported file does not find what the model finds."""


def noise(shapes: list, seed: int) -> list[np.ndarray]:
    """A batch of random pixels, of images a little smaller than the canvas, with every second part known."""
    rng = np.random.default_rng(seed)
    batch, height, width, _ = shapes[0].shape
    sizes = rng.integers([height * 3 // 4, width * 3 // 4], [height + 1, width + 1], (batch, 2)).astype(np.float32)
    arrays = [rng.integers(0, 256, shapes[0].shape, dtype=np.uint8), sizes]
    for shape in shapes[2:3]:
        corner, side = rng.uniform(0, 0.5, (2, *shape.shape[:2], 2)) * [width, height]
        arrays += [np.float32(np.concatenate([corner, corner + side], -1)),
                   np.broadcast_to(np.arange(shape.shape[1]) % 2 == 0, shape.shape[:2])]
    return arrays


def real(config: ConfigDict, shapes: list) -> list[list[np.ndarray]]:
    """The first batches of the run's validation images; none where the data are not here, which is logged."""
    config = config.copy_and_resolve_references()
    if config.data.val.annotations:     # the training files need not be here
        config.data.train = config.data.val
    try:
        batches = pipeline.eval_batches(pipeline.open_sources(config)[1], config, shapes[0].shape[0])
        arrays = [[getattr(batch, name) for name in INPUTS[:len(shapes)]]
                  for batch in itertools.islice(batches, REAL_BATCHES)]
    except (OSError, ValueError) as error:
        logging.warning('no validation images to compare on: %s', error)
        return []
    return [batch for batch in arrays if [a.shape for a in batch] == [s.shape for s in shapes]]


def run_file(path: Path, runner: str, batches: list[list[np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """What the file finds in a new process that runs the code `runner` and has nothing of this package.

    Raises Disagreement with what that process said, if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / 'inputs.npz', Path(folder) / 'outputs.npz'
        np.savez(inputs, **{f'{i}_{j}': array for i, batch in enumerate(batches) for j, array in enumerate(batch)})
        environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        environment['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'      # this process holds most of a GPU's memory
        if jax.config.jax_compilation_cache_dir:
            environment['JAX_COMPILATION_CACHE_DIR'] = jax.config.jax_compilation_cache_dir
        run = subprocess.run([sys.executable, '-c', runner, str(path.absolute()), str(inputs), str(outputs)],
                             cwd=folder, env=environment, capture_output=True, text=True)
        if run.returncode:
            raise Disagreement(f'a new process cannot run the file:\n{run.stderr[-2000:]}')
        with np.load(outputs) as stored:
            arrays = dict(stored)
    return [{name.partition('_')[2]: value for name, value in arrays.items() if name.partition('_')[0] == str(i)}
            for i in range(len(batches))]


def agreement(live: list[Detections], found: list[dict]) -> Agreement:
    """Of the valid detections of all images of all batches. Raises Disagreement where they differ too much."""
    parts = []
    for expected, got in zip(live, found, strict=True):
        got = Detections(**{'masks': np.zeros((*got['valid'].shape, 0, 0))} | got)
        parts += [compare(rows(expected, i), rows(got, i)) for i in range(len(expected.valid))]
    result = total(parts)
    if not result.complete or any((getattr(result, name) or 0) > limit for name, limit in LARGEST.items()):
        raise Disagreement(f'the file differs from the model by more than {LARGEST}: {result}')
    return result
