"""Optimiser and learning-rate schedule from a config: which parameter moves, how fast, and which decays."""
import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from relnet_jax.errors import UserError
from relnet_jax.models import backbones
from relnet_jax.trees import path_name, path_names

NORM_LEAF = r'(.*[/_])?bn\d*/(scale|bias)'     # parameters of frozen batch norm: `bn1/scale`, `downsample_bn/bias`


def must_match(patterns: Iterable[str], names: list[str], key: str) -> None:
    """Raises ValueError for a pattern of config.train.`key` that matches none of the parameter paths `names`."""
    for pattern in patterns:
        if not any(re.match(pattern, name) for name in names):
            prefixes = {'/'.join(name.split('/')[:k]) for name in names for k in range(1, name.count('/') + 2)}
            near = difflib.get_close_matches(pattern, sorted(prefixes), 3, cutoff=0.3)
            raise UserError(f"config.train.{key}: '{pattern}' matches no parameter; near: "
                             f"{', '.join(near) or 'none'}")


def trainable(params: Any, config: ConfigDict) -> Any:
    """Tree of bool, the shape of `params`: False where a parameter stays as it is.

    Frozen are the leaves whose path begins with a match of a pattern in config.train.freeze, those of the frozen
    stages, and every frozen batch norm. Raises ValueError for a pattern in config.train.freeze that matches nothing.
    """
    names = path_names(params)
    must_match(config.train.freeze, names, 'freeze')
    patterns = [
        *config.train.freeze,
        *backbones.find(config.model.backbone).freeze_patterns(config.model.frozen_stages),
    ]
    if config.model.norm == 'frozen_bn':
        patterns.append(NORM_LEAF)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not any(re.match(p, path_name(path)) for p in patterns), params)


def base_learning_rate(config: ConfigDict) -> float:
    """config.train.learning_rate scaled linearly from base_batch_size to batch_size (Goyal et al. 2017)."""
    return config.train.learning_rate * config.train.batch_size / config.train.base_batch_size


def learning_rate(config: ConfigDict) -> Callable[[Any], Any]:
    """Schedule: number of updates done (int) -> learning rate (float32).

    Linear warm-up from `warmup_factor` over `warmup_steps`, times either `decay_factor` at each share of `steps` in
    `decay_at` ('step'), or half a cosine over all steps (Loshchilov and Hutter 2017; 'cosine').
    """
    t = config.train
    if t.schedule not in ('step', 'cosine'):
        raise UserError(f"config.train.schedule must be 'step' or 'cosine', got '{t.schedule}'")
    if any(not 0 < share <= 1 for share in t.decay_at):
        raise UserError(f'config.train.decay_at holds shares of config.train.steps in (0, 1], got {t.decay_at}')

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        warm = jnp.minimum(step / max(t.warmup_steps, 1), 1.0) if t.warmup_steps else 1.0
        rate = base_learning_rate(config) * (t.warmup_factor + (1 - t.warmup_factor) * warm)
        if t.schedule == 'cosine':
            return rate * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / t.steps, 1.0)))
        passed = sum((step >= round(share * t.steps)).astype(jnp.float32) for share in t.decay_at)
        return rate * t.decay_factor ** passed
    return schedule


def make_optimizer(config: ConfigDict, params: Any) -> optax.GradientTransformation:
    """The optimiser of `config` for a parameter tree like `params` (arrays or shapes).

    'sgd': g <- clip(g) + decay * p; buf <- momentum * buf + g; p <- p - lr * buf, as torch.optim.SGD (the decay is
    part of the gradient and passes through the momentum). 'adamw': decoupled decay (Loshchilov and Hutter 2019).
    Biases and norms do not decay; biases of layers (not of norms) move `bias_lr_factor` times as fast, and leaves whose
    path begins with a match of a pattern in `lr_factors` that pattern's factor times. Frozen parameters get neither
    update nor decay nor optimiser memory, and take no part in the clipped norm.

    Raises ValueError for an unknown optimiser, and for a pattern that matches nothing.
    """
    t = config.train
    if t.optimizer not in ('sgd', 'adamw'):
        raise UserError(f"config.train.optimizer must be 'sgd' or 'adamw', got '{t.optimizer}'")
    names = path_names(params)
    norms = {name.rpartition('/')[0] for name in names if name.endswith('/scale')}

    def decays(name):
        return name.rpartition('/')[2] not in ('bias', 'scale')

    def is_layer_bias(name):
        module, _, leaf = name.rpartition('/')
        return leaf == 'bias' and module not in norms

    def where(rule):    # a function of the tree, since inside `partition` frozen leaves are absent
        return lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: rule(path_name(path)), tree)

    parts = [optax.clip_by_global_norm(t.clip_norm)] if t.clip_norm > 0 else []
    decay = [optax.add_decayed_weights(t.weight_decay, mask=where(decays))] if t.weight_decay else []
    parts += [*decay, optax.trace(t.momentum)] if t.optimizer == 'sgd' else [optax.scale_by_adam(), *decay]
    if t.bias_lr_factor != 1:
        parts.append(optax.masked(optax.scale(t.bias_lr_factor), where(is_layer_bias)))
    must_match((pattern for pattern, _ in t.lr_factors), names, 'lr_factors')
    for pattern, factor in t.lr_factors:
        parts.append(optax.masked(optax.scale(factor), where(lambda name, p=pattern: bool(re.match(p, name)))))
    parts.append(optax.scale_by_learning_rate(learning_rate(config)))

    labels = jax.tree.map(lambda trained: 'train' if trained else 'keep', trainable(params, config))
    return optax.partition({'train': optax.chain(*parts), 'keep': optax.set_to_zero()}, labels)
