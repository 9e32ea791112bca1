import json
import math

import pytest

from configs import base
from relnet_jax.ablation import results
from tests.ablation import fake


def write(out, *found):
    for r in found:
        results.write(results.file_of(out, r['run'], r['seed']), r)


def test_a_result_is_read_as_it_was_written(tmp_path):
    found = fake.three_seeds()
    write(tmp_path, *reversed(found))
    assert results.read_all(tmp_path) == found
    assert not list((tmp_path / 'results').glob('*.tmp'))


def test_undefined_numbers_are_null(tmp_path):
    r = fake.result('base', 0, 0.4)
    r['metrics']['mask_AP50'] = math.nan
    write(tmp_path, r)
    assert results.read_all(tmp_path)[0]['metrics']['mask_AP50'] is None


def test_a_result_file_is_small_and_has_a_key_a_line(tmp_path):
    c = base.get_config()
    described = results.describe_config(c, c)
    assert described['delta'] == {}
    write(tmp_path, fake.result('base', 0, 0.4, **described))
    text = results.file_of(tmp_path, 'base', 0).read_text()
    assert len(text) < 8000 and len(text.splitlines()) == len(results.KEYS) + 2


def test_a_config_is_described_by_what_it_changes():
    reference, c = base.get_config(), base.get_config()
    c.train.steps, c.seed, c.name, c.data.threads, c.train.freeze = 77, 5, 'other', 9, ('backbone/.*',)
    described = results.describe_config(c, reference)
    assert described['delta'] == {'train.steps': 77, 'train.freeze': ['backbone/.*']}
    assert described['settings']['train.steps'] == reference.train.steps
    assert json.loads(json.dumps(described)) == described
    c.seed = 6
    assert results.describe_config(c, reference)['config_hash'] == described['config_hash']
    c.train.steps = 78
    assert results.describe_config(c, reference)['config_hash'] != described['config_hash']


@pytest.mark.parametrize('change, named', [
    (dict(data='coco'), r'data: expected "phantom", got "coco"'),
    (dict(settings=fake.SETTINGS | {'train.steps': 300}), 'train.steps: expected 600, got 300'),
    (dict(settings=fake.SETTINGS | {'data.scale': 128}), 'data.scale: expected 800, got 128'),
    (dict(about=fake.ABOUT | dict(images=99)), 'images: expected 100, got 99')])
def test_results_of_other_settings_are_refused_by_name(tmp_path, change, named):
    write(tmp_path, fake.result('base', 0, 0.4), fake.result('fpn_5', 0, 0.5, **change))
    with pytest.raises(results.ResultError, match=f'(?s)fpn_5_s0 and base_s0 .*{named}'):
        results.read_all(tmp_path)


def test_a_result_of_before_a_key_was_there_stands_beside_later_ones(tmp_path):
    c = base.get_config()
    whole = results.describe_config(c, c)
    earlier = whole | dict(settings={k: v for k, v in whole['settings'].items() if k != 'data.rotation'})
    write(tmp_path, fake.result('base', 0, 0.4, **earlier), fake.result('base', 1, 0.4, **whole))
    assert len(results.read_all(tmp_path)) == 2
    changed = whole | dict(settings=whole['settings'] | {'data.rotation': 5.0})
    write(tmp_path, fake.result('base', 2, 0.4, **changed))
    with pytest.raises(results.ResultError, match='data.rotation: expected 0.0, got 5.0'):
        results.read_all(tmp_path)


def test_the_seeds_of_a_run_share_its_config(tmp_path):
    changed = fake.result('fpn_5', 1, 0.5, delta={'model.relations': ['fpn_5'], 'model.box_dropout': 0.5})
    write(tmp_path, fake.result('base', 0, 0.4), fake.result('fpn_5', 0, 0.5), changed)
    with pytest.raises(results.ResultError, match='(?s)fpn_5_s1 and fpn_5_s0 .*box_dropout: expected 0.0, got 0.5'):
        results.read_all(tmp_path)


def test_a_run_on_part_of_the_data_may_stand_beside_the_others(tmp_path):
    subset = fake.result('fpn_6', 0, 0.5, delta={'data.subset': 'reader=yy'}, about=fake.ABOUT | dict(images=40))
    write(tmp_path, fake.result('base', 0, 0.4), subset)
    assert len(results.read_all(tmp_path)) == 2


def test_a_damaged_or_renamed_file_is_named(tmp_path):
    write(tmp_path, fake.result('base', 0, 0.4))
    path = results.file_of(tmp_path, 'base', 0)
    path.rename(path.with_name('fpn_5_s0.json'))
    with pytest.raises(results.ResultError, match='fpn_5_s0.json: expected the result of fpn_5_s0, got base_s0'):
        results.read_all(tmp_path)
    (tmp_path / 'results' / 'fpn_5_s0.json').write_text('{"run": "fpn_5"')
    with pytest.raises(results.ResultError, match='fpn_5_s0.json: not JSON'):
        results.read_all(tmp_path)
    (tmp_path / 'results' / 'fpn_5_s0.json').write_text('{"run": "fpn_5"}')
    with pytest.raises(results.ResultError, match='not a result file, it lacks seed, data'):
        results.read_all(tmp_path)


def test_an_unfinished_result_is_not_written(tmp_path):
    r = fake.result('base', 0, 0.4)
    del r['date']
    with pytest.raises(results.ResultError, match='lacks date'):
        write(tmp_path, r)
    assert not results.file_of(tmp_path, 'base', 0).exists()


def test_the_machine_is_described_without_naming_the_host():
    found = results.machine()
    assert found['cores'] >= 1 and found['devices'].endswith('cpu') and found['jax']
    assert not any('node' in key or 'host' in key for key in found)
