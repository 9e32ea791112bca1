"""Plain against fast forms of the operators, in one run on the default backend: python -m benchmarks.ops

Times of a busy machine mean little; the ratio of two forms that take turns in one process is what to read.
"""
import time

import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax.models.conv3x3 import conv3x3
from relnet_jax.ops import roi_align as roi
from relnet_jax.ops.nms import nms, nms_plain
from relnet_jax.ops.roi_align import assign_levels, roi_align, roi_align_plain

IMAGE, STRIDES, CHANNELS, ROIS, SIZE = 512, (4, 8, 16, 32), 256, 1000, 7
CANDIDATES = 4000
ROUNDS = 5


def random_boxes(rng, count, *, smallest, largest):
    """float32 [1, count, 4] in the image, sides log-uniform in pixels."""
    centre = rng.uniform(0, IMAGE, (1, count, 2))
    half = np.exp(rng.uniform(np.log(smallest), np.log(largest), (1, count, 2))) / 2
    return jnp.asarray(np.clip(np.concatenate([centre - half, centre + half], -1), 0, IMAGE), jnp.float32)


def best_times(forms, inputs):
    """Shortest time of each compiled function, seconds; they take turns, so that both see the same machine."""
    compiled = [jax.jit(form) for form in forms]
    for form in compiled:
        jax.block_until_ready(form(*inputs))
    times = [[] for _ in forms]
    for _ in range(ROUNDS):
        for form, record in zip(compiled, times):
            start = time.perf_counter()
            jax.block_until_ready(form(*inputs))
            record.append(time.perf_counter() - start)
    return [min(record) for record in times]


def cases():
    """(name, plain form, fast form, inputs) of every operator."""
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, CANDIDATES, smallest=16, largest=200)
    scores = jnp.asarray(rng.random((1, CANDIDATES)), jnp.float32)
    inputs = boxes, scores, jnp.ones((1, CANDIDATES), bool)
    yield (f'NMS, {CANDIDATES} boxes', *(lambda b, s, v, f=f: f(b, s, v, iou_threshold=0.7) for f in (nms_plain, nms)),
           inputs)

    pyramid = tuple(jnp.asarray(rng.standard_normal((1, side, side, CHANNELS)), jnp.float32)
                    for side in (IMAGE // stride for stride in STRIDES))
    boxes = random_boxes(rng, ROIS, smallest=16, largest=448)
    levels = assign_levels(boxes) - 2
    align = [lambda p, b, level, f=f: f(p, b, level, strides=STRIDES, output_size=SIZE)
             for f in (roi_align_plain, roi_align)]
    name = f'RoIAlign, {ROIS} x {SIZE} x {SIZE} x {CHANNELS}'
    yield f'{name}, forward', *align, (pyramid, boxes, levels)

    gradient = jnp.asarray(rng.standard_normal((1, ROIS, SIZE, SIZE, CHANNELS)), jnp.float32)
    backward = [lambda p, b, level, g, f=f: jax.vjp(lambda p: f(p, b, level), p)[1](g)[0] for f in align]
    yield f'{name}, gradient', *backward, (pyramid, boxes, levels, gradient)

    def read_by_convolution(forward):
        """Gradient of a convolution's kernel on RoI features: XLA decides how often the features are computed."""
        def loss(kernel, pyramid, boxes, levels):
            options = dict(output_size=SIZE, sampling_ratio=2, aligned=False)
            shapes = [level.shape[1:3] for level in pyramid]
            extents = jnp.asarray(shapes, jnp.float32)[None]
            features = forward(roi._flatten(pyramid), *roi._taps(shapes, STRIDES, boxes, levels, extents, options))
            return (conv3x3(features[0], kernel) ** 2).sum()
        return jax.grad(loss)

    kernel = jnp.asarray(rng.standard_normal((3, 3, CHANNELS, 8)), jnp.float32)
    yield ('RoIAlign in a layer, all taps at once / in a loop', read_by_convolution(roi._gather_forward),
           read_by_convolution(roi._loop_forward), (kernel, pyramid, boxes, levels))


def main():
    print(f'backend {jax.default_backend()}, best of {ROUNDS}')
    print(f'{"operator":50s} {"plain ms":>9s} {"fast ms":>9s} {"plain / fast":>13s}')
    for name, plain, fast, inputs in cases():
        slow, quick = best_times((plain, fast), inputs)
        print(f'{name:50s} {slow * 1e3:9.1f} {quick * 1e3:9.1f} {slow / quick:13.1f}')


if __name__ == '__main__':
    main()
