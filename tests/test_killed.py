"""Real processes: SIGKILL at 50 moments of train.py, eval.py and predict, after which the next start ends as if there
had been none; signals, a second training in the folder, and a file system that takes no more.

    python -m pytest -m slow tests/test_killed.py -s            # about 20 minutes on 2 cores
"""
import collections
import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from relnet_jax import cli
from relnet_jax.runs import checkpoint, manifest, metrics, step_folder
from tests.conftest import CACHE
from tests.training.conftest import without_origin
from tests.training.test_processes import SMALL_RUN, environment

ROOT = Path(__file__).resolve().parents[1]
RUN = SMALL_RUN | {
    'train.steps': 400, 'train.log_every': 10, 'train.checkpoint_every': 15, 'train.eval_every': 100, 'train.ema': 0.9,
    'train.warmup_steps': 10, 'data.phantom.val_images': 8,
    'train.phases': "({'name': 'a', 'steps': 150}, {'name': 'b', 'steps': 150, 'freeze': ('backbone/',)}, "
                    "{'name': 'c', 'steps': 100, 'rois': 6})"}
TIMES = {'seconds_per_step', 'images_per_second', 'data_wait'}
MOMENTS = {'train': 30, 'eval': 10, 'predict': 10}


class Child:
    """A command as a process of its own, whose stderr goes to a file."""

    def __init__(self, folder: Path, *arguments: str, largest_file: int = -1):
        self.log = folder / 'stderr.txt'
        self.begun = time.time()
        with open(self.log, 'w') as log:
            self.process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL,
                                            stderr=log, env=environment(1) | {'RELNET_JAX_CACHE': f'{CACHE}/killed'})
        if largest_file > 0:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (largest_file, largest_file))

    def said(self) -> str:
        return self.log.read_text()

    def ended(self, code: int = 0) -> float:
        """Waits; returns the seconds since the start."""
        assert self.process.wait(timeout=900) == code, self.said()
        return time.time() - self.begun

    def wait_for(self, text: str):
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            time.sleep(0.01)

    def killed(self, happened, delay: float) -> bool:
        """Kills it `delay` seconds after `happened()`; False if it ended before."""
        while not happened() and self.process.poll() is None:
            time.sleep(0.002)
        time.sleep(delay)
        self.process.send_signal(signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL


def train(folder: Path, workdir: Path, **options) -> Child:
    return Child(folder, 'train.py', f'--workdir={workdir}', *(f'--config.{key}={value}' for key, value in RUN.items()),
                 **options)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('killed')


@pytest.fixture(scope='module')
def whole(folder):
    """A run that nothing stopped, the second one, whose programs were compiled before; and the seconds it took."""
    train(folder, folder / 'first').ended()
    seconds = train(folder, folder / 'whole').ended()
    assert_same_run(folder / 'first', folder / 'whole')
    return folder / 'whole', seconds


def assert_same_run(a: Path, b: Path):
    texts = [[{k: v for k, v in values.items() if k not in TIMES} for _, values in metrics.read(run)] for run in (a, b)]
    assert texts[0] == texts[1] and len(texts[0]) == 45
    for item in ('params', 'ema', 'optimizer'):
        trees = [step_folder.read_tree(run / 'checkpoints' / '400', item) for run in (a, b)]
        assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
        jax.tree.map(np.testing.assert_array_equal, *trees)
    for name in ('metrics.json', 'detections.json'):
        assert without_origin(a / 'eval' / name, a) == without_origin(b / 'eval' / name, b)


def assert_nothing_torn(out: Path):
    """Whatever has its final name is whole."""
    for step in checkpoint.steps(out):
        path = out / 'checkpoints' / str(step)
        assert step_folder.sealed(path) and not step_folder.damage(path)
    for path in out.rglob('*.json'):
        if not path.name.startswith('.') and not {'checkpoints', 'damaged'} & set(path.parts):
            json.loads(path.read_text())
    for path in out.rglob('*.png'):
        assert path.name.startswith('.') or cv2.imread(str(path)) is not None, path


def moment_of_training(kind: str, workdir: Path, child: Child, chance: random.Random, seconds: float):
    """(what to wait for, seconds after it) for a kill of this kind."""
    def scratch(name=''):
        return any((path / name).exists() for path in (workdir / 'checkpoints').glob('*.orbax-checkpoint-tmp*'))

    def at_evaluation():
        last = metrics.read(workdir)[-1:]
        return any(v['split'] == 'train' and v['step'] % 100 == 0 for _, v in last) and 'with compil' in child.said()

    return {'start': (lambda: True, chance.uniform(0, seconds / 2)),
            'step': (lambda: 'with compilation' in child.said(), chance.uniform(0, 2)),
            'save': (scratch, chance.uniform(0, 0.15)),
            'seal': (lambda: scratch(manifest.FILE), chance.choice([0, 0.005, 0.05])),
            'evaluation': (at_evaluation, chance.uniform(0, 0.5)),
            'phase': (lambda: child.said().count('compiling the training step') > 1, chance.uniform(0, 5))}[kind]


@pytest.mark.slow
def test_training_ends_bit_for_bit_like_a_run_that_was_not_killed(folder, whole):
    whole, seconds = whole
    chance, counts, runs = random.Random(7), collections.Counter(), 1
    kinds = ['start', 'step', 'save', 'seal', 'evaluation', 'phase'] * (MOMENTS['train'] // 6)
    chance.shuffle(kinds)
    for kind in kinds:
        while True:
            workdir = folder / f'cut{runs}'
            child = train(folder, workdir)
            if child.killed(*moment_of_training(kind, workdir, child, chance, seconds)):
                break
            assert child.process.returncode == 0, child.said()
            assert_same_run(whole, workdir)     # it came to its end before the moment did
            runs += 1
        counts[kind] += 1
        assert_nothing_torn(workdir)
        print(f'\n{kind}: killed after {time.time() - child.begun:.1f} s, steps {checkpoint.steps(workdir)}', end='')
    train(folder, workdir).ended()
    assert_same_run(whole, workdir)
    assert not (workdir / 'damaged').exists()
    print(f'\ntrain: {sum(counts.values())} kills {dict(counts)}, {runs} runs, all equal')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['eval', 'predict'])
def test_results_are_those_of_a_command_that_was_not_killed(folder, whole, name):
    whole, _ = whole
    images = folder / 'images'
    images.mkdir(exist_ok=True)
    for i in range(6):
        cv2.imwrite(str(images / f'{i}.png'), np.random.default_rng(i).integers(0, 256, (90, 64), np.uint8))
    command = {'eval': ['eval.py', '--overlays=6'],
               'predict': ['-m', 'relnet_jax.predict', f'--images={images}', '--score=0.01']}[name]

    def start(out):
        return Child(folder, *command, f'--ckpt={whole}', f'--out={out}')

    start(folder / f'{name}1').ended()
    reference, out = folder / f'{name}2', folder / f'{name}3'
    seconds = start(reference).ended()
    names = sorted(path.relative_to(reference) for path in reference.rglob('*') if path.is_file())
    assert len(names) > 6
    chance, kills = random.Random(8), 0
    while kills < MOMENTS[name]:
        child, wanted = start(out), chance.randrange(len(names))

        def written():
            there = [path for path in out.rglob('*') if path.is_file() and path.exists()]
            return sum(path.stat().st_mtime > child.begun for path in there) > wanted

        kills += child.killed(*((lambda: True, chance.uniform(0, seconds)) if kills % 2 else
                                (written, chance.uniform(0, 0.05))))
        assert_nothing_torn(out)
        print(f'\n{name}: {kills} kills, the last one after {time.time() - child.begun:.1f} s', end='')
    start(out).ended()
    for path in names:
        assert without_origin(out / path, out) == without_origin(reference / path, reference), path


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_a_code_of_its_own_and_costs_nothing(folder, whole, number):
    workdir = folder / number.name
    child = train(folder, workdir)
    child.wait_for('with compilation')
    child.process.send_signal(number)
    child.ended(cli.STOPPED)
    assert f'{number.name}: saving after this step' in child.said() and 'Traceback' not in child.said()
    assert_nothing_torn(workdir)
    train(folder, workdir).ended()
    assert_same_run(whole[0], workdir)


@pytest.mark.slow
def test_a_second_training_is_told_who_holds_the_folder_and_harms_nothing(folder, whole):
    first = train(folder, folder / 'shared')
    first.wait_for('compiling')
    log = folder / 'second'
    log.mkdir()
    second = train(log, folder / 'shared')
    second.ended(cli.WRONG)
    assert f'process {first.process.pid} on ' in second.said().splitlines()[-1]
    assert first.process.poll() is None
    first.ended()
    assert_same_run(whole[0], folder / 'shared')


@pytest.mark.slow
def test_a_file_system_that_takes_no_more_ends_a_training_with_one_line(folder, whole):
    """A limit on the size of files, which fails where a full disk does, and whoever runs the tests may set."""
    child = train(folder, folder / 'limited', largest_file=300_000)
    child.ended(cli.WRONG)
    assert 'Traceback' not in child.said()
    place = folder / 'limited' / 'checkpoints'
    assert child.said().splitlines()[-1] == (f"train: no checkpoint could be written to '{place}': File too large; "
                                             'there is none yet')
    train(folder, folder / 'limited').ended()
    assert_same_run(whole[0], folder / 'limited')
