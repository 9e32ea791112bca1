"""Proofs with real processes: two that train together, and one that is killed."""
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from relnet_jax.runs import checkpoint, state
from relnet_jax.runs.step_folder import read_tree
from relnet_jax.training import optimizer, parallel
from relnet_jax.training.step import make_train_step
from tests.training.standin import Standin, make_batch, small_config

ROOT = Path(__file__).resolve().parents[2]

WORKER = '''
import sys
import jax
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
address, rank, name, out = sys.argv[1:]
jax.distributed.initialize(address, num_processes=2, process_id=int(rank))
assert jax.device_count() == 2 and len(jax.local_devices()) == 1
import numpy as np
from tests.training.test_processes import run
s, history = run(name)
if rank == '0':
    names = {f'params{i}': x for i, x in enumerate(jax.tree.leaves(s.params))}
    np.savez(out, loss=[m['loss'] for m in history], **names)
'''


def run(name):
    config = small_config()
    model, shapes = Standin(num_classes=4), state.batch_shapes(config, 1, 0)
    tx = optimizer.make_optimizer(config, state.abstract_params(model, shapes))
    mesh = parallel.make_mesh()
    s = parallel.replicate(state.init_state(model, tx, config, shapes), mesh)
    step = parallel.parallel_step(make_train_step(model, tx, config), mesh, parallel=name)
    history = []
    for i in range(3):
        s, metrics = step(s, parallel.place_batch(make_batch(4, i), mesh, parallel=name))
        history.append(jax.device_get(metrics))
    return jax.device_get(s), history


def environment(devices):
    flags = f'--xla_force_host_platform_device_count={devices}'
    return os.environ | dict(XLA_FLAGS=flags, PJRT_NPROC='8', JAX_PLATFORMS='cpu', PYTHONPATH=str(ROOT))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['pmap', 'shard_map'])
def test_two_processes_train_like_two_devices_of_one(tmp_path, name):
    with socket.socket() as s:
        s.bind(('localhost', 0))
        address = f'localhost:{s.getsockname()[1]}'
    workers = [subprocess.Popen([sys.executable, '-c', WORKER, address, str(rank), name, str(tmp_path / 'out.npz')],
                                cwd=ROOT, env=environment(1), stderr=subprocess.PIPE, text=True) for rank in range(2)]
    errors = [w.communicate(timeout=300)[1] for w in workers]
    assert [w.returncode for w in workers] == [0, 0], errors
    got = np.load(tmp_path / 'out.npz')
    want, history = run(name)
    np.testing.assert_allclose(got['loss'], [m['loss'] for m in history], rtol=1e-5)
    for i, leaf in enumerate(jax.tree.leaves(want.params)):
        np.testing.assert_allclose(got[f'params{i}'], leaf, rtol=1e-5, atol=1e-6)


SMALL_RUN = {
    'data.canvas': '(64, 64)', 'data.scale': 64, 'data.max_size': 64, 'data.phantom.size': 64,
    'data.phantom.train_images': 10, 'data.phantom.val_images': 2, 'data.max_objects': 10, 'data.mask_size': 28,
    'model.fpn_channels': 16, 'model.box_head_dim': 16, 'model.mask_channels': 16, 'train.pre_nms': 30,
    'train.proposals': 20, 'train.rpn_samples': 16, 'train.rois': 8, 'test.pre_nms': 30, 'test.boxes': 20,
    'test.detections': 5, 'test.batch_size': 2, 'train.steps': 40, 'train.batch_size': 2, 'train.log_every': 4,
    'train.checkpoint_every': 8}


def start_training(workdir):
    overrides = [f'--config.{key}={value}' for key, value in SMALL_RUN.items()]
    return subprocess.Popen([sys.executable, 'train.py', f'--workdir={workdir}', *overrides], cwd=ROOT,
                            env=environment(1), stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_the_detector_killed_with_sigkill_ends_bit_for_bit_like_one_that_was_not(tmp_path):
    """train.py itself, killed as soon as a first checkpoint is there; the next one may be half written."""
    whole = start_training(tmp_path / 'whole')
    assert whole.communicate(timeout=600)[1] is not None and whole.returncode == 0

    cut = start_training(tmp_path / 'cut')
    deadline = time.monotonic() + 600
    while not checkpoint.steps(tmp_path / 'cut') and time.monotonic() < deadline and cut.poll() is None:
        time.sleep(0.05)
    cut.send_signal(signal.SIGKILL)
    cut.communicate()
    assert cut.returncode == -signal.SIGKILL
    assert 0 < checkpoint.steps(tmp_path / 'cut')[-1] < 40

    again = start_training(tmp_path / 'cut')
    log = again.communicate(timeout=600)[1]
    assert again.returncode == 0, log
    assert 'going on from step' in log
    for item in ('params', 'ema'):
        a, b = (read_tree(tmp_path / run / 'checkpoints' / '40', item) for run in ('whole', 'cut'))
        assert jax.tree.structure(a) == jax.tree.structure(b)
        jax.tree.map(np.testing.assert_array_equal, a, b)
