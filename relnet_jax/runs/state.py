"""What a training run carries from step to step, and how it begins."""
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from relnet_jax.types import Array, Batch


class TrainState(NamedTuple):
    """Everything that a checkpoint must hold to go on bit for bit."""
    step: Array  # int32 [] number of updates done
    seed: Array  # uint32 [] what the draws of every step follow; not a constant, so that seeds share a compilation
    params: Any         # tree of float32
    opt_state: Any      # optax state
    ema: Any            # running average of params, same tree; None where config.train.ema is 0


def batch_shapes(config: ConfigDict, batch_size: int, num_parts: int) -> Batch:
    """The `Batch` of `config` as jax.ShapeDtypeStruct leaves: what the model is initialised and restored with."""
    b, (h, w), g, m = batch_size, config.data.canvas, config.data.max_objects, config.data.mask_size

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype)

    return Batch(
        image=array('uint8', b, h, w, 3), image_size=array('float32', b, 2), image_valid=array('bool', b),
        image_index=array('int32', b), original_size=array('float32', b, 2), gt_boxes=array('float32', b, g, 4),
        gt_labels=array('int32', b, g), gt_valid=array('bool', b, g), gt_crowd=array('bool', b, g),
        gt_masks=array('uint8', b, g, m, m), gt_has_mask=array('bool', b, g),
        part_boxes=array('float32', b, num_parts, 4), part_valid=array('bool', b, num_parts))


def init_params(model, shapes: Batch, key: Array) -> Any:
    """Parameter tree of `model` for batches of `shapes` (array or ShapeDtypeStruct leaves; values are not read).

    Traceable; under jit only the initialisers are computed, since nothing depends on the output of the forward pass.
    """
    batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    keys = jax.random.split(key, batch.image.shape[0])
    return model.init(key, batch, keys, method='losses')['params']


def abstract_params(model, shapes: Batch) -> Any:
    """Shapes and types of the parameters, without computing anything."""
    return jax.eval_shape(lambda key: init_params(model, shapes, key), jax.random.key(0))


def start(params: Any, tx: optax.GradientTransformation, *, seed: int, ema: bool) -> TrainState:
    """The state before the first step. The average starts as a copy of `params`, so that no buffer is shared."""
    return TrainState(jnp.zeros((), jnp.int32), jnp.asarray(seed, jnp.uint32), params, tx.init(params),
                      jax.tree.map(jnp.copy, params) if ema else None)


def init_state(model, tx: optax.GradientTransformation, config: ConfigDict, shapes: Batch) -> TrainState:
    """A fresh state with parameters drawn from config.seed; one call. Compiled with little optimisation, as it runs
    once: that takes a quarter of the time."""
    def init(seed):
        return start(init_params(model, shapes, jax.random.key(seed)), tx, seed=seed, ema=config.train.ema > 0)
    return jax.jit(init, compiler_options={'xla_backend_optimization_level': 0})(np.uint32(config.seed))


def abstract_state(model, tx: optax.GradientTransformation, config: ConfigDict, shapes: Batch) -> TrainState:
    """Shapes and types of `init_state`: the template that a checkpoint is restored into."""
    return jax.eval_shape(lambda p: start(p, tx, seed=0, ema=config.train.ema > 0), abstract_params(model, shapes))
