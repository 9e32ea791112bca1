"""Joins RoI features with what the relations found."""
from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from relnet_jax.errors import UserError
from relnet_jax.types import Array


def fuse(roi_features: Array, enhanced: Mapping[str, Array], *, fusion: str = 'cat',
         order: Sequence[str] = ()) -> Array:
    """roi_features [B, N, F] and {name: [B, N, E]} -> [B, N, F + sum of E] ('cat') or [B, N, F] ('add', all E = F).

    order: the names, and 'roi' for the RoI features, in the order of concatenation; () = 'roi', then as given.
    The result has the dtype of roi_features. Raises ValueError for another `fusion`, an order that does not hold every
    name once, or a width that cannot be added.
    """
    features = {'roi': roi_features, **enhanced}
    names = tuple(order) or tuple(features)
    if sorted(names) != sorted(features):
        raise UserError(f'config.model.fusion_order: must hold each of {tuple(features)} once, got {names}')
    if fusion == 'cat':
        return jnp.concatenate([features[name].astype(roi_features.dtype) for name in names], axis=-1)
    if fusion != 'add':
        raise UserError(f"config.model.fusion: expected 'cat' or 'add', got {fusion!r}")
    for name, feature in enhanced.items():
        if feature.shape[-1] != roi_features.shape[-1]:
            raise UserError(f'config.model.fusion: relation {name!r} must be {roi_features.shape[-1]} wide to be '
                             f'added, got {feature.shape[-1]}')
    return sum((feature.astype(roi_features.dtype) for feature in enhanced.values()), start=roi_features)
