"""Relations in the config: what goes together, and what each relation makes of its options."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from relnet_jax.models.mask_rcnn import build
from relnet_jax.models.relation_head import own_contexts
from relnet_jax.models.relations import RELATIONS, RelationContext, chosen
from relnet_jax.ops.geometry import divide_boxes
from relnet_jax.runs.state import init_params


def test_options_without_relations_change_nothing(tiny_batch):
    """Parameters, program and PRNG use of the plain detector: the same traced computation, operation by operation."""
    batch, keys = tiny_batch(), jax.random.split(jax.random.key(1), 2)

    def program(model):
        shapes = jax.eval_shape(lambda key: init_params(model, batch, key), jax.random.key(0))
        losses = lambda params: model.apply({'params': params}, batch, keys, method='losses')
        return shapes, str(jax.make_jaxpr(losses)(shapes))

    shapes, plain = program(make_model())
    assert set(shapes) == {'backbone', 'fpn', 'rpn', 'box_head', 'box_predictor', 'mask_head', 'mask_predictor'}
    other = make_model(fusion='add', relation_loss='second_only', boxes_from='first', scores_from='mean',
                       relation_gt_boxes=True, cascade_weights=(0.5,))
    assert program(other) == (shapes, plain)


def make_model(**changes):
    config = base.get_config().copy_and_resolve_references()
    with config.unlocked():
        config.model.update(dict(backbone='tiny') | changes)
    return build(config, 4)


@pytest.mark.parametrize('changes, message', [
    (dict(neck='c5'), r"model\.neck: expected one of \('fpn', 'c4'\), got 'c5'"),
    (dict(relation_loss='first'), r"model\.relation_loss: expected one of .*got 'first'"),
    (dict(scores_from='first'), r"model\.scores_from: expected one of .*got 'first'"),
    (dict(parts='guessed'), r"model\.parts: expected one of .*got 'guessed'"),
    (dict(parts='predicted'), r"'predicted' needs config\.model\.anatomy_head"),
    (dict(cascade=(0.5, 0.6), cascade_weights=(1.0,)), r'model\.cascade_weights: expected one per stage'),
    (dict(neck='c4', anchor_sizes=((32, 64),), cascade=(0.5, 0.6)), r'config\.model\.cascade needs the FPN'),
    (dict(neck='c4', anchor_sizes=((32, 64),), relations=('object_attention',)), r'object_attention needs the FPN'),
    (dict(backbone='vgg'), r"model\.backbone: expected one of \[.*'resnet50'.*got 'vgg'"),
    (dict(norm='batch_norm'), r"model\.norm: tiny takes one of \('frozen_bn', 'group_norm'\), got 'batch_norm'"),
    (dict(frozen_stages=6), r'model\.frozen_stages must be 0 to 5, got 6'),
    (dict(relations=('part',)), r'works with anatomical parts: expected part_boxes'),
    (dict(deformable='v3'), r"model\.deformable: tiny takes one of \('', 'v1', 'v2'\), got 'v3'"),
])
def test_settings_that_do_not_go_together_are_named(changes, message):
    model = make_model(**changes)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3), jnp.uint8), jnp.full((1, 2), 64.))


def test_relations_are_known_and_named_once():
    with pytest.raises(ValueError, match=r"model\.relations: expected names of .*got 'spatial'"):
        make_model(relations=('spatial',))
    with pytest.raises(ValueError, match='each relation at most once'):
        make_model(relations=('class', 'class'))
    with pytest.raises(ValueError, match=r'adjacency: expected \[4, 4\], got \[3, 3\]'):
        build(base.get_config(), 4, adjacency=np.eye(3))


def test_a_relation_that_divides_the_parts_sees_its_cells_alone_and_the_others_the_parts():
    boxes = jnp.asarray(np.random.default_rng(0).uniform(0, 50, (2, 5, 2)).repeat(2, -1) + [0., 0, 20, 30])
    empty = jnp.zeros((2, 0, 4))
    context = RelationContext(*[empty] * 8, part_boxes=boxes, part_features=jnp.zeros((2, 5, 4)),
                              part_valid=jnp.ones((2, 5), bool))
    asked = []

    def features_of(found):     # a box stands for its features
        asked.append(found.shape)
        return found

    relations = {name: RELATIONS[kind](**options) for name, kind, options in (
        ('part', 'part', {}), ('a', 'context', dict(grid=(3, 2))), ('lung_feature', 'lung_feature', {}),
        ('b', 'context', dict(grid=(1, 2), parts=(4,))), ('whole', 'context', {}))}
    contexts = own_contexts(context, relations, features_of)
    assert asked == [(2, 5 + 12 + 2, 4)]
    for name, cells in (('part', boxes), ('lung_feature', boxes), ('whole', boxes),
                        ('a', divide_boxes(boxes[:, 2:4], rows=3, cols=2).reshape(2, 12, 4)),
                        ('b', divide_boxes(boxes[:, 4], rows=1, cols=2))):
        np.testing.assert_array_equal(contexts[name].part_boxes, cells)
        np.testing.assert_array_equal(contexts[name].part_features, cells)
        assert contexts[name].part_valid.shape == cells.shape[:2]
    own_contexts(context, {'part': relations['part']}, features_of)
    assert len(asked) == 1      # none needs features, none are made


def test_a_relation_turns_options_into_its_fields_and_knows_their_names():
    config = base.get_config().model.copy_and_resolve_references()
    with config.unlocked():
        config.relations, config.neck = ('class', 'object_attention'), 'c4'
    fields = {name: dict(values) for name, values in chosen(config)}
    assert fields['class']['reduction'] == 16 and fields['object_attention']['features'] == 0
    with config.unlocked():
        config.relation.class_.reduction = 8
    assert dict(chosen(config)[0][1])['reduction'] == 8
    with config.unlocked():
        config.relation.class_ = dict(forms='early')
    with pytest.raises(ValueError, match=r"config\.model\.relation\.class_: ClassRelation has no field 'forms'"):
        chosen(config)
    with config.unlocked():
        del config.relation['class_']
        config.neck = 'fpn'
    assert chosen(config)[0] == ('class', ())


def test_every_relation_has_options_in_the_config_that_its_module_knows():
    config = base.get_config().model.copy_and_resolve_references()
    assert {name.rstrip('_') for name in config.relation} == set(RELATIONS)
    config.relations = tuple(RELATIONS)
    for name, fields in chosen(config):
        key = 'class_' if name == 'class' else name
        assert set(config.relation[key]) <= set(dict(fields)) <= set(RELATIONS[name].__dataclass_fields__)
