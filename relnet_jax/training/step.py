"""The training step: one body that is the same on one device, on many, under pmap and under shard_map."""
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax
from ml_collections import ConfigDict

from relnet_jax.runs.state import TrainState
from relnet_jax.training.optimizer import learning_rate, trainable
from relnet_jax.types import Array, Batch

TOTALS = ('rpn_cls', 'rpn_bbox')     # reported per pyramid level as `rpn_cls_p2` ... and as their sum


def image_keys(seed: Array, step: Array, local_batch: int, axis_name: str) -> Array:
    """PRNG keys [local_batch]: a function of (seed, step, position in the GLOBAL batch) alone, so that an image draws
    the same samples however many devices share the batch."""
    position = lax.axis_index(axis_name) * local_batch + jnp.arange(local_batch)
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(jax.random.key(seed), step), position)


def ema_update(ema, params, step: Array, decay: float):
    """ema <- d ema + (1 - d) params with d = min(decay, (1 + step) / (10 + step)), step counted from 0.

    The ramp (as in TensorFlow's ExponentialMovingAverage) keeps the random start from weighing on a short run.
    """
    d = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, p: d * e + (1 - d) * p, ema, params)


def accumulated(terms_of: Callable, local_loss: Callable, params, batch: Batch, keys: Array, *, parts: int,
                axis_name: str) -> tuple:
    """Gradient and (losses, metrics) of the local batch, taken a part after the other: in the memory of one part.

    A loss is divided by its count over the whole batch, so the counts have to be known before the first gradient: a
    pass of its own looks for them. It stops where they are known, at the sampled RoIs, and costs body and RPN once
    more.
    """
    def split(tree):
        return jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), tree)

    def add(total, more):
        return jax.tree.map(jnp.add, total, more)

    batch, keys = split(batch), split(keys)
    first = jax.tree.map(lambda x: x[0], (batch, keys))

    def count(total, part):
        return add(total, {k: n for k, (_, n) in terms_of(params, *part)[0].items()}), None

    def step(total, part):
        return add(total, jax.grad(partial(local_loss, counts=counts), has_aux=True)(params, *part)), None

    def zeros(tree):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)

    shapes = jax.eval_shape(terms_of, params, *first)
    counts, _ = lax.scan(count, zeros({k: n for k, (_, n) in shapes[0].items()}), (batch, keys))
    counts = lax.psum(counts, axis_name)
    return lax.scan(step, (zeros(params), zeros(shapes)), (batch, keys))[0]


def make_train_step(model, tx: optax.GradientTransformation, config: ConfigDict, *, begin: int = 0,
                    axis_name: str = 'batch') -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """Body (state, local part of the batch) -> (new state, metrics), to be run over the device axis `axis_name`.

    `begin`: updates that the run had done when its learning rate, optimiser and average began (see `phases`).
    `model.losses(batch, keys)` gives two dicts of name -> (sum, count), the losses and the other metrics, over the
    local images. The loss is the sum over terms of (global sum) / max(global count, 1), so its value and its gradient
    are those of the whole batch on one device (up to the order of additions).
    Metrics, float32 [] and equal on all devices: 'loss', every loss term and its `TOTALS`, every other metric of the
    model, 'mask_rois' (RoIs that the mask loss is a mean over), 'grad_norm' before clipping over what is trained, 'lr',
    and 'finite': 1 where loss and gradient norm are finite, else 0.
    """
    schedule = learning_rate(config)

    def body(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        keys = image_keys(state.seed, state.step, batch.image.shape[0], axis_name)
        moves = trainable(state.params, config)

        def terms_of(params, batch, keys):
            # What is frozen is cut out of the backward pass, not only out of the update.
            params = jax.tree.map(lambda p, m: p if m else lax.stop_gradient(p), params, moves)
            return model.apply({'params': params}, batch, keys, method='losses')

        def local_loss(params, batch, keys, counts=None):
            losses, metrics = terms_of(params, batch, keys)
            # The counts cross devices before the division; the sums only after the backward pass, which therefore
            # holds no collective whose transpose would depend on how the body is run.
            if counts is None:
                counts = lax.psum({k: lax.stop_gradient(n) for k, (_, n) in losses.items()}, axis_name)
            total = sum(s / jnp.maximum(counts[k], 1.0) for k, (s, _) in losses.items())
            return total, (losses, metrics)

        if config.train.accumulate == 1:
            grads, (losses, metrics) = jax.grad(local_loss, has_aux=True)(state.params, batch, keys)
        else:
            grads, (losses, metrics) = accumulated(terms_of, local_loss, state.params, batch, keys,
                                                   parts=config.train.accumulate, axis_name=axis_name)
        grads = jax.tree.map(lambda g, m: lax.psum(g, axis_name) if m else g, grads, moves)
        losses, metrics = lax.psum((losses, metrics), axis_name)

        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        done, ema = state.step - begin, state.ema
        if ema is not None:
            ema = ema_update(ema, params, done, config.train.ema)

        terms = {k: s / jnp.maximum(n, 1.0) for k, (s, n) in losses.items()}
        out = {'loss': sum(terms.values()), **terms}
        for total in TOTALS:
            levels = [v for k, v in terms.items() if k.startswith(total + '_')]
            if levels:
                out[total] = sum(levels)
        out |= {k: s / jnp.maximum(n, 1.0) for k, (s, n) in metrics.items()}
        if 'loss_mask' in losses:
            out['mask_rois'] = losses['loss_mask'][1]
        out['grad_norm'] = optax.tree.norm(grads)
        out['lr'] = schedule(done)
        out['finite'] = jnp.isfinite(out['loss']) & jnp.isfinite(out['grad_norm'])
        out = {k: jnp.asarray(v, jnp.float32) for k, v in out.items()}
        return TrainState(state.step + 1, state.seed, params, opt_state, ema), out

    return body
