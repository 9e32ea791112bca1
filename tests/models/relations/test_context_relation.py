"""Context relation: golden values, inner grid, flips, missing lungs, lung feature, part window."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.errors import UserError
from relnet_jax.models.relations.context_relation import ContextRelation, LungFeature, PartWindow

SWAPPED = np.array([1, 0, 3, 2, 4])


def mirrored(boxes, width):
    return jnp.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], -1)


@pytest.mark.parametrize('scale', ['lab', 'published'])
def test_golden(scale, golden_case, golden_context, attention_params, run, assert_close):
    inputs, p, expected = golden_case(f'context_scale_{scale}')
    inputs = inputs | dict(part_boxes=inputs['key_boxes'], part_features=inputs['key_features'])
    module = ContextRelation(parts=(), scale=scale, norm=False)
    assert_close(run(module, dict(attention=attention_params(p)), golden_context(inputs)), expected)


def test_a_key_bias_would_change_nothing(golden_case, golden_context, attention_params, assert_close):
    inputs, p, _ = golden_case('context_scale_lab')
    assert np.abs(p['k_b']).max() > 0.01  # the golden answer was made with one
    x, y = inputs['roi_features'][0].astype(np.float64), inputs['key_features'][0].astype(np.float64)
    query = (x @ p['q_w'] + p['q_b']).reshape(40, 16, 64)
    weights = []
    for bias in (0, p['k_b']):
        content = np.einsum('nhd,mhd->hnm', query, (y @ p['k_w'] + bias).reshape(5, 16, 64)) / 16
        odds = np.exp(content - content.max(-1, keepdims=True))
        weights.append(odds / odds.sum(-1, keepdims=True))
    assert_close(weights[0], weights[1], 1e-9)


def test_norm_and_relu_end_the_relation(context_factory, random_params, run, assert_close):
    context = context_factory()
    params = random_params(ContextRelation(), context)
    plain = np.asarray(run(ContextRelation(norm=False), dict(attention=params['attention']), context))
    normal = (plain - plain.mean(-1, keepdims=True)) / np.sqrt(plain.var(-1, keepdims=True) + 1e-5)
    expected = np.maximum(normal * params['norm']['scale'] + params['norm']['bias'], 0)
    assert_close(run(ContextRelation(), params, context), expected)


def test_flipping_the_image_with_its_lung_cells_changes_nothing(context_factory, random_params, run):
    context, module = context_factory(), ContextRelation(grid=(2, 2))
    features = context_factory(3, parts=8).part_features  # of the 2 lungs x 2 rows x 2 columns

    def with_cells(c, cell_features):
        boxes, mask = module.divide_parts(c.part_boxes, c.part_valid)
        return c._replace(part_boxes=boxes, part_valid=mask, part_features=cell_features)

    flipped = context._replace(boxes=mirrored(context.boxes, 256), part_valid=context.part_valid[:, SWAPPED],
                               part_boxes=mirrored(context.part_boxes, 256)[:, SWAPPED])
    moved = features.reshape(2, 2, 2, 2, -1)[:, ::-1, :, ::-1].reshape(features.shape)  # lungs and columns swap
    before, after = with_cells(context, features), with_cells(flipped, moved)
    params = random_params(module, before)
    expected = run(module, params, before)
    np.testing.assert_allclose(run(module, params, after), expected, rtol=1e-5, atol=1e-5)
    wrong = with_cells(flipped, features)
    assert np.abs(run(module, params, wrong) - expected).max() > 0.05


def test_a_missing_lung_leaves_the_other_as_the_only_key(context_factory, random_params, run, assert_close):
    context = context_factory()
    params = random_params(ContextRelation(), context)
    one = context._replace(part_valid=context.part_valid.at[:, 3].set(False))
    assert_close(run(ContextRelation(), params, one), run(ContextRelation(parts=(2,)), params, one), 1e-5)
    none = context._replace(part_valid=jnp.zeros_like(context.part_valid))
    out, state = run(ContextRelation(norm=False), dict(attention=params['attention']), none, mutable='intermediates')
    assert not np.any(state['intermediates']['box_to_part'][0])
    bias = params['attention']['output_bias'].reshape(1024)
    assert_close(out, np.broadcast_to(bias, out.shape), 1e-6)


def test_lung_feature_repeats_the_lungs_for_every_roi(context_factory):
    context = context_factory()
    context = context._replace(part_valid=context.part_valid.at[0, 2].set(False))
    out = np.asarray(LungFeature(norm=False).apply({}, context))
    left, right = np.asarray(context.part_features[:, 2]), np.asarray(context.part_features[:, 3])
    for n in range(12):
        np.testing.assert_array_equal(out[0, n], np.concatenate([0 * left[0], right[0]]))
        np.testing.assert_array_equal(out[1, n], np.concatenate([left[1], right[1]]))


def test_part_window_weighs_cells_and_starts_as_the_identity():
    pooled = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 7, 7, 3)), jnp.float32)
    variables = PartWindow().init(jax.random.key(0), pooled)
    np.testing.assert_array_equal(PartWindow().apply(variables, pooled), pooled)
    window = np.random.default_rng(1).normal(size=(7, 7, 1)).astype(np.float32)
    np.testing.assert_array_equal(PartWindow().apply({'params': dict(window=window)}, pooled), pooled * window)
    assert variables['params']['window'].shape == (7, 7, 1)
    assert PartWindow().apply(variables, pooled.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_unknown_scale_is_named(context_factory):
    with pytest.raises(ValueError, match="scale must be one of .* got 'paper'"):
        jax.eval_shape(ContextRelation(scale='paper').init, jax.random.key(0), context_factory())


def test_a_part_that_does_not_exist_is_refused_with_a_grid_too():
    with pytest.raises(UserError, match=r'parts must lie in 0..4, got \(9,\)'):
        ContextRelation(parts=(9,), grid=(2, 2)).divide_parts(jnp.zeros((1, 5, 4)), jnp.ones((1, 5), bool))
