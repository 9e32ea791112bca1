"""Configs: every family loads, round trips through JSON, and stops on wrong keys and types with the nearest right name."""
import pytest

from relnet_jax import config as config_lib

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
