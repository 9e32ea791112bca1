"""The step on 1, 2, 4 and 8 devices from the same state with the same batch; and the detector on eight."""
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from relnet_jax.data import pipeline
from relnet_jax.detector.run import detect_batches, load_detector
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import checkpoint, state
from relnet_jax.training import parallel
from relnet_jax.training.step import make_train_step
from tests.tiny_run import tiny_config, write_run
from tests.training.standin import Standin, make_batch, small_config
from tests.training.test_processes import ROOT, environment

STEP = '''
import sys
from tests.training.test_devices import write_steps
write_steps(sys.argv[1])
'''
DETECT = '''
import json, sys
from tests.training.test_devices import found_by_all
json.dump(found_by_all(sys.argv[1]), open(sys.argv[2], 'w'))
'''


def keep_gradients() -> optax.GradientTransformation:
    """No update; its state are the gradients as the optimiser is given them."""
    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params),
                                        lambda grads, before, params: (jax.tree.map(jnp.zeros_like, params), grads))


def one_step(model, config, batch, *, devices: int, name: str, parts: int = 1):
    """(metrics, gradients) of a step from the state of config.seed; `batch` [B]."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.train.accumulate = parts
    tx, mesh = keep_gradients(), parallel.make_mesh(jax.devices()[:devices])
    step = parallel.parallel_step(make_train_step(model, tx, config), mesh, parallel=name)
    start = state.init_state(model, tx, config, state.batch_shapes(config, 1, batch.part_boxes.shape[1]))
    after, metrics = step(parallel.replicate(start, mesh), parallel.place_batch(batch, mesh, parallel=name))
    return jax.device_get((metrics, after.opt_state))


def assert_equal(got, want):
    """To 1e-5 of the largest gradient of each array: sums over devices are taken in another order."""
    for key in want[0]:
        np.testing.assert_allclose(got[0][key], want[0][key], rtol=1e-5, atol=1e-6, err_msg=key)
    assert sum(np.abs(x).sum() for x in jax.tree.leaves(want[1])) > 0
    for a, b in zip(jax.tree.leaves(got[1]), jax.tree.leaves(want[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(np.abs(b).max(), 1e-3))


def test_two_devices_give_the_losses_and_gradients_of_one():
    config, model, batch = small_config(), Standin(num_classes=4), make_batch(8, 0)
    want = one_step(model, config, batch, devices=1, name='shard_map')
    for name, parts in (('pmap', 1), ('shard_map', 1), ('pmap', 2), ('shard_map', 2)):
        assert_equal(one_step(model, config, batch, devices=2, name=name, parts=parts), want)


CASES = [(devices, name, parts) for devices in (1, 2, 4, 8) for name in ('pmap', 'shard_map') for parts in (1, 2)
         if devices * parts <= 8]


def write_steps(out):
    """What STEP does: all CASES with the stand-in, in one file."""
    model, config, batch = Standin(num_classes=4), small_config(), make_batch(8, 0)
    found = {}
    for devices, name, parts in CASES:
        metrics, grads = one_step(model, config, batch, devices=devices, name=name, parts=parts)
        case = f'{devices} {name} {parts}'
        found |= {f'{case} metric {key}': value for key, value in metrics.items()}
        found |= {f'{case} gradient {i}': x for i, x in enumerate(jax.tree.leaves(grads))}
    np.savez(out, **found)


def in_eight_devices(code, *arguments):
    variables = environment(8)
    variables['XLA_FLAGS'] += ' --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
    done = subprocess.run([sys.executable, '-c', code, *map(str, arguments)], cwd=ROOT, env=variables,
                          capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_eight_devices_and_fewer_give_the_losses_and_gradients_of_one(tmp_path):
    in_eight_devices(STEP, tmp_path / 'out.npz')
    found = np.load(tmp_path / 'out.npz')

    def of(case, kind):
        start = f'{case[0]} {case[1]} {case[2]} {kind} '
        return {key.removeprefix(start): found[key] for key in found.files if key.startswith(start)}
    want = [of((1, 'shard_map', 1), kind) for kind in ('metric', 'gradient')]
    assert want[0]['loss'] > 0 and len(want[1]) > 4
    for case in CASES:
        assert_equal([of(case, kind) for kind in ('metric', 'gradient')], want)


def real_step(devices, name):
    """`one_step` of the detector itself, tiny, with a batch of eight phantoms."""
    config = tiny_config()
    with config.unlocked():
        config.data.phantom.train_images = 8
        config.train.update(pre_nms=30, proposals=20, rpn_samples=16, rois=8, batch_size=8)
    source, _ = pipeline.open_sources(config)
    batch = next(pipeline.train_batches(source, config, batch_size=8, seed=0))
    model = mask_rcnn.build(config, num_classes=len(source.classes) + 1)
    return one_step(model, config, batch, devices=devices, name=name)


REAL = '''
import sys, jax, numpy as np
from tests.training.test_devices import assert_equal, real_step
want = real_step(1, 'shard_map')
assert want[0]['loss'] > 0
for devices, name in ((2, 'shard_map'), (4, 'shard_map'), (8, 'shard_map'), (8, 'pmap')):
    got = real_step(devices, name)
    assert_equal(got, want)
    print(devices, name, max(abs(got[0][k] - want[0][k]) / max(abs(want[0][k]), 1e-6) for k in want[0]),
          max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(*map(jax.tree.leaves, (got[1], want[1])))
              if np.abs(b).max() > 1e-8), file=sys.stderr)
'''


@pytest.mark.slow
def test_the_detector_itself_has_the_same_losses_and_gradients_on_eight_devices():
    in_eight_devices(REAL)


def found_by_all(folder):
    """What DETECT does: (rows of the batches, image indices seen, records) of the detector on all devices."""
    config, table = checkpoint.read_config(folder), checkpoint.read_class_table(folder)
    with config.unlocked():
        config.data.phantom.val_images = 19
    source = pipeline.open_for_model(config, 'val', table)
    rows, seen, records = [], [], []
    for batch, found in detect_batches(*load_detector(folder, config, table), source, config, batch_size=2):
        rows.append(len(batch.image))
        seen += batch.image_index[batch.image_valid].tolist()
        records += found
    return rows, seen, records


@pytest.mark.slow
def test_eight_devices_find_what_two_find_and_see_every_film_once(tmp_path):
    folder = write_run(tmp_path / 'run', tiny_config())
    in_eight_devices(DETECT, folder, tmp_path / 'found.json')
    rows, seen, records = json.loads((tmp_path / 'found.json').read_text())
    assert rows == [16, 16] and seen == list(range(19))
    _, _, expected = found_by_all(folder)
    assert [(r['image_id'], r['category_id']) for r in records] == [(r['image_id'], r['category_id']) for r in expected]
    for a, b in zip(records, expected):
        np.testing.assert_allclose([*a['bbox'], a['score']], [*b['bbox'], b['score']], rtol=1e-5, atol=1e-4)
