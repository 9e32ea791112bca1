"""The published SGRN relation against loops over nodes, kernels and neighbours; dropout by image."""
import jax
import numpy as np
import pytest

from relnet_jax.models.relations.mixture_relation import MixtureConvolution, MixtureRelation


def loop_convolution(p, nodes, boxes, image_size, chosen, edges, features):
    """One image in float64: nodes [N, W], chosen[i] = neighbours of i, edges[i] = their factors."""
    kernels = len(p['mean_rho'])
    height, width = image_size
    centre = np.stack([(boxes[:, 0] + boxes[:, 2]) / 2 / width, (boxes[:, 1] + boxes[:, 3]) / 2 / height], -1)
    out = np.zeros((len(nodes), kernels, features // kernels))
    for i in range(len(nodes)):
        for k in range(kernels):
            weights = []
            for j in chosen[i]:
                dx, dy = centre[i] - centre[j]
                rho = np.hypot(dx, dy) - p['mean_rho'][k]
                theta = abs(np.arctan2(dy, dx) - p['mean_theta'][k])
                theta = min(theta, abs(2 * np.pi - theta))
                weights.append(np.exp(-rho ** 2 / 2 / p['precision_rho'][k] ** 2)
                               * np.exp(-theta ** 2 / 2 / p['precision_theta'][k] ** 2))
            weights = np.array(weights) / (np.sum(weights) + 1e-10)
            patch = sum(w * e * nodes[j] for w, e, j in zip(weights, edges[i], chosen[i]))
            out[i, k] = patch @ p['map']['kernel'][:, k]
    return out.reshape(len(nodes), features)


@pytest.fixture(scope='module')
def case(context_factory, random_params):
    context = context_factory()
    module = MixtureRelation(neighbours=4)
    return context, module, dict(params=random_params(module, context))


def test_equals_the_loops(case, assert_close):
    context, module, variables = case
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['params'])
    c = jax.tree.map(lambda x: np.asarray(x, np.float64), context)
    out = np.asarray(jax.jit(module.apply)(variables, context))
    for image in range(2):
        hidden = c.roi_features[image, :9]
        for fc in ('fc1', 'fc2'):
            hidden = np.maximum(hidden @ p['similarity'][fc]['kernel'] + p['similarity'][fc]['bias'], 0)
        similar = hidden @ hidden.T
        chosen = np.argsort(-similar, axis=1)[:, :4]
        edges = np.exp(np.take_along_axis(similar, chosen, 1) - similar.max(1, keepdims=True))
        edges /= edges.sum(1, keepdims=True)
        matrix = np.concatenate([c.class_weights, c.class_bias[:, None]], 1)
        nodes = matrix[c.class_logits[image, :9].argmax(-1)]
        where = (c.boxes[image, :9], c.image_size[image], chosen)
        first = np.maximum(loop_convolution(p['conv1'], nodes, *where, edges, 512), 0)
        second = np.maximum(loop_convolution(p['conv2'], first, *where, np.ones_like(edges), 256), 0)
        assert_close(out[image, :9], second)


def test_kernels_start_inside_their_ranges(case):
    conv = jax.jit(case[1].init)(jax.random.key(2), case[0])['params']['conv1']
    for name, low, high in (('mean_rho', 0, 1), ('mean_theta', -np.pi, np.pi),
                            ('precision_rho', 0, 1), ('precision_theta', 0, 1)):
        assert conv[name].shape == (8,) and low <= conv[name].min() < conv[name].max() <= high
    assert conv['mean_theta'].min() < 0
    assert conv['map']['kernel'].shape == (17, 8, 64)


def test_no_gradient_reaches_class_weights_or_roi_features(case):
    context, module, variables = case
    loss = lambda w, x: module.apply(variables, context._replace(class_weights=w, roi_features=x)).sum()
    assert not any(np.any(g) for g in jax.jit(jax.grad(loss, (0, 1)))(context.class_weights, context.roi_features))


def test_dropout_is_a_function_of_the_image_key_alone(case):
    context, module, variables = case
    keys = jax.random.split(jax.random.key(0), 2)
    apply = jax.jit(module.apply)
    plain, dropped = apply(variables, context), apply(variables, context._replace(dropout_keys=keys))
    assert np.abs(plain - dropped).max() > 0
    np.testing.assert_array_equal(dropped, apply(variables, context._replace(dropout_keys=keys)))
    shared = ('class_weights', 'class_bias', 'adjacency', 'dropout_keys')
    alone = context._replace(**{f: getattr(context, f)[1:] for f in context._fields if f not in shared})
    alone = alone._replace(dropout_keys=keys[1:], **{
        f: getattr(alone, f)[:, :9] for f in ('roi_features', 'boxes', 'roi_valid', 'class_logits')})
    np.testing.assert_allclose(apply(variables, alone)[0], dropped[1, :9], rtol=1e-5, atol=1e-6)


def test_dropout_keeps_the_mean(case):
    context, module, variables = case
    apply = jax.jit(module.apply)
    runs = np.stack([apply(variables, context._replace(dropout_keys=jax.random.split(jax.random.key(i), 2)))[:, :9]
                     for i in range(30)])
    plain = np.asarray(apply(variables, context))[:, :9]
    strong = plain > np.quantile(plain, 0.9)  # far from the kink of the last ReLU
    assert abs(runs.mean(0)[strong].mean() / plain[strong].mean() - 1) < 0.1


def test_features_must_be_shared_out_evenly():
    with pytest.raises(ValueError, match='multiple of 8, got 12'):
        MixtureConvolution(12).init(jax.random.key(0), np.ones((1, 2, 3)), np.ones((1, 2, 2, 2)),
                                    np.ones((1, 2, 2), bool), np.ones((1, 2, 2)))
