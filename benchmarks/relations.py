"""Parameters and cost of the relations: python -m benchmarks.relations [--step [--relations=NAME,...]] [--size=512]

Without `--step`: for each relation of models/relations, at R50-FPN width (D = 1024, K = 14, P = 5, 512 RoIs), the
number of its parameters, XLA's count of the arithmetic of its forward pass, and the time of that pass alone. With
`--step`: losses and gradients of one training step of R50-FPN at --size px with and without the relations named, taking
turns in this one process, and the ratio of the medians. Ratios hold on a busy machine, single times do not.
"""
import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from configs import base
from relnet_jax.models.mask_rcnn import build
from relnet_jax.models.relations import RELATIONS, RelationContext, chosen
from relnet_jax.runs.state import batch_shapes, init_params

ROIS, WIDTH, CLASSES, PARTS = 512, 1024, 14, 5


def random_boxes(rng: np.random.Generator, size: int, *shape: int) -> np.ndarray:
    corner = rng.uniform(0, 0.7 * size, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(8, 0.3 * size, (*shape, 2))], -1).astype(np.float32)


def make_context(size: int) -> RelationContext:
    """One image of size x size pixels with 512 RoIs."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return jax.tree.map(jnp.asarray, RelationContext(
        roi_features=normal(1, ROIS, WIDTH), boxes=random_boxes(rng, size, 1, ROIS), roi_valid=np.ones((1, ROIS), bool),
        class_logits=normal(1, ROIS, CLASSES), class_weights=normal(CLASSES, WIDTH), class_bias=normal(CLASSES),
        image_map=normal(1, size // 16, size // 16, 256), image_size=np.full((1, 2), size, np.float32),
        part_boxes=random_boxes(rng, size, 1, PARTS), part_features=normal(1, PARTS, WIDTH),
        part_valid=np.ones((1, PARTS), bool), adjacency=np.abs(normal(CLASSES, CLASSES))))


def seconds(functions: dict, repeats: int) -> dict[str, float]:
    """Median time of each function (no arguments, jax output); all take turns, after one call each to compile."""
    for function in functions.values():
        jax.block_until_ready(function())
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def relation_table(size: int, repeats: int) -> Table:
    config = base.get_config().model.copy_and_resolve_references()
    config.relations = tuple(RELATIONS)
    context = make_context(size)
    forward, rows = {}, {}
    for name, fields in chosen(config):
        module = RELATIONS[name](**dict(fields))
        params = module.init(jax.random.key(0), context).get('params', {})
        compiled = jax.jit(lambda p, c, m=module: m.apply({'params': p}, c)).lower(params, context).compile()
        forward[name] = lambda compiled=compiled, params=params: compiled(params, context)
        rows[name] = (sum(leaf.size for leaf in jax.tree.leaves(params)), compiled.cost_analysis().get('flops', 0.0))
    times = seconds(forward, repeats)
    table = Table(title=f'{ROIS} RoIs of {WIDTH}, {CLASSES} classes, {PARTS} parts, {jax.devices()[0].device_kind}')
    for column in ('relation', 'parameters', 'GFLOP forward', 'ms forward'):
        table.add_column(column, justify='left' if column == 'relation' else 'right')
    for name, (count, flops) in rows.items():
        table.add_row(name, f'{count:,}', f'{flops / 1e9:.2f}', f'{1e3 * times[name]:.1f}')
    return table


def step_line(names: tuple[str, ...], size: int, batch_size: int, repeats: int) -> str:
    """Seconds of losses and gradients of one training step with and without relations, and their ratio."""
    def gradient(relations: tuple):
        config = base.get_config().copy_and_resolve_references()
        with config.unlocked():
            config.data.canvas, config.data.max_objects = (size, size), 8
            config.model.relations = relations
        model = build(config, CLASSES, adjacency=np.full((CLASSES, CLASSES), 0.1))
        batch = make_batch(config, size, batch_size)
        keys = jax.random.split(jax.random.key(0), batch_size)
        params = jax.jit(lambda key: init_params(model, batch, key))(jax.random.key(0))

        def total(params, batch):
            terms, _ = model.apply({'params': params}, batch, keys, method='losses')
            return sum(s / jnp.maximum(n, 1) for s, n in terms.values())
        compiled = jax.jit(jax.grad(total)).lower(params, batch).compile()
        return lambda: compiled(params, batch)

    times = seconds({'plain': gradient(()), 'relations': gradient(names)}, repeats)
    return (f'R50-FPN, {batch_size} x {size} px, losses and gradients: plain {times["plain"]:.3f} s, with '
            f'{", ".join(names)} {times["relations"]:.3f} s: ratio {times["relations"] / times["plain"]:.3f}')


def make_batch(config, size: int, batch_size: int):
    """Noise with four objects an image and all parts known."""
    rng = np.random.default_rng(1)
    shapes = batch_shapes(config, batch_size, PARTS)
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    valid = np.broadcast_to(np.arange(batch.gt_valid.shape[1]) < 4, batch.gt_valid.shape)
    return jax.tree.map(jnp.asarray, batch._replace(
        image=rng.integers(0, 256, batch.image.shape, np.uint8), image_size=np.full((batch_size, 2), size, np.float32),
        image_valid=np.ones(batch_size, bool), gt_boxes=random_boxes(rng, size, *batch.gt_valid.shape),
        gt_labels=rng.integers(1, CLASSES, batch.gt_labels.shape).astype(np.int32), gt_valid=valid, gt_has_mask=valid,
        gt_masks=np.full(batch.gt_masks.shape, 255, np.uint8), part_valid=np.ones(batch.part_valid.shape, bool),
        part_boxes=random_boxes(rng, size, batch_size, PARTS)))


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.relations', description=__doc__.splitlines()[0])
    parser.add_argument('--step', action='store_true', help='measure the share of a training step instead')
    parser.add_argument('--relations', default='class,part,context', help='of --step (default: %(default)s)')
    parser.add_argument('--size', type=int, default=512, help='side of the image in pixels (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=1, help='images of --step (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=5)
    options = parser.parse_args()
    if options.step:
        print(step_line(tuple(options.relations.split(',')), options.size, options.batch, options.repeats))
    else:
        Console().print(relation_table(options.size, options.repeats))


if __name__ == '__main__':
    main()
