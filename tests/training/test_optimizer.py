import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from relnet_jax.training import optimizer
from relnet_jax.trees import path_names
from tests.training.standin import small_config


@pytest.fixture
def config():
    c = small_config()
    c.model.norm = 'group_norm'
    return c


def make_params(seed=0):
    rng = np.random.default_rng(seed)

    def leaf(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {'backbone': {'conv1': {'kernel': leaf(3, 4)}, 'bn1': {'scale': leaf(4), 'bias': leaf(4)},
                         'layer1_0': {'conv1': {'kernel': leaf(4, 4)}},
                         'layer1_1': {'downsample_bn': {'scale': leaf(4), 'bias': leaf(4)}},
                         'layer2_0': {'conv1': {'kernel': leaf(4, 4)}}},
            'rpn': {'conv': {'kernel': leaf(4, 2), 'bias': leaf(2)}}}


def run(config, params, grads):
    tx = optimizer.make_optimizer(config, params)
    opt_state = tx.init(params)
    for g in grads:
        updates, opt_state = tx.update(g, opt_state, params)
        params = optax.apply_updates(params, updates)
    return params, opt_state


def flat(tree):
    return dict(zip(path_names(tree), jax.tree.leaves(tree)))


def test_sgd_is_torch_sgd(config):
    """Against a loop that follows torch.optim.SGD: decay into the gradient, momentum buffer, then the rate outside."""
    t = config.train
    t.momentum, t.weight_decay, t.bias_lr_factor, t.clip_norm = 0.9, 0.05, 2.0, 3.0
    params = make_params()
    grads = [make_params(seed) for seed in (1, 2, 3)]
    rate = optimizer.learning_rate(config)

    want = {k: v.astype(np.float64) for k, v in flat(params).items()}
    buffers = {k: np.zeros_like(v) for k, v in want.items()}
    for step, g in enumerate(map(flat, grads)):
        norm = np.sqrt(sum(np.sum(np.square(v, dtype=np.float64)) for v in g.values()))
        for k in want:
            d = g[k] * min(1, 3.0 / norm) + (0.05 * want[k] if k.endswith('kernel') else 0)
            buffers[k] = 0.9 * buffers[k] + d
            is_layer_bias = k == 'rpn/conv/bias'
            want[k] = want[k] - float(rate(step)) * (2 if is_layer_bias else 1) * buffers[k]

    got, _ = run(config, params, grads)
    for k, v in flat(got).items():
        np.testing.assert_allclose(v, want[k], rtol=1e-5, atol=1e-6, err_msg=k)


def test_adamw_decays_kernels_alone(config):
    config.train.optimizer, config.train.weight_decay = 'adamw', 0.1
    params = make_params()
    got, _ = run(config, params, [jax.tree.map(np.zeros_like, params)])
    rate = float(optimizer.learning_rate(config)(0))
    for k, v in flat(got).items():
        factor = 1 - rate * 0.1 if k.endswith('kernel') else 1
        np.testing.assert_allclose(v, flat(params)[k] * factor, rtol=1e-5, err_msg=k)


def test_parameters_that_a_pattern_matches_move_its_factor_as_fast(config):
    config.train.lr_factors, config.train.weight_decay = (('backbone/layer', 0.25), ('rpn', 2.0)), 0.0
    params, grads = make_params(), [make_params(1), make_params(2)]
    got, _ = run(config, params, grads)
    config.train.lr_factors = ()
    plain, _ = run(config, params, grads)
    for k, start in flat(params).items():
        factor = 0.25 if k.startswith('backbone/layer') else 2.0 if k.startswith('rpn') else 1.0
        np.testing.assert_allclose(flat(got)[k] - start, factor * (flat(plain)[k] - start), rtol=1e-4, atol=1e-6)
    config.train.lr_factors = (('box_haed', 0.1),)
    with pytest.raises(ValueError, match="lr_factors: 'box_haed' matches no parameter"):
        optimizer.make_optimizer(config, params)


def test_frozen_parameters_stay_and_take_no_memory_and_no_part_in_the_clipped_norm(config):
    config.train.freeze = ('backbone/layer1', 'rpn/.*/bias')
    config.train.clip_norm, config.train.weight_decay, config.train.warmup_steps = 1.0, 0.0, 0
    params = make_params()
    moves = optimizer.trainable(params, config)
    huge = jax.tree.map(lambda p, m: np.ones_like(p) * (1e-3 if m else 1e6), params, moves)
    got, opt_state = run(config, params, [huge])
    for k, v in flat(got).items():
        if k.startswith('backbone/layer1') or k == 'rpn/conv/bias':
            np.testing.assert_array_equal(v, flat(params)[k], err_msg=k)
        else:           # the trained part has a norm below 1: not clipped
            np.testing.assert_allclose(v, flat(params)[k] - 0.1 * 1e-3, rtol=1e-6, atol=1e-7, err_msg=k)
    moving = sum(p.size for p, m in zip(jax.tree.leaves(params), jax.tree.leaves(moves)) if m)
    assert sum(np.size(x) for x in jax.tree.leaves(opt_state)) == moving + 1      # momentum and one step counter


def test_pattern_that_matches_nothing_is_an_error_with_near_names(config):
    config.train.freeze = ('backbon/layer1',)
    with pytest.raises(ValueError, match=r"'backbon/layer1' matches no parameter; near: .*backbone/layer1_0"):
        optimizer.make_optimizer(config, make_params())


@pytest.mark.parametrize('stages, kept', [(0, ()), (1, ('conv1', 'bn1')), (2, ('conv1', 'bn1', 'layer1_0', 'layer1_1')),
                                          (3, ('conv1', 'bn1', 'layer1_0', 'layer1_1', 'layer2_0'))])
def test_frozen_stages_count_from_the_stem(config, stages, kept):
    config.model.frozen_stages = stages
    moves = flat(optimizer.trainable(make_params(), config))
    assert {k.split('/')[1] for k, m in moves.items() if not m} == set(kept)


def test_frozen_batch_norm_never_moves(config):
    config.model.norm = 'frozen_bn'
    moves = flat(optimizer.trainable(make_params(), config))
    assert [k for k, m in moves.items() if not m] == [
        'backbone/bn1/bias', 'backbone/bn1/scale', 'backbone/layer1_1/downsample_bn/bias',
        'backbone/layer1_1/downsample_bn/scale']


def test_step_schedule_at_its_corners(config):
    t = config.train
    t.steps, t.warmup_steps, t.warmup_factor, t.decay_at, t.decay_factor = 90, 10, 0.25, (2 / 3, 8 / 9), 0.1
    t.learning_rate, t.batch_size, t.base_batch_size = 0.02, 8, 16
    rate = optimizer.learning_rate(config)
    want = {0: 0.0025, 5: 0.00625, 10: 0.01, 59: 0.01, 60: 0.001, 79: 0.001, 80: 0.0001, 89: 0.0001}
    np.testing.assert_allclose([rate(s) for s in want], list(want.values()), rtol=1e-5)


def test_cosine_schedule_ends_at_zero(config):
    t = config.train
    t.schedule, t.steps, t.warmup_steps, t.learning_rate = 'cosine', 100, 0, 1.0
    rate = optimizer.learning_rate(config)
    np.testing.assert_allclose([rate(0), rate(50), rate(100)], [1, 0.5, 0], atol=1e-6)


def test_learning_rate_scales_with_the_batch(config):
    config.train.batch_size, config.train.base_batch_size, config.train.learning_rate = 32, 16, 0.02
    assert optimizer.base_learning_rate(config) == pytest.approx(0.04)


@pytest.mark.parametrize('key, value', [('optimizer', 'sdg'), ('schedule', 'linear'), ('decay_at', (60_000, 80_000))])
def test_unknown_settings_are_named(config, key, value):
    config.train[key] = value
    with pytest.raises(ValueError, match=f'config.train.{key}'):
        optimizer.make_optimizer(config, jax.tree.map(jnp.asarray, make_params()))
