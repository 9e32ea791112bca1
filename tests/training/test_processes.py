"""Proofs with real processes: some train together and one alone, one is stopped, one dies, one is killed."""
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from relnet_jax import processes
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import checkpoint
from relnet_jax.runs.step_folder import read_json, read_tree
from relnet_jax.training import loop
from tests.training import standin, worker

ROOT = Path(__file__).resolve().parents[2]
TIMES = ('seconds_per_step', 'images_per_second', 'data_wait')


def environment(devices):
    flags = f'--xla_force_host_platform_device_count={devices}'
    return os.environ | dict(XLA_FLAGS=flags, PJRT_NPROC='8', JAX_PLATFORMS='cpu', PYTHONPATH=str(ROOT))


def free_port():
    with socket.socket() as s:
        s.bind(('localhost', 0))
        return s.getsockname()[1]


# ---- the ways in which processes learn of each other: (variables, flags) of process i of n ----
def by_variables(n):
    address = f'localhost:{free_port()}'
    return [(dict(JAX_COORDINATOR_ADDRESS=address, NUM_PROCESSES=str(n), PROCESS_ID=str(i)), []) for i in range(n)]


def by_flags(n):
    address = f'localhost:{free_port()}'
    return [({}, [f'--coordinator={address}', f'--num_processes={n}', f'--process_id={i}']) for i in range(n)]


def by_slurm(n):
    """As srun sets them; the port follows from the job's number."""
    job = free_port()
    return [(dict(SLURM_JOB_ID=str(job), SLURM_STEP_NODELIST='localhost', SLURM_NTASKS=str(n), SLURM_PROCID=str(i),
                  SLURM_LOCALID=str(i), JAX_COORDINATOR_PORT=str(job)), ['--coordinator=auto']) for i in range(n)]


def by_open_mpi(n):
    job = free_port()
    return [(dict(OMPI_MCA_orte_hnp_uri=f'{job * 4096}.0;tcp://127.0.0.1:{job}', OMPI_COMM_WORLD_SIZE=str(n),
                  OMPI_COMM_WORLD_RANK=str(i), OMPI_COMM_WORLD_LOCAL_RANK=str(i), JAX_COORDINATOR_PORT=str(job)),
             ['--coordinator=auto']) for i in range(n)]


def start(ways, folder, *arguments, devices=1, command='train'):
    """Processes of tests/training/worker.py; what they say is in LOG0, LOG1 ... in `folder`."""
    folder.mkdir(exist_ok=True)
    started = []
    for i, (variables, flags) in enumerate(ways):
        with open(folder / f'LOG{i}', 'w') as log:
            started.append(subprocess.Popen(
                [sys.executable, '-m', 'tests.training.worker', command, *flags, *arguments], cwd=ROOT, stderr=log,
                stdout=log, env=environment(devices) | variables | dict(COUNTED=str(folder / f'COUNTED{i}'))))
    return started


def train(ways, folder, *overrides, devices=1):
    """`start` of a training in folder/run."""
    return start(ways, folder, '--config=tests/training/worker.py', f'--workdir={folder / "run"}',
                 *(f'--config.{override}' for override in overrides), devices=devices)


def logs(folder):
    return '\n'.join(path.read_text() for path in sorted(folder.glob('LOG*')))


def ended(started, folder, timeout=300):
    """Their exit codes."""
    try:
        return [process.wait(timeout) for process in started]
    finally:
        for process in started:
            process.kill()


def assert_trained_alike(a, b):
    """Two folders of `train` hold the same run, up to the order of additions: parameters, metrics, detections."""
    folders = [checkpoint.find(folder / 'run') for folder in (a, b)]
    assert checkpoint.steps(a / 'run') == checkpoint.steps(b / 'run')
    for item in ('params', 'ema', 'optimizer'):
        trees = [read_tree(folder, item) for folder in folders]
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), *trees)
    metrics = [read_json(folder, 'metrics') for folder in folders]
    undefined = [{key for key, value in each.items() if value is None} for each in metrics]
    assert undefined[0] == undefined[1] and metrics[0].keys() == metrics[1].keys()
    for key in metrics[0].keys() - undefined[0]:
        assert metrics[0][key] == pytest.approx(metrics[1][key], rel=1e-5), key
    lines = [[json.loads(line) for line in (folder / 'run' / 'metrics.jsonl').read_text().splitlines()]
             for folder in (a, b)]
    assert len(lines[0]) == len(lines[1])
    for one, other in zip(*lines):
        assert one.keys() == other.keys()
        for key in one.keys() - {*TIMES}:
            if one[key] != other[key]:      # strings and null are the same
                assert one[key] == pytest.approx(other[key], rel=1e-5, abs=1e-6, nan_ok=True), key
    assert_found_alike(*(folder / 'run' / 'eval' for folder in (a, b)))


def assert_found_alike(a, b):
    one, two = (json.loads((folder / 'detections.json').read_text()) for folder in (a, b))
    assert len(one) >= 5
    assert [(r['image_id'], r['category_id']) for r in one] == [(r['image_id'], r['category_id']) for r in two]
    np.testing.assert_allclose([r['score'] for r in one], [r['score'] for r in two], rtol=1e-5)


ALONE = [({}, [])]


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp('alone')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_rcnn, 'build', standin.build)
        loop.train(worker.get_config(), folder / 'run')
    return folder


def test_two_processes_do_what_one_does_and_decode_each_image_once(alone, tmp_path):
    assert ended(train(by_slurm(2), tmp_path), tmp_path) == [0, 0], logs(tmp_path)
    assert_trained_alike(alone, tmp_path)
    counted = json.loads((tmp_path / 'COUNTED1').read_text())
    assert counted == dict(train=6 * 2, val=3)      # its part of 6 steps of 4 images and of an evaluation of 5 images


@pytest.mark.slow
@pytest.mark.parametrize('n, devices, ways', [(2, 2, by_variables), (4, 1, by_flags), (2, 1, by_open_mpi)])
def test_more_processes_and_devices_do_what_one_does(alone, tmp_path, n, devices, ways):
    assert ended(train(ways(n), tmp_path, devices=devices), tmp_path) == [0] * n, logs(tmp_path)
    assert_trained_alike(alone, tmp_path)
    counted = [json.loads((tmp_path / f'COUNTED{i}').read_text()) for i in range(1, n)]
    assert all(c['train'] == 6 * 4 // n for c in counted)


@pytest.mark.slow
def test_a_stop_signal_to_one_stops_all_at_the_same_step_and_others_go_on(alone, tmp_path):
    """Stopped with 2 processes, gone on with 4, stopped by Ctrl-C, gone on with one that has 2 devices."""
    steps = 'train.steps=3000', 'train.checkpoint_every=1000', 'train.decay_factor=1.0', 'train.learning_rate=0.01'
    last = 0
    for ways, number in ((by_variables(2), signal.SIGTERM), (by_flags(4), signal.SIGINT)):
        started = train(ways, tmp_path, *steps)
        wait_for_step(started, tmp_path, last + 4)
        started[-1].send_signal(number)
        assert ended(started, tmp_path) == [75] * len(ways), logs(tmp_path)
        step = checkpoint.steps(tmp_path / 'run')[-1]
        assert last < step < 3000 and f'stopped at step {step} of 3000' in logs(tmp_path)
        last = step
    short = f'train.steps={last + 4}', *steps[1:]
    assert ended(train(ALONE, tmp_path, *short, devices=2), tmp_path) == [0], logs(tmp_path)
    assert f'resuming from step {last}' in logs(tmp_path)
    whole = tmp_path / 'whole'
    assert ended(train(ALONE, whole, *short), whole) == [0]
    trees = [read_tree(checkpoint.find(folder / 'run'), 'params') for folder in (tmp_path, whole)]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), *trees)


def wait_for_step(started, folder, step):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and all(process.poll() is None for process in started):
        path = folder / 'run' / 'metrics.jsonl'
        lines = path.read_text().splitlines() if path.exists() else []
        if lines and json.loads(lines[-1])['step'] >= step:
            return
        time.sleep(0.05)
    pytest.fail(f'step {step} was not reached: {logs(folder)}')


@pytest.mark.slow
@pytest.mark.parametrize('dead', [0, 1])
def test_a_process_that_dies_ends_the_others_soon_with_one_line(tmp_path, dead):
    started = train(by_flags(3), tmp_path, 'train.steps=100000', 'train.checkpoint_every=100000', 'train.batch_size=3')
    wait_for_step(started, tmp_path, 4)
    started[dead].send_signal(signal.SIGKILL)
    codes = ended(started, tmp_path, timeout=processes.HEARTBEAT + 10)
    assert codes == [-signal.SIGKILL if i == dead else 2 for i in range(3)]
    for i in {0, 1, 2} - {dead}:
        text = (tmp_path / f'LOG{i}').read_text()
        assert len(re.findall(f'process {dead} of this run has ended or cannot be reached', text)) == 1
        assert 'Traceback' not in text and 'stack trace' not in text


@pytest.mark.slow
def test_a_process_that_gives_up_ends_the_others(tmp_path):
    ways = by_variables(2)
    ways[1][1].append('--config.train.init_from=absent')
    started = train(ways, tmp_path)
    assert ended(started, tmp_path, timeout=300) == [2, 2]
    assert "train: no checkpoint folder" in (tmp_path / 'LOG1').read_text()
    assert 'process 1 of this run has ended' in (tmp_path / 'LOG0').read_text()


@pytest.mark.slow
def test_two_processes_evaluate_like_one(alone, tmp_path):
    for ways, out in ((ALONE, 'one'), (by_flags(2), 'two')):
        started = start(ways, tmp_path, f'--ckpt={alone / "run"}', f'--out={tmp_path / out}', command='eval')
        assert ended(started, tmp_path) == [0] * len(ways), logs(tmp_path)
    assert_found_alike(tmp_path / 'one', tmp_path / 'two')


@pytest.mark.parametrize('flags, said', [
    (['--coordinator=host'], "expected --num_processes and --process_id beside it"),
    (['--coordinator=host', '--num_processes=2', '--process_id=0'], "expected 'host:port' of process 0, or 'auto'"),
    (['--coordinator=host:1', '--num_processes=2', '--process_id=2'], 'expected a number from 0 to 1')])
def test_half_of_what_it_takes_to_meet_is_named(flags, said, capsys):
    from relnet_jax import train
    assert train.main(flags) == 2
    assert said in capsys.readouterr().err


def test_shares_are_even_and_hold_everything_once(monkeypatch):
    for count, n in itertools.product((0, 1, 5, 19), (1, 2, 4)):
        monkeypatch.setattr(jax, 'process_count', lambda n=n: n)
        shares = []
        for i in range(n):
            monkeypatch.setattr(jax, 'process_index', lambda i=i: i)
            shares.append(processes.own_share(count))
        assert [x for share in shares for x in share] == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


# ---- one process, killed ----
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
    assert 'resuming from step' in log
    for item in ('params', 'ema'):
        a, b = (read_tree(tmp_path / run / 'checkpoints' / '40', item) for run in ('whole', 'cut'))
        assert jax.tree.structure(a) == jax.tree.structure(b)
        jax.tree.map(np.testing.assert_array_equal, a, b)
