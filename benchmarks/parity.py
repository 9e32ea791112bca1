"""Detections side by side with torchvision's: python -m benchmarks.parity --torch-python=PATH --images=DIR[,DIR ...]

PATH is any Python that has torch and torchvision; it runs torchvision_side.py, which makes weights by rule, stores them
as .pth files and detects with them. The same files go through this project's own reading of weights. Each line of the
table compares two lists of detections of the same images (relnet_jax/interop/agreement.py); it is printed and appended
to benchmarks/results/parity.jsonl. `--cases=a,b` runs some of CASES; `--ckpt=RUN` adds a trained detector of this
project in bfloat16. docs/parity.md says what the cases mean.
"""
import argparse
import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from benchmarks.parity_images import CANVAS, LARGER, ROOT, SMALL, STEP, fits, on_canvas, pipeline_config, write_images
from relnet_jax.data import pipeline
from relnet_jax.data.images import SUFFIXES
from relnet_jax.detector.inputs import image_source
from relnet_jax.detector.results import to_original
from relnet_jax.detector.run import load_detector
from relnet_jax.interop.agreement import Agreement, compare, rows, total
from relnet_jax.interop.load import load_weights
from relnet_jax.interop.read import read_state
from relnet_jax.interop.torchvision import from_state_dict, torch_name
from relnet_jax.models.mask_rcnn import MaskRCNN, build
from relnet_jax.runs import checkpoint, startup

RESULTS = ROOT / 'benchmarks' / 'results' / 'parity.jsonl'
CLASSES = 14                    # with background
CASES = {
    'alone': 'FPN, images smaller than the canvas, one by one',
    'canvas': 'FPN, two sizes in a batch on a larger canvas, against this project alone',
    '800x1333': 'FPN, 800 x 1333, two in a batch, both sides computing on the padding',
    'batch': 'FPN, 800 x 1333 and a smaller one in a batch, both sides computing on the padding',
    'padding': "FPN, 800 x 1333, each side's own way with padding",
    'whole': "FPN, from file to boxes, each side's own resizing and padding",
    'group_norm': 'FPN with group norm, images smaller than the canvas, one by one',
    'convnext': 'ConvNeXt-T with FPN, images smaller than the canvas, one by one',
    'c4': 'C4, 300 proposals, images smaller than the canvas, one by one',
    'bfloat16': 'FPN, bfloat16 against float32, both this project',
    'checkpoint': 'trained checkpoint, bfloat16 against float32, both this project',
}


class Work(NamedTuple):
    """Where the two sides meet, and what this side needs to run."""
    folder: Path                # images as .npy, weights and torchvision's results
    files: list[Path]           # images as found
    names: dict[str, list]      # images of each case, as names of .npy files in the folder
    ckpt: str


# ---- torchvision's side ----

TORCHVISION = {     # case -> (model, mode, padded to a multiple of); the others need no torchvision
    'alone': ('fpn', 'each', 32), '800x1333': ('fpn', 'batch', STEP), 'batch': ('fpn', 'batch', STEP),
    'padding': ('fpn', 'each', 32), 'whole': ('fpn', 'whole', 32), 'group_norm': ('group_norm', 'each', 32),
    'convnext': ('convnext', 'each', 32), 'c4': ('c4', 'each', 32)}


def run_torchvision(python: str, work: Work, cases: list[str]) -> None:
    """Leaves weights and results in the folder; not again where it already holds those of the same images and code."""
    needed = [case for case in TORCHVISION if case in cases or case == 'alone']
    runs = [dict(name=case, model=model, mode=mode, divisible=divisible, images=work.names[case])
            for case, (model, mode, divisible) in TORCHVISION.items() if case in needed]
    script = ROOT / 'benchmarks' / 'torchvision_side.py'
    read = [script, script.with_name('weight_rule.py'), *sorted(work.folder.glob('*.npy'))]
    job = json.dumps(dict(classes=CLASSES, models=list(dict.fromkeys(run['model'] for run in runs)), runs=runs,
                          first_image=work.names['group_norm'][0], contents=[zlib.crc32(f.read_bytes()) for f in read]))
    path, done = work.folder / 'job.json', work.folder / 'versions.json'
    if done.exists() and path.read_text() == job:
        return
    done.unlink(missing_ok=True)
    path.write_text(job)
    subprocess.run([python, str(script), str(work.folder)], check=True)


def torchvisions(work: Work, case: str) -> list[dict]:
    with np.load(work.folder / f'{case}.npz') as stored:
        return [{name: stored[f'{name}_{i}'] for name in ('boxes', 'scores', 'labels', 'masks')
                 if f'{name}_{i}' in stored} for i in range(len(work.names[case]))]


# ---- this side ----

def model_config(name: str) -> ConfigDict:
    config = pipeline_config()
    with config.unlocked():
        if name == 'c4':
            config.model.update(neck='c4', anchor_sizes=((16, 32, 64, 128, 256, 512),))
            config.test.boxes = 300
        if name == 'group_norm':
            config.model.norm = name
        if name == 'convnext':
            config.model.update(backbone='convnext_tiny', norm='layer_norm')
    return config


def group_norm_params(state: dict[str, np.ndarray], template: dict) -> dict:
    """Parameters from torchvision's names with group norm after the convolutions of neck and mask head, which
    `from_state_dict` does not know: block.0 is the convolution, block.1 the norm."""
    state, norms = dict(state), {}
    for room in ('fpn', 'mask_head'):
        for name in [name for name in template[room] if name.endswith('_norm')]:
            block = torch_name(f'{room}/{name.removesuffix("_norm")}')[:-1]
            leaves = {'scale': state.pop(f'{block}1.weight'), 'bias': state.pop(f'{block}1.bias')}
            norms.setdefault(room, {})[name] = leaves
    plain = {room: {name: value for name, value in modules.items() if name not in norms.get(room, {})}
             for room, modules in template.items()}
    found = from_state_dict(state, plain)
    return {room: modules | norms.get(room, {}) for room, modules in found.items()}


def prepare(work: Work, name: str) -> tuple[MaskRCNN, Any]:
    """(model, parameters from torchvision's file)."""
    config = model_config(name)
    model = build(config, CLASSES)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.uint8),
                            np.full((1, 2), 64, np.float32))['params']
    path = work.folder / f'{name}.pth'
    if name == 'group_norm':
        params = group_norm_params(read_state(path), shapes)
    else:
        params, report = load_weights(path, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes), config)
        assert not report.kept and not report.unused, report
    return model, jax.device_put(params)


def detect(work: Work, name: str, images: list[np.ndarray], *, canvas: tuple[int, int], batch: int = 1,
           dtype: Any = jax.numpy.float32, mask_padding: bool = True) -> list[dict]:
    """Detections of each image, by batches of `batch`."""
    model, params = prepare(work, name)
    model = model.clone(dtype=dtype, image=model.image._replace(mask_padding=mask_padding))
    run = jax.jit(lambda params, image, size: model.apply({'params': params}, image, size))
    found = []
    for start in range(0, len(images) - len(images) % batch, batch):
        detections = jax.device_get(run(params, *on_canvas(images[start:start + batch], canvas)))
        found += [rows(detections, i) for i in range(batch)]
    return found


def whole(work: Work) -> list[dict]:
    """From file to boxes in pixels of the original image, by the pipeline that evaluation and prediction use."""
    config = pipeline_config()
    files = [file for file in work.files if fits(file, config)]
    source = image_source(files, dict(classes=(), category_ids=(), parts=()), config, {})
    prepared = [pipeline.prepared(source, i, config.data, jitter=1.0) for i in range(len(files))]
    found = detect(work, 'fpn', [example.image for example, _ in prepared], canvas=CANVAS)
    return [{'boxes': to_original(lines['boxes'], example.image.shape[:2], size), 'scores': lines['scores'],
             'labels': lines['labels']} for lines, (example, size) in zip(found, prepared)]


def of_checkpoint(ckpt: str, dtype: str, *, images: int = 40) -> list[dict]:
    """Detections of a trained detector in the first of its validation images."""
    config, table = checkpoint.read_config(ckpt), checkpoint.read_class_table(ckpt)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.dtype = dtype
    run, params = load_detector(ckpt, config, table, devices=jax.local_devices()[:1])
    source = pipeline.open_sources(config)[1]
    found = []
    for batch in pipeline.eval_batches(source, config, config.test.batch_size):
        detections = jax.device_get(run(params, batch.image, batch.image_size, batch.part_boxes, batch.part_valid))
        found += [rows(detections, i) for i in np.flatnonzero(batch.image_valid)]
        if len(found) >= images:
            break
    return found[:images]


def both_sides(work: Work, case: str) -> tuple[list[dict], list[dict]]:
    """(detections to agree with, detections) of a case, a list per image."""
    images = [np.load(work.folder / name) for name in work.names.get(case, ())]
    if case == 'checkpoint':
        return of_checkpoint(work.ckpt, 'float32'), of_checkpoint(work.ckpt, 'bfloat16')
    if case == 'bfloat16':
        return detect(work, 'fpn', images, canvas=CANVAS), detect(work, 'fpn', images, canvas=CANVAS,
                                                                dtype=jax.numpy.bfloat16)
    if case == 'canvas':
        batched = detect(work, 'fpn', images, canvas=LARGER, batch=2)
        return detect(work, 'fpn', images[:len(batched)], canvas=CANVAS), batched
    if case == 'whole':
        return torchvisions(work, case), whole(work)
    if case in ('800x1333', 'batch'):
        return torchvisions(work, case), detect(work, 'fpn', images, canvas=CANVAS, batch=2, mask_padding=False)
    name = TORCHVISION[case][0]
    return torchvisions(work, case), detect(work, name, images, canvas=CANVAS if name == 'fpn' else SMALL)


# ---- results ----

def record(work: Work, case: str, count: int, found: Agreement) -> dict:
    versions = {name: importlib.metadata.version(name) for name in ('jax', 'flax', 'numpy')}
    torch = work.folder / 'versions.json'
    if case in TORCHVISION:
        versions |= json.loads(torch.read_text())
    return dict(case=case, about=CASES[case], images=count, **found._asdict(), backend=jax.default_backend(),
                machine=f'{platform.machine()}, {platform.system()}', python=platform.python_version(), **versions,
                date=datetime.date.today().isoformat(),
                command=' '.join(['python -m benchmarks.parity', *map(without_root, sys.argv[1:])]))


def without_root(argument: str) -> str:
    """'--option=/a/b/c,/d/e' -> '--option=b/c,d/e': where things lie on a machine is nobody else's business."""
    name, equals, value = argument.partition('=')
    if not equals:
        return argument
    paths = [Path(part) for part in value.split(',')]
    return name + equals + ','.join('/'.join(p.parts[-2:]) if p.is_absolute() else str(p) for p in paths)


def print_table(records: list[dict]) -> None:
    table = Table('case', 'images', 'detections', 'matched', 'IoU >= 0.9', 'same order', 'box, px', 'score', 'mask')
    for r in records:
        table.add_row(r['case'], *(str(r[key]) for key in ('images', 'expected', 'matched', 'over_90')),
                      'yes' if r['ordered'] else 'no',
                      *('-' if r[key] is None else f'{r[key]:.1e}' for key in ('box', 'score', 'mask')))
    console = Console()
    console.print(table)
    for r in records:
        console.print(f'{r["case"]}: {r["about"]}', highlight=False)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--torch-python', required=True, help='a Python that has torch and torchvision')
    parser.add_argument('--images', required=True, help='folders of images, separated by commas')
    parser.add_argument('--count', type=int, default=2, help='images of each folder (default: %(default)s)')
    parser.add_argument('--cases', default='', help=f'some of {",".join(CASES)}; default: all')
    parser.add_argument('--ckpt', default='', help='a checkpoint of this project, for the case of that name')
    parser.add_argument('--folder', default='', help="where torchvision's results are kept; default: nowhere")
    options = parser.parse_args(argv)
    cases = options.cases.split(',') if options.cases else [c for c in CASES if c != 'checkpoint' or options.ckpt]
    if unknown := set(cases) - set(CASES):
        parser.error(f'--cases: {", ".join(sorted(unknown))} not among {", ".join(CASES)}')
    startup.use_compilation_cache()
    files = [file for folder in options.images.split(',') for file in
             sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in SUFFIXES)[:options.count]]
    if len(files) < 3:
        parser.error(f'--images: expected at least 3 images, got {len(files)}')

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        work = Work(folder, files, write_images(folder, files), options.ckpt)
        if set(cases) - {'checkpoint'}:
            run_torchvision(options.torch_python, work, cases)
        records = []
        for case in cases:
            expected, found = both_sides(work, case)
            agreement = total([compare(*pair) for pair in zip(expected, found, strict=True)])
            records.append(record(work, case, len(expected), agreement))
            with RESULTS.open('a') as file:
                file.write(json.dumps(records[-1]) + '\n')
            print(json.dumps(records[-1]), flush=True)
    print_table(records)


if __name__ == '__main__':
    main()
