"""Joins RoI features with what the relations found."""
from typing import Mapping, Sequence

import jax.numpy as jnp

from relnet_jax.types import Array


def fuse(roi_features: Array, enhanced: Mapping[str, Array], *, how: str = 'cat', order: Sequence[str] = ()) -> Array:
    """roi_features [B, N, D] and {name: [B, N, E]} -> [B, N, D + sum of E] ('cat') or [B, N, D] ('add', all E = D).

    order: the names, and 'roi' for the RoI features, in the order of concatenation; () = 'roi', then as given.
    The result has the dtype of roi_features. Raises ValueError for another `how`, an order that does not hold every
    name once, or a width that cannot be added.
    """
    features = {'roi': roi_features, **enhanced}
    names = tuple(order) or tuple(features)
    if sorted(names) != sorted(features):
        raise ValueError(f'fusion: order must hold each of {tuple(features)} once, got {names}')
    if how == 'cat':
        return jnp.concatenate([features[name].astype(roi_features.dtype) for name in names], axis=-1)
    if how != 'add':
        raise ValueError(f"fusion: how must be 'cat' or 'add', got {how!r}")
    for name, feature in enhanced.items():
        if feature.shape[-1] != roi_features.shape[-1]:
            raise ValueError(f'fusion: relation {name!r} must be {roi_features.shape[-1]} wide to be added, '
                             f'got {feature.shape[-1]}')
    return sum((feature.astype(roi_features.dtype) for feature in enhanced.values()), start=roi_features)
