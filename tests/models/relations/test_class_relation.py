"""Class relation: golden values, gradients through the class weights, background, canvas, and what it refuses."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models.relations.class_relation import ClassRelation


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def class_params(p, *, form, attention):
    messages = {'attention': dict(conv=dict(kernel=p['att_conv_w'], bias=p['att_conv_b']),
                                  fc=dict(kernel=p['att_fc_w'], bias=p['att_fc_b']))} if attention else {}
    reduce = dict(kernel=p['reduce_w'])
    if form == 'early':
        return dict(messages=messages, reduce=reduce, reduce_bias=p['reduce_b'])
    return dict(messages=messages, reduce=reduce | dict(bias=p['reduce_b']))


@pytest.mark.parametrize('form', ['published', 'early'])
@pytest.mark.parametrize('graph', [False, True])
@pytest.mark.parametrize('attention', [False, True])
def test_golden(form, graph, attention, golden_case, golden_context, run, assert_close):
    inputs, p, expected = golden_case(f'class_{form}_graph{graph:d}_attention{attention:d}')
    module = ClassRelation(form=form, graph=graph, attention=attention, reduction=4)
    params = class_params(p, form=form, attention=attention)
    assert_close(run(module, params, golden_context(inputs)), expected)


@pytest.mark.parametrize('form', ['published', 'early'])
def test_gradient_flows_through_the_class_weights_in_the_early_form_only(form, context_factory, random_params):
    context, module = context_factory(), ClassRelation(form=form)
    variables = dict(params=random_params(module, context))
    loss = lambda w, b, x: jnp.sum(module.apply(
        variables, context._replace(class_weights=w, class_bias=b, class_logits=x)) ** 2)
    for_weights, for_bias, for_logits = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(
        context.class_weights, context.class_bias, context.class_logits)
    assert np.any(for_weights) == (form == 'early')
    assert not np.any(for_bias)
    assert np.any(for_logits)


def test_without_background_its_column_is_dropped_after_the_softmax(context_factory, random_params, run, assert_close):
    context = context_factory()
    module = ClassRelation(background=False, attention=False)
    params = random_params(module, context)
    c = jax.tree.map(np.asarray, context)
    matrix = np.concatenate([c.class_weights, c.class_bias[:, None]], 1)[1:]
    reduce = params['reduce']
    reduced = np.maximum(c.adjacency[1:, 1:] @ matrix @ reduce['kernel'] + reduce['bias'], 0)
    assert_close(run(module, params, context), softmax(c.class_logits)[..., 1:] @ reduced)


def test_soft_mapping_has_one_linear_map_and_no_graph(context_factory, random_params, run, assert_close):
    context = context_factory(adjacency=np.full((5, 5), np.nan, np.float32))
    module = ClassRelation(form='early', graph=False, attention=False)
    params = random_params(module, context)
    assert set(params) == {'reduce', 'reduce_bias'}
    nodes = softmax(np.asarray(context.class_logits)) @ np.asarray(context.class_weights)
    assert_close(run(module, params, context), nodes @ params['reduce']['kernel'] + params['reduce_bias'])


def test_layer_norm_and_relu_end_the_norm_form(context_factory, random_params, run, assert_close):
    context, plain_module = context_factory(), ClassRelation()
    params = random_params(ClassRelation(norm=True), context)
    scale, bias = params['norm']['scale'], params['norm']['bias']
    plain = np.asarray(run(plain_module, {k: v for k, v in params.items() if k != 'norm'}, context))
    normal = (plain - plain.mean(-1, keepdims=True)) / np.sqrt(plain.var(-1, keepdims=True) + 1e-5)
    assert_close(run(ClassRelation(norm=True), params, context), np.maximum(normal * scale + bias, 0))


def test_canvas_around_the_image_does_not_matter(context_factory, random_params, run):
    context, module = context_factory(), ClassRelation()
    params = random_params(module, context)  # image 224 x 256: 14 x 16 of the 15 x 17 cells
    cells = context.image_map[:, :14, :16]
    small = run(module, params, context._replace(image_map=cells))
    for pad, fill in ((2, 9.0), (5, -3.0)):
        canvas = jnp.pad(cells, ((0, 0), (0, pad), (0, pad + 1), (0, 0)), constant_values=fill)
        large = run(module, params, context._replace(image_map=canvas))
        np.testing.assert_allclose(large, small, rtol=1e-5, atol=1e-6)


def test_attention_width_follows_the_form(context_factory):
    context = context_factory(image_map=np.ones((2, 15, 17, 128), np.float32))
    for options, channels in ((dict(), 32), (dict(form='early'), 2), (dict(reduction=16), 8)):
        module = ClassRelation(**options)
        params = jax.eval_shape(module.init, jax.random.key(0), context)['params']
        assert params['messages']['attention']['conv']['kernel'].shape == (3, 3, 128, channels)


def test_wrong_input_is_named(context_factory):
    init = lambda module, context: jax.eval_shape(module.init, jax.random.key(0), context)
    with pytest.raises(ValueError, match=r'adjacency must be \[5, 5\], got None'):
        init(ClassRelation(), context_factory()._replace(adjacency=None))
    with pytest.raises(ValueError, match=r'adjacency must be \[5, 5\], got \[4, 4\]'):
        init(ClassRelation(), context_factory(adjacency=np.eye(4)))
    with pytest.raises(ValueError, match="form must be one of .* got 'late'"):
        init(ClassRelation(form='late'), context_factory())
    with pytest.raises(ValueError, match='at least 3 x 3'):
        init(ClassRelation(), context_factory(image_map=np.ones((2, 2, 9, 16), np.float32)))


@pytest.mark.parametrize('attention', [True, False])
def test_classes_send_different_messages_from_the_start(context_factory, attention):
    """With class weights as small as a predictor starts with; else the norm's epsilon would leave all RoIs alike."""
    rng = np.random.default_rng(0)
    context = context_factory(class_weights=rng.normal(0, 0.01, (5, 32)).astype(np.float32), class_bias=np.zeros(5),
                              class_logits=20 * np.eye(5)[rng.integers(5, size=(2, 7))], adjacency=np.eye(5))
    module = ClassRelation(norm=True, attention=attention)
    enhanced, _ = jax.jit(module.init_with_output)(jax.random.key(0), context)
    enhanced, labels = np.asarray(enhanced).reshape(14, -1), np.asarray(context.class_logits).reshape(14, 5).argmax(-1)
    for a in range(14):
        for b in range(14):
            if labels[a] != labels[b]:
                assert np.sqrt(np.mean((enhanced[a] - enhanced[b]) ** 2)) > 0.5
