"""Time and peak memory of R50-FPN, training step and inference: python -m benchmarks.detector

Each kind of work runs in a process of its own, so that its peak memory is its own. One line of JSON per kind is printed
and appended to benchmarks/results/detector.jsonl. On a shared machine read `cpu_s`, processor time.
`--convolutions` compares the forms of the 3x3 kernel gradient (relnet_jax/models/conv3x3.py) and of the depthwise 7x7
convolution (relnet_jax/models/depthwise7x7.py) instead.
"""
import argparse
import datetime
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax.config import load
from relnet_jax.models import conv3x3, depthwise7x7
from relnet_jax.models.mask_rcnn import build
from relnet_jax.types import Batch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results' / 'detector.jsonl'
CLASSES = 14


def make_batch(batch: int, size: int, objects: int) -> Batch:
    """Noise images with `objects` boxes each, side 1/8 to 1/2 of the image."""
    rng = np.random.default_rng(0)
    side = rng.uniform(size / 8, size / 2, (batch, objects, 2))
    corner = rng.uniform(0, size - side)
    sizes, yes = np.full((batch, 2), size, np.float32), np.ones((batch, objects), bool)
    return jax.tree.map(jnp.asarray, Batch(
        image=rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8), image_size=sizes, image_valid=yes[:, 0],
        image_index=np.arange(batch, dtype=np.int32), original_size=sizes,
        gt_boxes=np.concatenate([corner, corner + side], -1).astype(np.float32),
        gt_labels=rng.integers(1, CLASSES, (batch, objects)).astype(np.int32), gt_valid=yes, gt_crowd=~yes,
        gt_masks=np.full((batch, objects, 112, 112), 255, np.uint8), gt_has_mask=yes,
        part_boxes=np.zeros((batch, 0, 4), np.float32), part_valid=np.zeros((batch, 0), bool)))


def make_work(kind: str, options: argparse.Namespace):
    """(compiled function, its arguments): the gradient of all losses, or detections."""
    config = load(str(ROOT / 'configs' / 'base.py'))
    with config.unlocked():
        config.model.dtype = options.dtype
    model, batch = build(config, CLASSES), make_batch(options.batch, options.size, options.objects)
    params = jax.jit(model.init)(jax.random.key(0), batch.image, batch.image_size)['params']
    # Like folded pre-trained weights: keeps the activations of an untrained body of frozen norms in range.
    params['backbone'] = jax.tree.map(lambda leaf: leaf * 0.5 if leaf.ndim == 1 else leaf, params['backbone'])
    if kind == 'inference':
        run = jax.jit(lambda params, batch: model.apply({'params': params}, batch.image, batch.image_size))
        return run.lower(params, batch).compile(), (params, batch)

    def total(params, batch):
        keys = jax.random.split(jax.random.key(0), options.batch)
        terms, _ = model.apply({'params': params}, batch, keys, method='losses')
        return sum(value / jnp.maximum(count, 1) for value, count in terms.values())

    return jax.jit(jax.grad(total)).lower(params, batch).compile(), (params, batch)


def best_time(run, inputs, rounds: int) -> dict[str, float]:
    """Shortest wall and processor seconds of a call, after one that does not count."""
    jax.block_until_ready(run(*inputs))
    walls, processors = [], []
    for _ in range(rounds):
        wall, processor = time.perf_counter(), time.process_time()
        jax.block_until_ready(run(*inputs))
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return {'wall_s': round(min(walls), 4), 'cpu_s': round(min(processors), 4)}


def peak_memory_gib() -> float:
    """Of the accelerator where there is one, else of this process."""
    stats = jax.devices()[0].memory_stats()
    peak = stats['peak_bytes_in_use'] if stats else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return round(peak / 2 ** 30, 3)


def measure(kind: str, options: argparse.Namespace) -> dict:
    start = time.perf_counter()
    run, inputs = make_work(kind, options)
    compile_s = round(time.perf_counter() - start, 1)
    times = best_time(run, inputs, options.rounds)
    return {'kind': kind, 'batch': options.batch, 'size': options.size, 'objects': options.objects,
            'dtype': options.dtype, **times, 'peak_gib': peak_memory_gib(), 'compile_s': compile_s,
            'rounds': options.rounds, 'device': f'{jax.devices()[0].device_kind}, {platform.machine()}',
            'jax': jax.__version__,
            'python': platform.python_version(), 'date': datetime.date.today().isoformat()}


def compare_convolutions(rounds: int) -> None:
    """Processor milliseconds of XLA's convolutions and of ours, shape by shape."""
    rng = np.random.default_rng(0)
    print(f'{"3x3: map":>22} {"XLA":>8} {"ours":>8}  ms of processor time for the kernel gradient')
    for shape in ((2, 128, 128, 64), (2, 64, 64, 128), (2, 32, 32, 256), (2, 128, 128, 256), (64, 14, 14, 256)):
        x, gradient = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for _ in range(2))
        forms = conv3x3.xla_kernel_gradient, conv3x3.product_kernel_gradient
        plain, ours = (best_time(jax.jit(form), (x, gradient), rounds)['cpu_s'] * 1000 for form in forms)
        print(f'{str(shape):>22} {plain:8.0f} {ours:8.0f}')
    print(f'{"depthwise 7x7: map":>22} {"XLA":>8} {"ours":>8} {"XLA":>8} {"ours":>8}  convolution, kernel gradient')
    for shape in ((1, 128, 128, 96), (1, 64, 64, 192), (1, 32, 32, 384), (1, 16, 16, 768)):
        x, gradient = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for _ in range(2))
        kernel = jnp.asarray(rng.standard_normal((7, 7, 1, shape[-1])), jnp.float32)
        work = ((depthwise7x7.convolve, kernel), (depthwise7x7.convolve_by_shifts, kernel),
                (depthwise7x7.kernel_gradient, gradient), (depthwise7x7.kernel_gradient_by_cells, gradient))
        times = (best_time(jax.jit(form), (x, other), rounds)['cpu_s'] * 1000 for form, other in work)
        print(f'{str(shape):>22}', ' '.join(f'{time:8.1f}' for time in times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kind', choices=('train', 'inference'), help='one kind, in this process; default: both')
    parser.add_argument('--convolutions', action='store_true')
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--size', type=int, default=512, help='side of the square canvas in pixels, a multiple of 64')
    parser.add_argument('--objects', type=int, default=3, help='per image')
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
    parser.add_argument('--rounds', type=int, default=3)
    options = parser.parse_args()
    if options.convolutions:
        compare_convolutions(options.rounds)
    elif options.kind is None:
        for kind in ('inference', 'train'):
            command = [sys.executable, '-m', 'benchmarks.detector', '--kind', kind, *sys.argv[1:]]
            subprocess.run(command, cwd=ROOT, check=True)
    else:
        line = json.dumps(measure(options.kind, options))
        print(line)
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open('a') as file:
            file.write(line + '\n')


if __name__ == '__main__':
    main()
