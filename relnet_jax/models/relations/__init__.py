"""Relation modules: each maps a `RelationContext` to an enhanced feature per RoI, `(context) -> [B, N, E]`.

A relation is a Linen module whose fields are its options in config.model.relation, besides `dtype`, the compute type
(parameters are float32). It knows no other relation, and says of itself:

* `needs`: a set, of an instance or of the class: 'parts' (boxes of anatomical parts), 'part_features' (what the box
  head makes of them), 'part_window' (those behind a learned window, `PartWindow`), 'graph' (the class graph).
* `acts_in`: 'second_pass' (its result is fused with the RoI features for a second predictor), or 'box_head' (a module
  after each fully connected layer, whose result, as wide as the layer, is added to it).
* `fields(options, neck)`, static, if its fields are not the options as they stand in the config.
* `divide_parts(boxes, valid)`, if it looks at other boxes than the parts, such as cells of them.

Weights between classes and boxes are sown under 'intermediates'; `detector.relation_weights` shows those it knows by
name, and `detector.removal` the score without what they weigh. A new relation is one file and one line in RELATIONS;
docs/extending.md shows one.
"""
import keyword
from typing import Any

from relnet_jax.errors import UserError
from relnet_jax.models.relations.class_region import ClassRegionRelation
from relnet_jax.models.relations.class_relation import ClassRelation
from relnet_jax.models.relations.context import ALL, RelationContext
from relnet_jax.models.relations.context_relation import ContextRelation, LungFeature, PartWindow
from relnet_jax.models.relations.fusion import fuse
from relnet_jax.models.relations.mixture_relation import MixtureRelation
from relnet_jax.models.relations.object_relation import ObjectAttention, ObjectPosition
from relnet_jax.models.relations.part_relation import PartRelation
from relnet_jax.models.relations.presence_relation import PresenceRelation
from relnet_jax.models.relations.region_relation import RegionRelation

RELATIONS = {
    'class': ClassRelation,
    'region': RegionRelation,
    'gaussian_mixture': MixtureRelation,
    'class_region': ClassRegionRelation,
    'part': PartRelation,
    'context': ContextRelation,
    'lung_feature': LungFeature,
    'object_attention': ObjectAttention,
    'object_position': ObjectPosition,
    'presence': PresenceRelation,
}

__all__ = ['ALL', 'RELATIONS', 'Chosen', 'PartWindow', 'RelationContext', 'chosen', 'fuse', 'needs']

Chosen = tuple[tuple[str, tuple[tuple[str, object], ...]], ...]     # (name, the module's fields) in order, hashable


def chosen(model: Any) -> Chosen:
    """The relations that config.model asks for, with their fields.

    Options are config.model.relation.NAME (`class_` for 'class', which is a keyword); without an entry there, a
    relation runs with the defaults of its fields. Raises ValueError for an unknown or repeated relation or option.
    """
    found = []
    for name in model.relations:
        if name not in RELATIONS:
            raise UserError(f'config.model.relations: expected names of {tuple(RELATIONS)}, got {name!r}')
        relation, key = RELATIONS[name], f'{name}_' if keyword.iskeyword(name) else name
        options = dict(model.relation.get(key, {}))
        if hasattr(relation, 'fields'):
            options = relation.fields(options, model.neck)
        if unknown := options.keys() - relation.__dataclass_fields__:
            raise UserError(f'config.model.relation.{key}: {relation.__name__} has no field {min(unknown)!r}')
        found.append((name, tuple(options.items())))
    if len(set(model.relations)) != len(found):
        raise UserError(f'config.model.relations: each relation at most once, got {tuple(model.relations)}')
    return tuple(found)


def needs(relations: Chosen) -> set[str]:
    """What `chosen` relations need together."""
    return set().union(*(RELATIONS[name](**dict(fields), parent=None).needs for name, fields in relations))
