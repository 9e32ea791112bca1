"""What every relation promises: shape, gradients, permutation, padding, batching, precision, jit, sown weights."""
import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models.relations import RELATIONS

VARIANTS = {  # name: (relation, options, width of the result for D = 16, K = 5, P = 5)
    'class_published': ('class', {}, 256),
    'class_published_norm': ('class', dict(norm=True), 256),
    'class_no_graph': ('class', dict(graph=False), 256),
    'class_no_attention': ('class', dict(attention=False), 256),
    'class_no_background': ('class', dict(background=False), 256),
    'class_early': ('class', dict(form='early', reduction=4), 4),
    'soft_mapping': ('class', dict(form='early', graph=False, attention=False), 4),
    'region_gaussian_random': ('region', dict(kernel='gaussian_random'), 4),
    'region_gaussian_norm': ('region', dict(kernel='gaussian_norm'), 4),
    'region_gaussian_zero': ('region', dict(kernel='gaussian_zero'), 4),
    'region_relu': ('region', dict(kernel='relu'), 4),
    'region_none': ('region', dict(kernel='none'), 4),
    'region_no_similarity': ('region', dict(kernel='relu', similarity=False), 4),
    'gaussian_mixture': ('gaussian_mixture', dict(neighbours=4), 256),
    'seven': ('class_region', dict(reduction=4), 4),
    'eight': ('class_region', dict(graph=False, reduction=4), 4),
    'part': ('part', dict(parts=(0, 1, 2, 3, 4)), 320),
    'context_lungs': ('context', {}, 1024),
    'context_all_parts': ('context', dict(parts=(0, 1, 2, 3, 4), scale='lab'), 1024),
    'context_inner': ('context', dict(grid=(2, 2)), 1024),
    'lung_feature': ('lung_feature', {}, 32),
    'object_attention': ('object_attention', {}, 1024),
    'object_attention_best': ('object_attention', dict(keys=4), 1024),
    'object_position_fc': ('object_position', dict(keys=16), 512),
    'object_position': ('object_position', dict(keys=8, em_dim=32, features=0), 256),
    'presence': ('presence', {}, 64),
    'presence_no_graph': ('presence', dict(graph=False, features=32), 32),
    'presence_best': ('presence', dict(keys=4, gradient=True), 64),
    'presence_own': ('presence', dict(iou=1.1), 64),
}
everything = pytest.mark.parametrize('name', VARIANTS)
REPRESENTATIVE = ('class_published', 'class_no_background', 'class_early', 'region_gaussian_norm',
                  'region_no_similarity', 'gaussian_mixture', 'seven', 'part', 'context_lungs', 'context_inner',
                  'lung_feature', 'object_attention', 'object_attention_best', 'object_position_fc', 'presence',
                  'presence_best')
representative = pytest.mark.parametrize('name', REPRESENTATIVE)  # one for each way through the code


@pytest.fixture(scope='session')
def context(context_factory):
    return context_factory()


@pytest.fixture(scope='session')
def build(context, random_params):
    """name -> module, parameters off their start values, and the jitted apply."""
    @functools.cache
    def cached(name):
        relation, options, _ = VARIANTS[name]
        module = RELATIONS[relation](**options)
        return module, random_params(module, context), jax.jit(lambda p, c: module.apply({'params': p}, c))
    return cached


def valid(context, out):
    return np.asarray(out, np.float32)[np.asarray(context.roi_valid)]


def rois(context, function):
    """The context with `function` applied to every array that has a RoI axis."""
    fields = ('roi_features', 'boxes', 'roi_valid', 'class_logits')
    return context._replace(**{field: function(getattr(context, field)) for field in fields})


@everything
def test_one_finite_feature_per_roi(name, context, build):
    _, params, apply = build(name)
    out = apply(params, context)
    assert out.shape == (2, 12, VARIANTS[name][2]) and out.dtype == jnp.float32
    assert np.isfinite(out).all()
    assert np.ptp(valid(context, out)) > 0


@everything
def test_gradient_reaches_every_parameter_and_no_box(name, context, build):
    module, params, apply = build(name)
    cotangent = jnp.asarray(np.random.default_rng(5).normal(size=(2, 12, VARIANTS[name][2])), jnp.float32)

    @jax.jit
    def gradients(params, boxes, part_boxes):
        moved = context._replace(boxes=boxes, part_boxes=part_boxes)
        loss = lambda p, b, q: jnp.sum(cotangent * module.apply({'params': p}, moved._replace(boxes=b, part_boxes=q)))
        return jax.grad(loss, argnums=(0, 1, 2))(params, boxes, part_boxes)

    for_params, for_boxes, for_parts = gradients(params, context.boxes, context.part_boxes)
    for path, gradient in flax.traverse_util.flatten_dict(for_params, sep='/').items():
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, f'{path} is outside of the computation'
    assert not np.any(for_boxes) and not np.any(for_parts)


@representative
def test_permuting_rois_permutes_the_result(name, context, build):
    _, params, apply = build(name)
    order = np.random.default_rng(7).permutation(12)
    out, permuted = apply(params, context), apply(params, rois(context, lambda x: x[:, order]))
    keep = np.asarray(context.roi_valid)[:, order]
    np.testing.assert_allclose(np.asarray(permuted)[keep], np.asarray(out)[:, order][keep], rtol=1e-4, atol=1e-4)


@representative
def test_padding_has_no_influence(name, context, build, context_factory):
    _, params, apply = build(name)
    out = valid(context, apply(params, context))
    other = context_factory(11)
    is_roi = lambda x: context.roi_valid.reshape(context.roi_valid.shape + (1,) * (x.ndim - 2))
    mixed = other._replace(roi_valid=context.roi_valid)
    garbage = context._replace(**{
        field: jnp.where(is_roi(getattr(context, field)), getattr(context, field), 50 * getattr(mixed, field))
        for field in ('roi_features', 'class_logits')},
        boxes=jnp.where(is_roi(context.boxes), context.boxes, -mixed.boxes))
    part = context.part_valid[..., None]
    garbage = garbage._replace(part_boxes=jnp.where(part, garbage.part_boxes, -mixed.part_boxes),
                               part_features=jnp.where(part, garbage.part_features, 50 * mixed.part_features))
    np.testing.assert_allclose(valid(context, apply(params, garbage)), out, rtol=1e-5, atol=1e-5)

    bare = rois(context, lambda x: x[:, :9])
    np.testing.assert_allclose(valid(bare, apply(params, bare)), out, rtol=1e-4, atol=1e-4)


@representative
def test_an_image_does_not_see_its_batch(name, context, build):
    _, params, apply = build(name)
    shared = ('class_weights', 'class_bias', 'adjacency', 'dropout_keys')
    swapped = context._replace(**{f: getattr(context, f)[::-1] for f in context._fields if f not in shared})
    np.testing.assert_allclose(apply(params, swapped)[::-1], apply(params, context), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', ['class_published', 'region_gaussian_norm', 'gaussian_mixture', 'seven', 'part',
                                  'context_lungs', 'lung_feature', 'object_attention_best', 'object_position_fc',
                                  'presence', 'presence_best'])
def test_jit_changes_nothing(name, context, build):
    module, params, apply = build(name)
    np.testing.assert_allclose(module.apply({'params': params}, context), apply(params, context), rtol=1e-4, atol=1e-4)


@representative
def test_bfloat16_is_close_to_float32(name, context, build):
    relation, options, _ = VARIANTS[name]
    _, params, apply = build(name)
    half = RELATIONS[relation](**options, dtype=jnp.bfloat16)
    out = jax.jit(lambda p, c: half.apply({'params': p}, c))(params, context)
    assert out.dtype == jnp.bfloat16
    expected = valid(context, apply(params, context))
    error = np.linalg.norm(valid(context, out) - expected) / np.linalg.norm(expected)
    assert 0 < error < 0.02


@representative
def test_no_valid_roi_and_no_valid_part_stay_finite(name, context, build):
    _, params, apply = build(name)
    empty = context._replace(roi_valid=jnp.zeros_like(context.roi_valid), part_valid=jnp.zeros_like(context.part_valid))
    assert np.isfinite(apply(params, empty)).all()


SOWN = {  # relation: {what is sown: shape}
    'class_published': dict(class_attention=(2, 5), class_to_class=(2, 5, 5)),
    'region_relu': dict(box_to_box=(2, 12, 12)),
    'gaussian_mixture': dict(box_to_box=(2, 12, 12)),
    'seven': dict(class_attention=(2, 5), class_to_class=(2, 5, 5), box_to_box=(2, 12, 12)),
    'context_lungs': dict(box_to_part=(2, 16, 12, 2)),
    'object_attention_best': dict(box_to_box=(2, 16, 12, 4)),
    'presence_best': dict(presence=(2, 12, 4), presence_roi=(2, 12, 4)),
}


@pytest.mark.parametrize('name', SOWN)
def test_relation_weights_are_seen_only_on_request(name, context, build):
    module, params, apply = build(name)
    assert 'intermediates' not in jax.eval_shape(module.init, jax.random.key(0), context)
    out, state = module.apply({'params': params}, context, mutable='intermediates')
    sown = {path[-1]: value[0] for path, value in flax.traverse_util.flatten_dict(state['intermediates']).items()}
    assert {k: v.shape for k, v in sown.items()} == SOWN[name]
    np.testing.assert_allclose(out, apply(params, context), rtol=1e-4, atol=1e-4)
    if 'box_to_box' in sown:  # no RoI listens to padding
        weights = np.asarray(sown['box_to_box'])
        assert weights.shape[-1] == 4 or not weights[..., 9:].any()


@pytest.mark.parametrize('name', RELATIONS)
def test_every_relation_says_what_it_needs_and_where_it_acts(name):
    relation = RELATIONS[name]()
    assert relation.needs <= {'parts', 'part_features', 'part_window', 'graph'}
    assert 'parts' in relation.needs or not {'part_features', 'part_window'} & relation.needs
    assert relation.acts_in in ('second_pass', 'box_head')


def test_a_graph_that_is_turned_off_is_not_needed():
    for name in ('class', 'class_region', 'presence'):
        assert RELATIONS[name]().needs == {'graph'} and not RELATIONS[name](graph=False).needs


def test_every_relation_is_represented_here():
    assert {VARIANTS[name][0] for name in REPRESENTATIVE} == set(RELATIONS)
