"""A detector as one file that runs without this package: python -m relnet_jax.interop.export --ckpt=RUN
--out=model.stablehlo [--format=stablehlo] [--batch=1] [--size=H,W] [--platforms=cpu,cuda,tpu]

Installed, the command is relnet-export. With --format=stablehlo the file is a serialised `jax.export.Exported`, which
JAX alone runs; with --format=onnx an ONNX model, which onnxruntime runs without JAX (docs/export.md says what to
install). The parameters are inside.

It takes image uint8 [B, H, W, 3] (RGB, top-left on the canvas, the padding is not looked at) and image_size float32
[B, 2] (height, width of the true images), and gives boxes float32 [B, D, 4] (xyxy, pixels of the canvas), scores
float32 [B, D], labels int32 [B, D] (0 where there is no detection), valid bool [B, D] and masks float32 [B, D, m, m]
(probabilities inside the box; missing without a mask head), by name. A model whose relations look at given parts also
takes part_boxes float32 [B, P, 4] and part_valid bool [B, P]. A JSON file beside it names classes, parts, inputs,
outputs, sizes and the versions that wrote it.

A new process without this package then runs it on noise and, where the run's data can be read, on validation images. If
it does not find what the model itself finds, nothing is kept and the exit code is 2.
"""
import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags
from absl.flags import FlagValues
from jax import export as jax_export
from ml_collections import ConfigDict

from relnet_jax import __version__, cli, files
from relnet_jax import config as config_lib
from relnet_jax.detector.run import load_detector
from relnet_jax.errors import UserError
from relnet_jax.interop import onnx_file, stablehlo
from relnet_jax.interop.export_check import agreement, noise, real, run_file
from relnet_jax.interop.standalone import INPUTS, detector_inputs, input_shapes, standalone
from relnet_jax.runs import checkpoint, startup

FORMATS = {'stablehlo': stablehlo, 'onnx': onnx_file}
RESIZE = ('shorter side to `scale`, longer side at most `max_size`, no side longer than the canvas; area averaging '
          'when smaller, bilinear when larger; detections are multiplied by original size / resized size')
PASTE = ('cell (i, j) of m x m lies at share (i + 1/2) / m of the height and (j + 1/2) / m of the width of its box; '
         'interpolate linearly between cells, 0 outside; a pixel belongs to the object above `mask_threshold`')


def described(config: ConfigDict, table: dict, shapes: list, outputs: dict, **more: Any) -> dict:
    """What a user of the file must know, for the JSON beside it."""
    def of(arrays):
        return {name: dict(dtype=str(a.dtype), shape=list(a.shape)) for name, a in arrays.items()}

    return dict(
        name=config.name, **more, relnet_jax=__version__,
        classes={label: name for label, name in enumerate(table['classes'], start=1)},
        category_ids={label: number for label, number in enumerate(table['category_ids'], start=1)},
        parts=list(table['parts']), inputs=of(dict(zip(INPUTS, shapes))), outputs=of(outputs),
        scale=config.data.scale, max_size=config.data.max_size, resize=RESIZE,
        score_threshold=config.test.score_threshold, mask_threshold=config.test.mask_threshold, masks=PASTE)


def export(ckpt: str, out: str | Path, config: ConfigDict | None = None, *, batch: int = 1, format: str = 'stablehlo',
           platforms: tuple[str, ...] = ('cpu', 'cuda', 'tpu')) -> str:
    """Writes `out` and the JSON file beside it; returns the report. `config`: the checkpoint's, or one changed from it.

    `format`: one of FORMATS; `platforms` are those of a StableHLO file. Raises Disagreement, and then leaves nothing
    behind; CheckpointError; UserError for platforms that cannot be, and for packages that an ONNX file needs.
    """
    form = FORMATS[format]
    if form is stablehlo:
        stablehlo.check_platforms(platforms)
    config, table = config or checkpoint.read_config(ckpt), checkpoint.read_class_table(ckpt)
    if form is onnx_file and config.model.dtype != 'float32':
        raise UserError(f"--format=onnx: onnxruntime lacks operators for model.dtype='{config.model.dtype}', add "
                        '--config.model.dtype=float32')
    detect, params = load_detector(ckpt, config, table, devices=jax.local_devices()[:1])
    parts = len(table['parts'])
    shapes = input_shapes(config, batch=batch, parts=parts)
    call = standalone(detect, jax.device_get(params), parts)
    content = form.serialise(call, shapes, platforms)

    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    batches = [noise(shapes, seed=0), noise(shapes, seed=1), *real(config, shapes)]
    live = [jax.device_get(detect(params, *detector_inputs(arrays, parts))) for arrays in batches]
    unchecked = out.with_name(f'{out.name}.unchecked')
    try:
        unchecked.write_bytes(content)
        result = agreement(live, run_file(unchecked, form.RUNNER, batches))
        unchecked.replace(out)
    finally:
        unchecked.unlink(missing_ok=True)
    here = jax_export.default_export_platform() if form is stablehlo else 'cpu'
    made_with = form.made_with()
    about = described(config, table, shapes, jax.eval_shape(call, *shapes), format=format, made_with=made_with,
                      checkpoint=str(checkpoint.find(ckpt)), platforms=list(platforms) if form is stablehlo else [],
                      checked_on=here, agreement=result._asdict())
    files.write_json(out.with_suffix('.json'), about)
    lines = [f"written: '{out}' ({len(content) / 2 ** 20:.1f} MiB), {form.told(made_with, platforms)}, and "
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
    flags.DEFINE_enum('format', 'stablehlo', list(FORMATS), 'what the file is', flag_values=values)
    flags.DEFINE_integer('batch', 1, 'images a call', lower_bound=1, flag_values=values)
    flags.DEFINE_string('size', '', "H,W of the canvas; without it the checkpoint's", flag_values=values)
    flags.DEFINE_string('platforms', 'cpu,cuda,tpu', f'some of {",".join(stablehlo.PLATFORMS)}; an ONNX file has none',
                        flag_values=values)


def command(call: cli.Call) -> None:
    f = call.flags
    if f.format == 'onnx' and f['platforms'].present:
        raise UserError('--platforms: an ONNX file is not written for platforms; leave it out with --format=onnx')
    startup.quiet_libraries()
    startup.use_compilation_cache()
    config = config_lib.with_overrides(checkpoint.read_config(f.ckpt), call.overrides)
    if f.size:
        try:
            config = config_lib.with_overrides(config, [f'data.canvas=({f.size})'])
        except UserError as error:
            raise UserError(f'--size={f.size}: {error}') from error
    print(export(f.ckpt, f.out, config, batch=f.batch, format=f.format, platforms=tuple(f.platforms.split(','))))


def main(argv: list[str] | None = None) -> int:
    return cli.run('export', __doc__, define, command, argv)


if __name__ == '__main__':
    sys.exit(main())
