"""Forms of kernel gradients and of the depthwise 7x7 convolution, shape by shape: python -m benchmarks.convolutions

relnet_jax/models/conv3x3.py, conv7x7.py and depthwise7x7.py choose by these numbers: milliseconds of processor time on
this backend.
"""
import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax.models import conv3x3, conv7x7, depthwise7x7

SHAPES_3X3 = ((2, 128, 128, 64), (2, 64, 64, 128), (2, 32, 32, 256), (2, 128, 128, 256), (64, 14, 14, 256))
STEMS = ((4, 160, 160, 12, 24), (2, 256, 256, 12, 64))      # blocks of 2 x 2 pixels, and output channels
SHAPES_7X7 = ((1, 128, 128, 96), (1, 64, 64, 192), (1, 32, 32, 384), (1, 16, 16, 768))


def best_ms(run: Callable, inputs: tuple, rounds: int) -> float:
    """Fewest processor milliseconds of a call, after one that does not count."""
    run = jax.jit(run)
    jax.block_until_ready(run(*inputs))
    times = []
    for _ in range(rounds):
        start = time.process_time()
        jax.block_until_ready(run(*inputs))
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=3)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    print(f'{"3x3: map":>22} {"XLA":>8} {"ours":>8}  kernel gradient')
    for shape in SHAPES_3X3:
        inputs = normal(*shape), normal(*shape)
        times = (best_ms(form, inputs, rounds)
                 for form in (conv3x3.xla_kernel_gradient, conv3x3.product_kernel_gradient))
        print(f'{str(shape):>22}', ' '.join(f'{time:8.0f}' for time in times))
    print(f'{"stem: blocks":>22}')
    for *shape, out in STEMS:
        inputs = normal(*shape), normal(*shape[:3], out)
        times = (best_ms(form, inputs, rounds)
                 for form in (conv7x7.xla_kernel_gradient, conv7x7.product_kernel_gradient))
        print(f'{str((*shape, out)):>22}', ' '.join(f'{time:8.0f}' for time in times))
    print(f'{"depthwise 7x7: map":>22} {"XLA":>8} {"ours":>8} {"XLA":>8} {"ours":>8}  convolution, kernel gradient')
    for shape in SHAPES_7X7:
        x, gradient, kernel = normal(*shape), normal(*shape), normal(7, 7, 1, shape[-1])
        work = ((depthwise7x7.convolve, kernel), (depthwise7x7.convolve_by_shifts, kernel),
                (depthwise7x7.kernel_gradient, gradient), (depthwise7x7.kernel_gradient_by_cells, gradient))
        print(f'{str(shape):>22}', ' '.join(f'{best_ms(form, (x, other), rounds):8.1f}' for form, other in work))


if __name__ == '__main__':
    main()
