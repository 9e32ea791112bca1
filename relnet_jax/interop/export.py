"""A detector as one file that JAX alone can run: python -m relnet_jax.interop.export --ckpt=RUN --out=model.stablehlo
[--batch=1] [--size=H,W] [--platforms=cpu,cuda,tpu]

Installed, the command is relnet-export. The file is a serialised `jax.export.Exported` with the parameters inside. It
takes image uint8 [B, H, W, 3] (RGB, top-left on the canvas, the padding is not looked at) and image_size float32 [B, 2]
(height, width of the true images), and gives a dict of boxes float32 [B, D, 4] (xyxy, pixels of the canvas), scores
float32 [B, D], labels int32 [B, D] (0 where there is no detection), valid bool [B, D] and masks float32 [B, D, m, m]
(probabilities inside the box; missing without a mask head). A model whose relations look at given parts also takes
part_boxes float32 [B, P, 4] and part_valid bool [B, P]. A JSON file beside it names classes, parts, inputs, outputs and
sizes.

A new process without this package then runs it on noise and, where the run's data can be read, on validation images. If
it does not find what the model itself finds, nothing is kept and the exit code is 2.
"""
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from absl.flags import FlagValues
from jax import export as jax_export
from ml_collections import ConfigDict

from relnet_jax import __version__, cli
from relnet_jax import config as config_lib
from relnet_jax.data import pipeline
from relnet_jax.detector.run import load_detector
from relnet_jax.errors import UserError
from relnet_jax.interop.agreement import Agreement, compare, rows, total
from relnet_jax.models.relations import chosen, needs
from relnet_jax.runs import checkpoint, startup
from relnet_jax.types import Array, Detections

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')
INPUTS = ('image', 'image_size', 'part_boxes', 'part_valid')
REAL_BATCHES = 2        # of validation images that are looked at
LARGEST = dict(box=1e-2, score=1e-4, mask=1e-3)     # differences: pixels, probabilities
RESIZE = ('shorter side to `scale`, longer side at most `max_size`, no side longer than the canvas; area averaging '
          'when smaller, bilinear when larger; detections are multiplied by original size / resized size')
PASTE = ('cell (i, j) of m x m lies at share (i + 1/2) / m of the height and (j + 1/2) / m of the width of its box; '
         'interpolate linearly between cells, 0 outside; a pixel belongs to the object above `mask_threshold`')

RUNNER = '''
import sys
import numpy as np
from jax import export
path, inputs, outputs = sys.argv[1:]
with open(path, 'rb') as file:
    detector = export.deserialize(bytearray(file.read()))
with np.load(inputs) as stored:
    batches = [[stored[f'{i}_{j}'] for j in range(len(detector.in_avals))]
               for i in range(len(stored) // len(detector.in_avals))]
found = [detector.call(*batch) for batch in batches]
np.savez(outputs, **{f'{i}_{name}': value for i, lines in enumerate(found) for name, value in lines.items()})
there = {name.partition('.')[0] for name in sys.modules} & {'relnet_jax', 'flax', 'optax', 'orbax', 'ml_collections'}
assert not there, there
'''


class Disagreement(UserError):
    """The exported file does not find what the model finds."""


# ---- what is exported ----

def takes_parts(config: ConfigDict, parts: int) -> bool:
    """Whether detections depend on parts that the caller knows."""
    m = config.model
    return parts > 0 and m.parts != 'predicted' and 'parts' in needs(chosen(m))


def input_shapes(config: ConfigDict, *, batch: int, parts: int) -> list[jax.ShapeDtypeStruct]:
    """The arguments of the exported function, in order; `parts` P."""
    shapes = [jax.ShapeDtypeStruct((batch, *config.data.canvas, 3), np.uint8),
              jax.ShapeDtypeStruct((batch, 2), np.float32)]
    if takes_parts(config, parts):
        shapes += [jax.ShapeDtypeStruct((batch, parts, 4), np.float32), jax.ShapeDtypeStruct((batch, parts), np.bool_)]
    return shapes


def standalone(detect: Callable, params: Any, parts: int) -> Callable:
    """`detect` of `detector.run.make_detect` as a function of the image inputs alone, which returns a dict."""
    def call(*arrays: Array) -> dict:
        # Without the barrier the compiler computes on the constants ahead of time.
        found = detect(jax.lax.optimization_barrier(params), *detector_inputs(arrays, parts))._asdict()
        return found if found['masks'].shape[-1] else {name: value for name, value in found.items() if name != 'masks'}
    return call


def detector_inputs(arrays: tuple[Array, ...], parts: int) -> tuple[Array, ...]:
    """The exported function's arguments as `detect` takes them: unknown parts where there are none among them."""
    if len(arrays) == len(INPUTS):
        return tuple(arrays)
    batch = len(arrays[0])
    return (*arrays, jnp.zeros((batch, parts, 4)), jnp.zeros((batch, parts), bool))


def serialise(call: Callable, shapes: list, platforms: tuple[str, ...]) -> tuple[bytes, Any]:
    """(the file's bytes, its outputs' shapes and types by name). The batch is fixed: the model asks for its length.

    What the model chooses by backend while it is traced (forms of gradients, the number of rows of the mask head on
    CPU) is the writing machine's choice on all platforms; it changes no detection.
    """
    exported = jax_export.export(jax.jit(call), platforms=platforms)(*shapes)
    return exported.serialize(), jax.tree.unflatten(exported.out_tree, exported.out_avals)


def described(config: ConfigDict, table: dict, shapes: list, outputs: dict, **more: Any) -> dict:
    """What a user of the file must know, for the JSON beside it."""
    def of(arrays):
        return {name: dict(dtype=str(a.dtype), shape=list(a.shape)) for name, a in arrays.items()}

    return dict(
        name=config.name, **more, relnet_jax=__version__, jax=jax.__version__,
        classes={label: name for label, name in enumerate(table['classes'], start=1)},
        category_ids={label: number for label, number in enumerate(table['category_ids'], start=1)},
        parts=list(table['parts']), inputs=of(dict(zip(INPUTS, shapes))), outputs=of(outputs),
        scale=config.data.scale, max_size=config.data.max_size, resize=RESIZE,
        score_threshold=config.test.score_threshold, mask_threshold=config.test.mask_threshold, masks=PASTE)


# ---- the check ----

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


def run_file(path: Path, batches: list[list[np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """What the file finds in a new process that has JAX and numpy and nothing of this package.

    Raises Disagreement with what that process said, if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / 'inputs.npz', Path(folder) / 'outputs.npz'
        np.savez(inputs, **{f'{i}_{j}': array for i, batch in enumerate(batches) for j, array in enumerate(batch)})
        environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        environment['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'      # this process holds most of a GPU's memory
        if jax.config.jax_compilation_cache_dir:
            environment['JAX_COMPILATION_CACHE_DIR'] = jax.config.jax_compilation_cache_dir
        run = subprocess.run([sys.executable, '-c', RUNNER, str(path.absolute()), str(inputs), str(outputs)],
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


# ---- the command ----

def export(ckpt: str, out: str | Path, config: ConfigDict | None = None, *, batch: int = 1,
           platforms: tuple[str, ...] = ('cpu', 'cuda', 'tpu')) -> str:
    """Writes `out` and the JSON file beside it; returns the report. `config`: the checkpoint's, or one changed from it.

    Raises Disagreement, and then leaves nothing behind; CheckpointError; UserError for platforms that cannot be.
    """
    here = jax_export.default_export_platform()
    if unknown := set(platforms) - set(PLATFORMS):
        raise UserError(f'--platforms: expected some of {",".join(PLATFORMS)}, got {",".join(sorted(unknown))}')
    if here not in platforms:
        raise UserError(f'--platforms: {",".join(platforms)} cannot be checked on this machine, which is {here}')
    config, table = config or checkpoint.read_config(ckpt), checkpoint.read_class_table(ckpt)
    detect, params = load_detector(ckpt, config, table)
    parts = len(table['parts'])
    shapes = input_shapes(config, batch=batch, parts=parts)
    call = standalone(detect, jax.device_get(params), parts)
    content, outputs = serialise(call, shapes, platforms)

    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    batches = [noise(shapes, seed=0), noise(shapes, seed=1), *real(config, shapes)]
    live = [jax.device_get(detect(params, *detector_inputs(arrays, parts))) for arrays in batches]
    unchecked = out.with_name(f'{out.name}.unchecked')
    try:
        unchecked.write_bytes(content)
        result = agreement(live, run_file(unchecked, batches))
        unchecked.replace(out)
    finally:
        unchecked.unlink(missing_ok=True)
    about = described(config, table, shapes, outputs, checkpoint=str(checkpoint.find(ckpt)), platforms=list(platforms),
                      checked_on=here, agreement=result._asdict())
    out.with_suffix('.json').write_text(json.dumps(about, indent=1) + '\n')
    lines = [f"written: '{out}' ({len(content) / 2 ** 20:.1f} MiB) for {', '.join(platforms)}, and "
             f"'{out.with_suffix('.json')}'",
             f'  takes {", ".join(about["inputs"])}; batch {batch}, canvas {" x ".join(map(str, config.data.canvas))}',
             f'  run in a new process on {here}: {result.matched} of {result.expected} detections in '
             f'{batch * len(batches)} images are the model\'s; largest difference {result.box:g} pixels, '
             f'score {result.score:g}' + (f', mask {result.mask:g}' if result.mask is not None else '')]
    if not result.expected:
        lines.append('  note: the model found nothing in these images, so that little was compared')
    return '\n'.join(lines)


def define(values: FlagValues) -> None:
    cli.define_path(values, 'ckpt', None, 'run folder, its checkpoints folder, one step folder, or RUN/best')
    cli.define_path(values, 'out', None, 'file to write', kind='file')
    flags.DEFINE_integer('batch', 1, 'images a call', lower_bound=1, flag_values=values)
    flags.DEFINE_string('size', '', "H,W of the canvas; without it the checkpoint's", flag_values=values)
    flags.DEFINE_string('platforms', 'cpu,cuda,tpu', f'some of {",".join(PLATFORMS)}', flag_values=values)


def command(call: cli.Call) -> None:
    f = call.flags
    startup.quiet_libraries()
    startup.use_compilation_cache()
    config = config_lib.with_overrides(checkpoint.read_config(f.ckpt), call.overrides)
    if f.size:
        try:
            config = config_lib.with_overrides(config, [f'data.canvas=({f.size})'])
        except UserError as error:
            raise UserError(f'--size={f.size}: {error}') from error
    print(export(f.ckpt, f.out, config, batch=f.batch, platforms=tuple(f.platforms.split(','))))


def main(argv: list[str] | None = None) -> int:
    return cli.run('export', __doc__, define, command, argv)


if __name__ == '__main__':
    sys.exit(main())
