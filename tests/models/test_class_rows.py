"""Which parameters of a real detector belong to classes: those whose size follows their number."""
import jax

from relnet_jax.models.class_rows import numbers_per_class
from relnet_jax.models.mask_rcnn import build
from relnet_jax.runs.state import abstract_params, batch_shapes
from relnet_jax.trees import path_names
from tests.tiny_run import tiny_config


def shapes(config, classes):
    model = build(config, classes, adjacency=[[1.0] * classes] * classes)
    tree = abstract_params(model, batch_shapes(config, 1, 5))
    return dict(zip(path_names(tree), [leaf.shape for leaf in jax.tree.leaves(tree)]))


def test_parameters_that_grow_with_the_classes_are_those_of_the_table():
    c = tiny_config()
    with c.unlocked():
        c.model.cascade, c.model.relations = (0.5, 0.6), ('class', 'region', 'part')
    few, many = shapes(c, 4), shapes(c, 7)
    growing = {name: many[name][-1] // 7 for name in few if few[name] != many[name]}
    assert growing == {name: numbers_per_class(name) for name in few if numbers_per_class(name)}
    assert len(growing) == 14       # scores and deltas of two stages and of the second pass, and masks
