"""This project's side of benchmarks/detector.py: a worker of benchmarks/turns.py."""
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import detector_job
from benchmarks.turns import serve
from relnet_jax.config import load
from relnet_jax.detector.results import to_original
from relnet_jax.detector.run import make_detect
from relnet_jax.interop.torchvision import from_state_dict
from relnet_jax.models import conv3x3, used_rows
from relnet_jax.models.mask_rcnn import MaskRCNN, build
from relnet_jax.ops.anchors import NECK_STRIDES
from relnet_jax.ops.masks import paste_mask
from relnet_jax.ops.roi_align import assign_levels, roi_align
from relnet_jax.runs import startup
from relnet_jax.runs import state as states
from relnet_jax.training import optimizer, parallel
from relnet_jax.training.step import make_train_step
from relnet_jax.types import Batch

ROOT = Path(__file__).resolve().parents[1]
MASK_SIZE = 112


def settings(job: dict):
    config = load(str(ROOT / 'configs' / 'base.py')).copy_and_resolve_references()
    with config.unlocked():
        config.data.update(canvas=(job['size'],) * 2, max_objects=job['objects'], mask_size=MASK_SIZE)
        config.model.update(dtype=job.get('dtype', 'float32'), remat=job.get('remat', False))
        config.train.update(batch_size=job['batch'], base_batch_size=job['batch'], learning_rate=1e-5, warmup_steps=0)
        config.test.detections = job.get('detections', detector_job.DETECTIONS)
        if 'proposals' in job:      # of training, and boxes of inference
            config.train.pre_nms = config.train.proposals = config.test.pre_nms = config.test.boxes = job['proposals']
    return config


def make_batch(job: dict) -> Batch:
    size, count = job['batch'], job['objects']
    boxes, labels = detector_job.boxes(job)
    sizes, yes = np.full((size, 2), job['size'], np.float32), np.ones((size, count), bool)
    return Batch(
        image=detector_job.images(job), image_size=sizes, image_valid=yes[:, 0], original_size=sizes,
        image_index=np.arange(size, dtype=np.int32), gt_boxes=boxes, gt_labels=labels.astype(np.int32), gt_valid=yes,
        gt_crowd=~yes, gt_masks=np.full((size, count, MASK_SIZE, MASK_SIZE), 255, np.uint8), gt_has_mask=yes,
        part_boxes=np.zeros((size, 0, 4), np.float32), part_valid=np.zeros((size, 0), bool))


def parameters(model: MaskRCNN, config, job: dict) -> dict:
    template = states.abstract_params(model, states.batch_shapes(config, 1, 0))
    with np.load(job['weights']) as stored:
        return from_state_dict(dict(stored), template)


# ---- whole works ----

def program_gib(compiled) -> float:
    """What a compiled program needs beside its inputs and outputs."""
    return compiled.memory_analysis().temp_size_in_bytes / 2 ** 30


def train_work(model: MaskRCNN, config, job: dict) -> Callable[[], object]:
    """One step after the other, the optimiser's update included, as training runs it."""
    mesh, params = parallel.make_mesh(jax.local_devices()[:1]), parameters(model, config, job)
    tx = optimizer.make_optimizer(config, params)
    step = parallel.parallel_step(make_train_step(model, tx, config, begin=0, axis_name=parallel.AXIS), mesh,
                                  parallel='shard_map')
    at = parallel.replicate(states.start(params, tx, seed=0, ema=False), mesh)
    del params
    batch = parallel.place_batch(make_batch(job), mesh, parallel='shard_map')

    compiled = startup.compile_ahead(step, at, batch)

    def work() -> None:
        nonlocal at
        at, out = compiled(at, batch)
        assert np.isfinite(float(out['loss'])), out
    work.program_gib = program_gib(compiled)
    return work


def inference_work(model: MaskRCNN, config, job: dict) -> Callable[[], object]:
    """Images to boxes and masks pasted into the image."""
    batch, side = make_batch(job), (job['size'],) * 2
    params = jax.device_put(parameters(model, config, job))
    inputs = batch.image, batch.image_size, batch.part_boxes, batch.part_valid
    run = startup.compile_ahead(make_detect(model, jax.local_devices()[:1]), params, *inputs)

    def work() -> int:
        found = jax.device_get(run(params, *inputs))
        pasted = [paste_mask(mask, box, side) for image in range(job['batch'])
                  for mask, box in zip(found.masks[image][found.valid[image]],
                                       to_original(found.boxes[image], side, side)[found.valid[image]])]
        return len(pasted)
    work.detections, work.program_gib = work(), program_gib(run)
    return work


# ---- parts ----

def part_works(model: MaskRCNN, config, params: dict, job: dict) -> dict[str, tuple[Callable, tuple]]:
    """name -> (function of its differentiable arguments, these). Frozen layers get no gradient."""
    kind, batch, count = job['kind'], job['batch'], detector_job.ROIS
    moves = optimizer.trainable(params, config)
    image = jnp.asarray(detector_job.images(job), jnp.float32) / 64 - 2
    valid = dict.fromkeys((1, 2, *NECK_STRIDES['fpn']))
    body_maps = [jnp.asarray(x) for x in detector_job.maps(job, (256, 512, 1024, 2048), (4, 8, 16, 32))]
    pyramid = [jnp.asarray(x) for x in detector_job.maps(job, (256,) * 5, NECK_STRIDES['fpn'])]
    boxes = jnp.asarray(detector_job.rois(job, count if kind == 'train' else detector_job.PROPOSALS[kind]))
    mask_rows = detector_job.positives(job) if kind == 'train' else detector_job.DETECTIONS
    teaching = boxes[:, :mask_rows]
    rng = np.random.default_rng(4)
    crops7 = jnp.asarray(rng.standard_normal((*boxes.shape[:2], 7, 7, 256), np.float32))
    crops14 = jnp.asarray(rng.standard_normal((*teaching.shape[:2], 14, 14, 256), np.float32))

    def apply(params, method, *args):
        params = jax.tree.map(lambda p, m: p if m else jax.lax.stop_gradient(p), params, moves)
        return model.apply({'params': params}, *args, method=method)

    def pool(size, boxes, *levels):
        return roi_align(list(levels), boxes, assign_levels(boxes) - 2, strides=NECK_STRIDES['fpn'][:4],
                         output_size=size)

    def mask(params, x):
        def inside(m, x):
            predict, own, _ = m.roi_heads.mask_function(x, after_conv5=False)
            rows, used = x.reshape(-1, *x.shape[2:]), jnp.ones(x.shape[0] * x.shape[1], bool)
            labels = jnp.ones(len(rows), jnp.int32)
            if kind == 'train':
                return used_rows.sum_over_used_rows(lambda p, x, labels: predict(p, x, labels).mean((1, 2)),
                                                    used_rows.CPU_CHUNK, own, rows, (labels,), used)
            return used_rows.on_used_rows(partial(predict, own), used, (rows, labels))
        return apply(params, inside, x)

    def proposals(*maps):
        return apply(params, lambda m, *maps: m.propose(
            list(maps), valid, jnp.full((batch, 2), job['size'], jnp.float32), pre_nms=detector_job.PROPOSALS[kind],
            post_nms=detector_job.PROPOSALS[kind])[0].boxes, *maps)

    return {
        'body': (lambda params: apply(params, lambda m, x: m.body(x, valid), image), (params,)),
        'FPN': (lambda params, *maps: apply(params, lambda m, *maps: m.fpn(list(maps), valid), *maps),
                (params, *body_maps)),
        'RPN head': (lambda params, *maps: apply(
            params, lambda m, *maps: m.rpn_head(list(maps), [None] * 5), *maps), (params, *pyramid)),
        'RPN head and proposals': (proposals, tuple(pyramid)),
        'RoIAlign 7': (lambda *levels: pool(7, boxes, *levels), tuple(pyramid[:4])),
        'RoIAlign 14': (lambda *levels: pool(14, teaching, *levels), tuple(pyramid[:4])),
        'box head': (lambda params, x: apply(
            params, lambda m, x: m.roi_heads.box_predictors[0](m.roi_heads.box_features(x)[0]), x), (params, crops7)),
        'mask head': (mask, (params, crops14)),
    }


def total(out) -> jax.Array:
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(out))


def flops(run: Callable, inputs: tuple) -> float:
    """Floating-point operations of the plain form: no loops, of which a count sees one turn."""
    with mock.patch.object(conv3x3, 'conv3x3', conv3x3.convolve), mock.patch.object(used_rows, 'CPU_CHUNK', 1 << 30), \
            mock.patch('relnet_jax.models.layers.conv3x3', conv3x3.convolve):
        return float(jax.jit(lambda *inputs: run(*inputs)).lower(*inputs).cost_analysis()['flops'])


def with_parts(model: MaskRCNN, config, job: dict) -> tuple[dict, dict]:
    """(work by name, GFLOP by name): each part forward, and in training forward and backward."""
    work, gflop, params = {}, {}, parameters(model, config, job)
    for name, (run, inputs) in part_works(model, config, params, job).items():
        forms = {'forward': run}
        if job['kind'] == 'train' and 'proposals' not in name:
            forms['both'] = jax.grad(lambda *inputs, run=run: total(run(*inputs)), tuple(range(len(inputs))))
        for form, function in forms.items():
            compiled = jax.jit(function).lower(*inputs).compile()
            work[f'{name}, {form}'] = lambda compiled=compiled, inputs=inputs: jax.block_until_ready(compiled(*inputs))
            if 'RoIAlign' not in name:      # reads memory
                gflop[f'{name}, {form}'] = flops(function, inputs) / 1e9
    if job['kind'] == 'train':
        tx = optimizer.make_optimizer(config, params)
        # One after the other in its own memory, as in a step.
        held = [(jax.device_put(params), tx.init(params))]
        update = jax.jit(lambda grads, state, params: (lambda new: (jax.tree.map(jnp.add, params, new[0]), new[1]))(
            tx.update(grads, state, params)), donate_argnums=(1, 2))
        grads = jax.tree.map(jnp.zeros_like, held[0][0])

        def step() -> None:
            held[0] = jax.block_until_ready(update(grads, held[0][1], held[0][0]))
        work['optimiser, forward'] = step
    side = 2048
    square = jnp.ones((side, side), jnp.float32)
    product = jax.jit(jnp.matmul)
    work['matrix product, forward'] = lambda: jax.block_until_ready(product(square, square))
    gflop['matrix product, forward'] = 2 * side ** 3 / 1e9
    return work, gflop


def main() -> None:
    job = json.loads(sys.argv[1])
    config = settings(job)
    model = build(config, job['classes'])
    start = time.perf_counter()
    if job['parts']:
        work, gflop = with_parts(model, config, job)
        about = {'gflop': gflop}
    else:
        whole = (train_work if job['kind'] == 'train' else inference_work)(model, config, job)
        whole()
        work = {'whole': whole}
        about = {'detections': getattr(whole, 'detections', None), 'program_gib': whole.program_gib}
    serve(work, about | {'compile_s': time.perf_counter() - start, 'version': f'jax {jax.__version__}'})


if __name__ == '__main__':
    main()
