"""Region relation and its composition with the class relation: golden values, start values, neighbourhood."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models.relations.class_region import ClassRegionRelation
from relnet_jax.models.relations.region_relation import RegionGraph, RegionRelation, SpatialWeight, nearest


@pytest.mark.parametrize('kernel', ['gaussian_random', 'gaussian_norm', 'relu', 'none'])
def test_golden(kernel, golden_case, golden_context, assert_close):
    inputs, p, expected = golden_case(f'region_{kernel}')
    params = dict(
        similarity=dict(fc1=dict(kernel=p['sim_fc1_w'], bias=p['sim_fc1_b']),
                        fc2=dict(kernel=p['sim_fc2_w'], bias=p['sim_fc2_b'])),
        spatial={k: p[k] for k in ('mean', 'precision', 'weight') if k in p},
        reduce=dict(kernel=p['reduce_w'], bias=p['reduce_b']))
    module = RegionGraph(kernel=kernel, similarity=True)
    assert_close(jax.jit(module.apply)({'params': params}, golden_context(inputs), inputs['node_features']), expected)


def seven_params(p):
    return dict(
        messages=dict(attention=dict(conv=dict(kernel=p['att_conv_w'], bias=p['att_conv_b']),
                                     fc=dict(kernel=p['att_fc_w'], bias=p['att_fc_b']))),
        graph=dict(spatial=dict(weight=p['weight']), reduce=dict(kernel=p['reduce_w'], bias=p['reduce_b'])))


def test_golden_class_then_spatial(golden_case, golden_context, run, assert_close):
    inputs, p, expected = golden_case('class_then_spatial_relu')
    out = run(ClassRegionRelation(reduction=4), seven_params(p), golden_context(inputs))
    assert_close(out, expected)


def test_both_ways_of_writing_the_product_of_seven_are_one_function(golden_case, golden_context, run, assert_close):
    inputs, p, _ = golden_case('class_then_spatial_relu')
    out, state = run(ClassRegionRelation(reduction=4), seven_params(p), golden_context(inputs), mutable='intermediates')
    weights = np.asarray(state['intermediates']['graph']['box_to_box'][0])
    logits = np.exp(inputs['class_logits'].astype(np.float64))
    messages = state['intermediates']['messages']
    nodes = logits / logits.sum(-1, keepdims=True) @ (messages['class_to_class'][0] @ inputs['class_weights'])
    plain = weights @ nodes                                            # [N, N] x [N, D]
    single = (weights[:, :, None, :] @ nodes[:, None])[:, :, 0]        # [N, 1, N] x [N, D]
    assert_close(out, plain @ p['reduce_w'] + p['reduce_b'])
    assert_close(out, single @ p['reduce_w'] + p['reduce_b'])


def test_eight_is_seven_with_the_identity_as_graph(context_factory, random_params, run, assert_close):
    context = context_factory(adjacency=np.eye(5, dtype=np.float32))
    params = random_params(ClassRegionRelation(), context)
    eight = run(ClassRegionRelation(graph=False), params, context._replace(adjacency=None))
    assert_close(eight, run(ClassRegionRelation(), params, context))


def test_region_nodes_are_softly_mapped_class_weights(context_factory, random_params, run, assert_close):
    context = context_factory()
    module = RegionRelation(kernel='none', similarity=False)
    params = random_params(module, context)
    odds = np.exp(np.asarray(context.class_logits, np.float64))
    nodes = odds / odds.sum(-1, keepdims=True) @ np.asarray(context.class_weights)
    total = np.where(np.asarray(context.roi_valid)[..., None], nodes, 0).sum(1, keepdims=True)
    reduced = total @ params['graph']['reduce']['kernel'] + params['graph']['reduce']['bias']
    out = run(module, params, context)
    assert_close(out, np.broadcast_to(reduced, out.shape))


def test_kernels_start_where_they_are_said_to(context_factory):
    context = context_factory()
    start = {k: jax.jit(SpatialWeight(k).init)(jax.random.key(0), context).get('params', {})
             for k in ('gaussian_random', 'gaussian_norm', 'gaussian_zero', 'relu', 'none')}
    assert not np.any(start['gaussian_norm']['mean']) and np.all(start['gaussian_norm']['precision'] == 0.5)
    assert not np.any(start['gaussian_zero']['mean']) and not np.any(start['gaussian_zero']['precision'])
    assert np.all(start['gaussian_random']['mean'] != 0) and np.all(start['gaussian_random']['precision'] != 0)
    assert start['relu']['weight'].shape == (2,) and not start['none']
    draw = lambda key: SpatialWeight('gaussian_random').init(key, context)['params']['precision']
    draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 100))
    assert abs(draws.mean()) < 0.2 and abs(draws.std() - 1) < 0.15


def test_gaussian_zero_starts_at_weight_one_and_still_learns_its_precision(context_factory):
    context, module = context_factory(), SpatialWeight('gaussian_zero')
    variables = module.init(jax.random.key(0), context)
    np.testing.assert_array_equal(module.apply(variables, context), np.ones((2, 12, 12)))
    gradient = jax.grad(lambda p: jnp.sum(module.apply({'params': p}, context)))(variables['params'])
    assert np.all(gradient['precision'] != 0)
    assert not np.any(gradient['mean'])  # the documented price of this start


def test_neighbourhood_keeps_the_most_similar_valid_rois():
    similarity = jnp.array([[[5., 1., 9., 7.], [2., 2., 2., 8.], [0., 3., 1., 4.], [1., 2., 3., 4.]]])
    near = np.asarray(nearest(similarity, jnp.array([[True, True, False, True]]), 2))[0]
    expected = [[1, 0, 0, 1],   # 9 belongs to padding
                [1, 1, 0, 1],   # a tie stays together
                [0, 1, 0, 1], [0, 1, 0, 1]]
    np.testing.assert_array_equal(near, np.array(expected, bool))
    assert np.asarray(nearest(similarity, jnp.ones((1, 4), bool), 32)).all()


def test_unknown_kernel_is_named(context_factory):
    with pytest.raises(ValueError, match="kernel must be one of .* got 'gauss'"):
        RegionRelation(kernel='gauss').init(jax.random.key(0), context_factory())
