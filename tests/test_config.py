"""Configs: every family loads, round trips through JSON, and stops on wrong keys and types with the nearest right name."""
import subprocess
import sys
from pathlib import Path

import pytest

from relnet_jax import config as config_lib

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ['configs/phantom.py', 'configs/coco.py', 'configs/coco.py:small', 'configs/cxr.py']


@pytest.mark.parametrize('spec', FAMILIES)
def test_families_load_and_round_trip_through_json(spec):
    config = config_lib.load(spec)
    assert config.is_locked
    assert config_lib.from_json(config_lib.to_json(config)).to_dict() == config.to_dict()


def test_a_wrong_key_names_the_nearest_right_one():
    config = config_lib.load('configs/phantom.py')
    with pytest.raises((AttributeError, KeyError), match='steps'):
        config.train.stepps = 3


def test_a_wrong_type_is_refused():
    config = config_lib.load('configs/phantom.py')
    with pytest.raises(TypeError):
        config.train.steps = 'many'


def test_a_wrong_file_name_suggests_the_nearest():
    with pytest.raises(FileNotFoundError, match='phantom.py'):
        config_lib.load('configs/phantm.py')


def test_an_unknown_variant_is_refused_by_name():
    with pytest.raises(ValueError, match='smal'):
        config_lib.load('configs/coco.py:smal')


@pytest.mark.parametrize('script, arguments, expected', [
    ('train.py', ['--config.train.stpes=3'], 'Did you mean "steps"'),
    ('train.py', ['--config.trian.steps=3'], 'Did you mean "train"'),
    ('train.py', ['--config=configs/cxr.py'], 'data.train.annotations is not set'),
])
def test_a_wrong_command_ends_in_one_line(script, arguments, expected):
    done = subprocess.run([sys.executable, script, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert expected in done.stderr and script in done.stderr.splitlines()[-1] and 'Traceback' not in done.stderr
