"""What the devices tell each other in a training step, read from the compiled program, and the time that takes.

    XLA_FLAGS=--xla_force_host_platform_device_count=2 PJRT_NPROC=8 python -m benchmarks.communication \
        --config=coco --classes=80 --seconds=0.1 --config.data.canvas='(256,256)' --config.train.batch_size=2

The bytes do not depend on the size of images nor on the number of devices, so that a small canvas will do. --seconds:
what the computation of a step takes on one device (measure it there). The times are a model, of a ring all-reduce that
nothing hides: 2 (D - 1) / D x bytes / bandwidth, and 2 (D - 1) latencies for each all-reduce.
"""
import re
import sys

import jax
import numpy as np
from absl import flags
from absl.flags import FlagValues

from relnet_jax import cli
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import state
from relnet_jax.training import optimizer, parallel
from relnet_jax.training.step import make_train_step

# Bytes per second in one direction of one device, and seconds of latency of one hop: what makers publish of the links,
# and of the latencies the order of magnitude.
LINKS = {'NVLink 4 (H100)': (450e9, 2e-6), 'PCIe 5 x16': (64e9, 5e-6), 'InfiniBand NDR, 400 Gb/s a GPU': (50e9, 5e-6),
         'Ethernet, 100 Gb/s a host': (12.5e9, 20e-6), 'TPU v5e ICI': (200e9, 1e-6)}
DEVICES = (2, 8, 16, 64)
BYTES = dict(pred=1, s8=1, u8=1, bf16=2, f16=2, s16=2, u16=2, f32=4, s32=4, u32=4, f64=8, s64=8, u64=8)
COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')


def collectives(text: str) -> list[tuple[str, int]]:
    """(kind, bytes of its results) of every collective in the text of a compiled program (HLO)."""
    found = re.findall(rf'= (.+?) ({"|".join(COLLECTIVES)})(?:-start)?\(', text)
    return [(kind, sum(BYTES[dtype] * int(np.prod([int(n) for n in shape.split(',') if n]))
                       for dtype, shape in re.findall(r'\b([a-z]+\d*)\[([\d,]*)\]', result))) for result, kind in found]


def step_text(config, classes: int, parts: int) -> tuple[str, int]:
    """(the compiled training step on all devices, number of parameters that it trains)."""
    model = mask_rcnn.build(config, num_classes=classes + 1)
    shapes = state.batch_shapes(config, config.train.batch_size, parts)
    params = state.abstract_params(model, state.batch_shapes(config, 1, parts))
    tx = optimizer.make_optimizer(config, params)
    step = parallel.parallel_step(make_train_step(model, tx, config), parallel.make_mesh(), parallel='shard_map')
    start = state.abstract_state(model, tx, config, state.batch_shapes(config, 1, parts))
    moves = jax.tree.leaves(optimizer.trainable(params, config))
    trained = sum(p.size for p, m in zip(jax.tree.leaves(params), moves) if m)
    return step.lower(start, shapes).compile().as_text(), trained


def seconds(size: float, devices: int, *, bandwidth: float, latency: float, messages: int) -> float:
    """Of `messages` ring all-reduces of `size` bytes together."""
    return 2 * (devices - 1) / devices * size / bandwidth + 2 * (devices - 1) * latency * messages


def define(values: FlagValues) -> None:
    cli.define_config(values, 'coco')
    flags.DEFINE_integer('classes', 80, 'without the background', flag_values=values)
    flags.DEFINE_integer('parts', 0, 'anatomical parts', flag_values=values)
    flags.DEFINE_float('seconds', 0.1, 'what the computation of a step takes on one device', flag_values=values)


def command(call: cli.Call) -> None:
    config = cli.config_of(call)
    text, trained = step_text(config, call.flags.classes, call.flags.parts)
    found = collectives(text)
    for kind in sorted({kind for kind, _ in found}):
        sizes = [size for k, size in found if k == kind]
        print(f'{kind}: {len(sizes)} a step, {sum(sizes) / 1e6:.2f} MB together')
    size = sum(size for _, size in found)
    print(f'{trained / 1e6:.2f} M parameters trained = {4 * trained / 1e6:.2f} MB of gradients in float32')
    print(f'share of communication in a step whose computation takes {call.flags.seconds:g} s:')
    print(f'{"":32}' + ''.join(f'{f"{n} devices":>14}' for n in DEVICES))
    for name, (bandwidth, latency) in LINKS.items():
        times = [seconds(size, n, bandwidth=bandwidth, latency=latency, messages=len(found)) for n in DEVICES]
        print(f'{name:32}' + ''.join(f'{100 * t / (t + call.flags.seconds):>12.1f} %' for t in times))


if __name__ == '__main__':
    sys.exit(cli.run('communication', __doc__, define, command))
