"""Relation modules: each maps a `RelationContext` to an enhanced feature per RoI, `(context) -> [B, N, E]`.

A new relation is one file and one line in RELATIONS. Options are the module's fields; `dtype` is the compute type of
all of them, parameters are float32. Weights between classes and boxes are sown under 'intermediates'.
"""
from relnet_jax.models.relations.class_region import ClassRegionRelation
from relnet_jax.models.relations.class_relation import ClassRelation
from relnet_jax.models.relations.context import RelationContext
from relnet_jax.models.relations.context_relation import ContextRelation, LungFeature, PartWindow
from relnet_jax.models.relations.fusion import fuse
from relnet_jax.models.relations.mixture_relation import MixtureRelation
from relnet_jax.models.relations.object_relation import ObjectAttention, ObjectPosition
from relnet_jax.models.relations.part_relation import PartRelation
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
}

__all__ = ['RELATIONS', 'PartWindow', 'RelationContext', 'fuse']
