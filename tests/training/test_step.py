import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.runs import state
from relnet_jax.training import optimizer, parallel
from relnet_jax.training.step import ema_update, image_keys, make_train_step
from tests.training.standin import Standin, make_batch, small_config


@pytest.fixture
def config():
    return small_config()


def start(config, model=Standin(num_classes=4)):
    shapes = state.batch_shapes(config, 1, 0)
    tx = optimizer.make_optimizer(config, state.abstract_params(model, shapes))
    return model, tx, state.init_state(model, tx, config, shapes)


def run(config, devices, parallel_name, steps=3):
    model, tx, s = start(config)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    traces = []
    body = make_train_step(model, tx, config)

    def counted(*args):
        traces.append(1)
        return body(*args)

    step = parallel.parallel_step(counted, mesh, parallel=parallel_name)
    s, history = parallel.replicate(s, mesh), []
    for i in range(steps):
        s, metrics = step(s, parallel.place_batch(make_batch(4, i), mesh, parallel=parallel_name))
        history.append(jax.device_get(metrics))
    return jax.device_get(s), history, len(traces)


@pytest.mark.parametrize('devices, name', [(2, 'pmap'), (1, 'shard_map'), (2, 'shard_map')])
def test_any_division_of_the_batch_gives_the_same_run(config, devices, name):
    config.train.ema = 0.9
    want, want_history, _ = run(config, 1, 'pmap')
    got, history, _ = run(config, devices, name)
    for a, b in zip(history, want_history):
        assert a.keys() == b.keys()
        for k in a:
            np.testing.assert_allclose(a[k], b[k], rtol=1e-5, atol=1e-6, err_msg=k)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


@pytest.mark.parametrize('devices, name, parts', [(1, 'pmap', 2), (1, 'shard_map', 4), (2, 'pmap', 2),
                                                  (2, 'shard_map', 2)])
def test_a_batch_taken_in_parts_gives_the_same_run(config, devices, name, parts):
    want, want_history, _ = run(config, 1, 'pmap')
    config.train.accumulate = parts
    got, history, _ = run(config, devices, name)
    for a, b in zip(history, want_history, strict=True):
        assert a.keys() == b.keys()
        for k in a:
            np.testing.assert_allclose(a[k], b[k], rtol=1e-5, atol=1e-6, err_msg=k)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_a_batch_that_does_not_divide_into_parts_names_them():
    with pytest.raises(ValueError, match='batch of 4 images .* over 2 devices in 4 parts .* multiple of 8'):
        parallel.check_divisible(4, 2, 4)


@pytest.mark.parametrize('name', ['pmap', 'shard_map'])
def test_the_step_is_traced_once(config, name):
    assert run(config, 2, name)[2] == 1


def test_loss_and_gradient_are_those_of_the_whole_batch(config):
    """Two devices, with images of very different counts, against one plain function of the global batch."""
    config.train.steps, config.train.warmup_steps, config.train.momentum, config.train.weight_decay = 1, 0, 0.0, 0.0
    config.train.decay_at = (1.0,)
    model, tx, s = start(config)
    batch = make_batch(4, 0)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), i))(jnp.arange(4))

    def total(params):
        losses, metrics = model.apply({'params': params}, batch, keys, method='losses')
        return sum(a / jnp.maximum(n, 1) for a, n in losses.values()), (losses, metrics)

    frozen = optimizer.trainable(s.params, config)
    (want, (losses, metrics)), grads = jax.value_and_grad(total, has_aux=True)(s.params)
    grads = jax.tree.map(lambda g, m: g * m, grads, frozen)
    got, (m,), _ = run(config, 2, 'pmap', steps=1)

    np.testing.assert_allclose(m['loss'], want, rtol=1e-6)
    np.testing.assert_allclose(m['loss_cls'], losses['loss_cls'][0] / losses['loss_cls'][1], rtol=1e-6)
    np.testing.assert_allclose(m['rpn_cls'], (losses['rpn_cls_p2'][0] + losses['rpn_cls_p3'][0]) / 4, rtol=1e-6)
    np.testing.assert_allclose(m['accuracy_cls'], metrics['accuracy_cls'][0] / metrics['accuracy_cls'][1], rtol=1e-6)
    assert m['mask_rois'] == losses['loss_mask'][1] > 0
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(m['grad_norm'], norm, rtol=1e-5)
    np.testing.assert_allclose(m['lr'], 0.1, rtol=1e-6)
    want_params = jax.tree.map(lambda p, g: p - 0.1 * g, s.params, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), got.params, want_params)
    assert got.step == 1 and m['finite'] == 1


def test_an_image_keeps_its_key_on_any_number_of_devices():
    def keys(devices):
        f = jax.pmap(lambda _: jax.random.key_data(image_keys(3, 7, 8 // devices, 'batch')), axis_name='batch',
                     devices=jax.devices()[:devices])
        return np.asarray(f(np.zeros(devices))).reshape(8, -1)
    np.testing.assert_array_equal(keys(1), keys(2))
    assert len(np.unique(keys(1), axis=0)) == 8


def test_seeds_share_one_compilation_and_draw_differently(config):
    def lowered(seed):
        config.seed = seed
        model, tx, s = start(config)
        mesh = parallel.make_mesh(jax.devices()[:1])
        step = parallel.parallel_step(make_train_step(model, tx, config), mesh, parallel='shard_map')
        return step.lower(s, make_batch(4, 0)).as_text()
    assert lowered(0) == lowered(1)
    config.train.update(steps=1, warmup_steps=0)
    config.seed = 0
    _, (first,), _ = run(config, 1, 'shard_map', steps=1)
    config.seed = 1
    _, (other,), _ = run(config, 1, 'shard_map', steps=1)
    assert first['loss'] != other['loss']


def test_frozen_parameters_stay_bit_for_bit(config):
    config.train.freeze = ('backbone/layer1',)
    _, _, before = start(config)
    after, _, _ = run(config, 2, 'pmap')
    for path in (('backbone', 'layer1_0', 'kernel'), ('backbone', 'bn1', 'scale')):
        old, new = before.params, after.params
        for key in path:
            old, new = old[key], new[key]
        np.testing.assert_array_equal(old, new)
    assert np.any(before.params['backbone']['layer2_0']['kernel'] != after.params['backbone']['layer2_0']['kernel'])


def test_a_step_that_is_not_finite_says_so(config):
    config.train.learning_rate = 1e38
    _, history, _ = run(config, 2, 'pmap', steps=4)
    flags = [m['finite'] for m in history]
    assert flags[0] == 1 and flags[-1] == 0
    assert all(f == np.isfinite(m['loss'] + m['grad_norm']) for f, m in zip(flags, history))


def test_average_ramps_up_to_its_decay():
    values = [{'w': jnp.float32(v)} for v in (1.0, 5.0, -2.0)]
    ema, want = {'w': jnp.float32(3.0)}, 3.0
    for step, v in enumerate(values):
        d = min(0.15, (1 + step) / (10 + step))
        want = d * want + (1 - d) * float(v['w'])
        ema = ema_update(ema, v, jnp.int32(step), 0.15)
    np.testing.assert_allclose(ema['w'], want, rtol=1e-6)


def test_batch_that_does_not_divide_names_both_numbers():
    with pytest.raises(ValueError, match='batch of 3 images .* over 2 devices'):
        parallel.place_batch(make_batch(3, 0), parallel.make_mesh(), parallel='shard_map')


@pytest.mark.parametrize('name, shape', [('pmap', (2, 3)), ('shard_map', (6,))])
def test_a_placed_batch_keeps_its_order(name, shape):
    batch = make_batch(6, 0)
    placed = parallel.place_batch(batch, parallel.make_mesh(), parallel=name)
    assert placed.image.shape == (*shape, 64, 64, 3)
    np.testing.assert_array_equal(np.ravel(placed.image_index), np.arange(6))
    assert [np.ravel(part.data).tolist() for part in placed.image_index.addressable_shards] == [[0, 1, 2], [3, 4, 5]]
    np.testing.assert_array_equal(np.reshape(placed.image, batch.image.shape), batch.image)


def test_unknown_parallel_is_named():
    with pytest.raises(ValueError, match="one of pmap, shard_map, got 'pjit'"):
        parallel.choose('pjit')


def test_replicate_shares_no_buffer_with_its_source(config):
    _, _, s = start(config)
    mesh = parallel.make_mesh()
    copy = parallel.replicate(s, mesh)
    jax.tree.map(lambda x: x.delete(), copy)
    assert np.isfinite(np.asarray(s.params['rpn']['kernel'])).all()
