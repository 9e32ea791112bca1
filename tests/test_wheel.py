"""Installed from its wheel, the package works from an empty folder: nothing is read from the checkout."""
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from tests.conftest import CACHE
from tests.tiny_run import TINY, tiny_config, write_run

ROOT = Path(__file__).resolve().parents[1]
MINE = '''from configs import phantom

def get_config():
    c = phantom.get_config()
    c.name = 'mine'
    c.data.phantom.train_images, c.data.phantom.val_images = 3, 2
    return c
'''


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """bin/ of a fresh environment that has the wheel; of this one it sees the other packages, behind its own."""
    pytest.importorskip('hatchling', reason='pip install -e .[dev]')
    folder = tmp_path_factory.mktemp('wheel')
    subprocess.run([sys.executable, '-m', 'hatchling', 'build', '-t', 'wheel', '-d', str(folder)], cwd=ROOT, check=True,
                   capture_output=True)
    venv.create(folder / 'venv', symlinks=True)
    python = folder / 'venv' / 'bin' / 'python'
    wheel, = folder.glob('*.whl')
    subprocess.run([sys.executable, '-m', 'pip', f'--python={python}', 'install', '--no-deps', '--no-index', '--quiet',
                    '--disable-pip-version-check', str(wheel)], check=True, capture_output=True)
    packages = subprocess.run([python, '-c', "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True,
                              capture_output=True, text=True).stdout.strip()
    (Path(packages) / 'others.pth').write_text(sysconfig.get_path('purelib') + '\n')
    return python.parent


@pytest.fixture
def command(installed, tmp_path, monkeypatch):
    """command('relnet-check', ...) -> what the installed command prints, in a folder that was empty."""
    folder = tmp_path / 'elsewhere'
    folder.mkdir()
    monkeypatch.chdir(folder)
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    environment |= dict(RELNET_JAX_CACHE=str(CACHE), PYTHONWARNINGS='default')

    def run(name, *arguments, code=0):
        done = subprocess.run([installed / name, *map(str, arguments)], capture_output=True, text=True, env=environment,
                              timeout=300)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr
    return run


def overrides(*keys):
    return [f'--config.{key}' for key in keys]


def test_the_package_and_its_configs_are_those_of_the_wheel(command, installed):
    where = command('python', '-c', 'from relnet_jax import config; print(config.__file__, config.SHIPPED)').split()
    assert all(Path(path).is_relative_to(installed.parent) for path in where)
    names = 'from relnet_jax import config; print(config.load("lab:fpn3,data=coco").name, *config.shipped())'
    configs = sorted(path.stem for path in (ROOT / 'configs').glob('[!_]*.py'))
    assert command('python', '-c', names).split() == ['fpn3', *configs]


def test_the_scripts_are_there(installed):
    scripts = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['scripts']
    assert len(scripts) == 10 and all((installed / name).exists() for name in scripts)


def test_data_are_made_and_checked(command):
    assert '5 images with' in command('relnet-phantom', '--out=films', '--count=5', '--size=64')
    report = command('relnet-check', '--config=coco:small', *overrides(
        'data.train.annotations=films/instances.json', 'data.train.images=films'))
    assert 'Cardiomegaly' in report and 'issues: none' in report
    Path('mine.py').write_text(MINE)
    assert '3 images' in command('relnet-check', '--config=mine.py')


def test_wrong_input_ends_with_the_code_and_the_line(command):
    said = command('relnet-train', '--config=phantom', '--config.train.optimizer=adam', code=2)
    assert said == "train: config.train.optimizer: expected one of 'sgd', 'adamw', got 'adam', did you mean 'adamw'?\n"


def test_a_detector_is_trained_by_the_name_of_its_config(command):
    command('relnet-train', '--config=phantom', '--workdir=run', *overrides(*TINY))
    assert json.loads(Path('run/eval/metrics.json').read_text())['about']['images'] == 2
    assert 'PHANTOM' in Path('run/eval/report.html').read_text()      # by the template of the wheel
    assert sorted(path.name for path in Path().iterdir()) == ['run']


def test_a_checkpoint_is_evaluated_used_exported_and_converted(command):
    c = tiny_config()
    with c.unlocked():
        c.model.norm = 'frozen_bn'      # what torchvision has
    write_run(Path('run').absolute(), c)
    assert 'PHANTOM' in command('relnet-eval', '--ckpt=run')
    command('relnet-phantom', '--out=films', '--count=2', '--size=64')
    command('relnet-predict', '--ckpt=run', '--images=films', '--out=found', '--score=0')
    assert len(json.loads(Path('found/predictions.json').read_text())['images']) == 2
    assert "written: 'model.stablehlo'" in command('relnet-export', '--ckpt=run', '--out=model.stablehlo')
    assert "written: 'w.safetensors'" in command('relnet-convert', 'run', 'w.safetensors')


@pytest.mark.slow
def test_a_table_of_the_lab_is_made(command):
    said = command('relnet-ablate', '--runs=base', '--seeds=1', '--out=table', '--data=phantom', *overrides(*TINY))
    assert '| `base` | FPN, no relation, no cascade | 1 |' in Path('table/table.md').read_text(), said
