"""Which parameters of a real detector belong to classes and parts: those whose size follows their number."""
import jax
import numpy as np
import pytest

from relnet_jax.models.class_rows import carry_over, namesakes, rows_of
from relnet_jax.models.mask_rcnn import build
from relnet_jax.models.relations import RELATIONS
from relnet_jax.runs.state import abstract_params, batch_shapes
from relnet_jax.trees import path_names
from tests.tiny_run import tiny_config


def shapes(*, classes, parts, relations):
    c = tiny_config()
    with c.unlocked():
        c.model.cascade, c.model.relations, c.model.anatomy_head = (0.5, 0.6), relations, True
    model = build(c, classes, adjacency=[[1.0] * classes] * classes)
    tree = abstract_params(model, batch_shapes(c, 1, parts))
    return dict(zip(path_names(tree), [leaf.shape for leaf in jax.tree.leaves(tree)]))


@pytest.mark.parametrize('kind, few, many, relations, count', [
    # Scores and deltas of two stages and of the second pass, and masks; what presence tells of each class.
    ('classes', dict(classes=4, parts=5), dict(classes=7, parts=5), tuple(RELATIONS), 15),
    # Presence and sides. The part relation, too, is as wide as there are parts, and with it what reads it: these do not
    # fit other parts at all.
    ('parts', dict(classes=4, parts=5), dict(classes=4, parts=8), ('class', 'context'), 6)])
def test_parameters_that_grow_with_the_classes_or_parts_are_those_of_the_table(kind, few, many, relations, count):
    before, after = (shapes(**sizes, relations=relations) for sizes in (few, many))
    assert before.keys() == after.keys()
    growing = {path: after[path][-1] // many[kind] if before[path][-1] != after[path][-1] else 0
               for path in before if before[path] != after[path]}
    assert growing == {path: rows_of(path).numbers for path in before if rows_of(path) and rows_of(path).kind == kind}
    assert len(growing) == count


def test_a_name_goes_before_one_that_is_merely_alike():
    assert namesakes(('Mass', 'mass', 'pleural  effusion', 'nodule'), ('mass', 'Mass', 'Pleural_Effusion')) == {
        0: 1, 1: 0, 2: 2}
    assert namesakes(('MASS',), ('mass', 'Mass')) == {0: 0}


def test_numbers_of_a_class_stay_together():
    initial, stored = -np.ones((2, 6)), np.arange(8.0).reshape(2, 4)
    np.testing.assert_array_equal(carry_over(initial, stored, {0: 1, 2: 0}, numbers=2),
                                  [[2, 3, -1, -1, 0, 1], [6, 7, -1, -1, 4, 5]])
    assert (initial == -1).all()
