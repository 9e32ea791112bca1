"""Work on the rows of a batch by all devices of this process, without a word between them."""
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = 'rows'


def _sharding(devices: Sequence[jax.Device], *axes: str) -> NamedSharding:
    """Of arrays that lie whole on each of the devices, or are divided over them along AXIS."""
    return NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec(*axes))


def over_devices(function: Callable, devices: Sequence[jax.Device]) -> Callable:
    """`function(params, *rows)`, jitted, each of whose arrays and results has B rows: device i of D computes those from
    i * B/D on. Where D does not divide B the first device computes them all, so that a single image costs one.

    With several devices `params` lie on all of them, see `on_all`.
    """
    one = jax.jit(function)
    if len(devices) == 1:
        return one
    everywhere, apart = _sharding(devices), _sharding(devices, AXIS)
    # Each device runs the very program that one device would: what is left to the compiler to divide it may gather.
    mapped = jax.shard_map(lambda params, rows: function(params, *rows), mesh=apart.mesh,
                           in_specs=(everywhere.spec, apart.spec), out_specs=apart.spec, check_vma=False)
    all_of_them = jax.jit(mapped, in_shardings=(everywhere, apart))

    def run(params: Any, *rows: Any) -> Any:
        if len(rows[0]) % len(devices):
            return one(on_first(params), *rows)
        return all_of_them(params, jax.device_put(rows, apart))     # by jit itself not where processes are several
    return run


def on_all(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """A copy of `tree` on each of the devices."""
    if len(devices) == 1:
        return jax.device_put(tree)
    return jax.device_put(tree, _sharding(devices))


def on_first(tree: Any) -> Any:
    """What the first device of this process holds of a tree that all hold (no copy)."""
    return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree)


def on_own(tree: Any) -> Any:
    """A tree that the devices of all processes hold, as one that those of this process hold (no copy)."""
    devices = jax.local_devices()
    sharding = _sharding(devices)

    def own(x: jax.Array) -> jax.Array:
        parts = {part.device: part.data for part in x.addressable_shards}
        return jax.make_array_from_single_device_arrays(x.shape, sharding, [parts[device] for device in devices])
    return on_first(tree) if len(devices) == 1 else jax.tree.map(own, tree)
