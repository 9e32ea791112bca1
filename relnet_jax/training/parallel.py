"""Data parallelism: the same step body under jax.pmap or under jit(shard_map), on the devices of one or more processes.

Parameters are replicated, the batch is divided; device i of D holds images i * B/D to (i + 1) * B/D - 1 of
the global batch.
In JAX 0.10 pmap with `out_axes=None` gives back a replicated array that the next call takes as it is: nothing is
copied between steps. What does cost a second trace is a first call with arrays placed otherwise, hence `replicate`.
"""
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from relnet_jax.errors import UserError
from relnet_jax.types import Batch

AXIS = 'batch'


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """One axis, 'batch', over `devices` (all devices of all processes by default), those of a process side by side."""
    devices = sorted(jax.devices() if devices is None else devices, key=lambda d: (d.process_index, d.id))
    return Mesh(np.asarray(devices), (AXIS,))


def own_rows(batch_size: int, mesh: Mesh) -> range:
    """The rows of the global batch that the devices of this process hold."""
    own = [i for i, d in enumerate(mesh.devices.flat) if d.process_index == jax.process_index()]
    each = batch_size // mesh.size
    return range(own[0] * each, (own[-1] + 1) * each)


def check_divisible(batch_size: int, num_devices: int, parts: int = 1) -> None:
    """Raises ValueError where a batch cannot be divided evenly over devices, and there into `parts`."""
    if parts < 1 or batch_size % (num_devices * parts):
        raise UserError(f'a batch of {batch_size} images cannot be divided evenly over {num_devices} devices'
                         + (f' in {parts} parts each (config.train.accumulate)' if parts != 1 else '')
                         + f'; choose config.train.batch_size as a multiple of {num_devices * max(parts, 1)}')


def pmap_step(body: Callable, mesh: Mesh) -> Callable:
    """`body` under jax.pmap: step(state, batch), state replicated and donated, batch [D, B/D, ...] (`place_batch`)."""
    return jax.pmap(body, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0,
                    devices=list(mesh.devices.flat))


def shard_map_step(body: Callable, mesh: Mesh) -> Callable:
    """`body` under jit(shard_map): step(state, batch), state replicated and donated, batch [B, ...] (`place_batch`).

    `check_vma` must be off: with it on, gradients with respect to the replicated parameters are summed over devices a
    second time, on top of the body's own psum.
    """
    mapped = jax.shard_map(body, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec(AXIS)), out_specs=PartitionSpec(),
                           check_vma=False)
    return jax.jit(mapped, donate_argnums=0)


STEPS = {'pmap': pmap_step, 'shard_map': shard_map_step}     # config.train.parallel


def choose(parallel: str) -> str:
    """config.train.parallel, or 'shard_map' with several processes: there pmap gives each process arrays of its own,
    which Orbax refuses to save since it cannot know them to be copies of one another.

    Raises ValueError for an unknown name.
    """
    if parallel not in STEPS:
        raise UserError(f"config.train.parallel must be one of {', '.join(STEPS)}, got '{parallel}'")
    if jax.process_count() > 1 and parallel != 'shard_map':
        logging.info("%d processes: the step runs under shard_map, not '%s'", jax.process_count(), parallel)
        return 'shard_map'
    return parallel


def parallel_step(body: Callable, mesh: Mesh, *, parallel: str) -> Callable:
    """`body` under the transformation named `parallel`."""
    return STEPS[parallel](body, mesh)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """A fresh copy of `tree` on every device of the mesh, safe to donate (no buffer is shared with `tree`).

    Goes by way of the host and a compiled copy: device_put may hand the caller's own buffers on, even where it is told
    not to, and with several processes it takes host arrays only.
    """
    copy = jax.jit(lambda t: jax.tree.map(jnp.copy, t), out_shardings=NamedSharding(mesh, PartitionSpec()))
    return copy(jax.device_get(tree))


def place_batch(batch: Batch, mesh: Mesh, *, parallel: str) -> Batch:
    """Starts the copy of a numpy batch to the devices; each process gives its `own_rows` of the global batch [B, ...].

    The result is [D, B/D, ...] for 'pmap' and [B, ...] for 'shard_map'. Raises ValueError for rows that cannot be
    divided evenly over the devices of this process.
    """
    rows, devices = len(batch.image), sum(d.process_index == jax.process_index() for d in mesh.devices.flat)
    check_divisible(rows, devices)
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))

    def place(x):
        shape = (devices, rows // devices) if parallel == 'pmap' else (rows,)
        count = shape[0] // devices * mesh.size
        x = x.reshape(*shape, *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, x, (count, *x.shape[1:]))
    return jax.tree.map(place, batch)
