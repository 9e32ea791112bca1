"""Configs: found by name or file from any folder, overridden, checked key by key, and written as JSON."""
import sys
from pathlib import Path

import pytest

from configs import base
from relnet_jax import config as config_lib
from relnet_jax import rules
from relnet_jax.data import read_options
from relnet_jax.data.formats import FORMATS, fusion
from relnet_jax.errors import UserError
from relnet_jax.models import settings
from relnet_jax.models.backbones import BACKBONES, deformable
from relnet_jax.models.relations import RELATIONS, attention, class_relation, region_relation
from relnet_jax.ops.anchors import NECK_STRIDES
from relnet_jax.training import parallel

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ['configs/phantom.py', 'configs/coco.py', 'configs/coco.py:small', 'configs/cxr.py']


@pytest.mark.parametrize('spec', FAMILIES)
def test_families_load_and_round_trip_through_json(spec):
    config = config_lib.load(spec)
    assert config.is_locked
    assert config_lib.from_json(config_lib.to_json(config)).to_dict() == config.to_dict()


# ---- finding ----
@pytest.mark.parametrize('spec', ['phantom', 'phantom.py', 'configs/phantom.py', 'configs/phantom'])
def test_shipped_configs_have_their_names_in_any_folder(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_lib.load(spec).name == 'phantom'
    assert config_lib.load('lab:fpn3,data=coco').name == config_lib.load('configs/lab.py:fpn3,data=coco').name == 'fpn3'


def test_a_file_that_is_there_goes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('phantom.py').write_text('from configs import base\n\ndef get_config():\n    c = base.get_config()\n'
                                  "    c.name = 'mine'\n    return c\n")
    assert config_lib.load('phantom.py').name == 'mine'
    assert config_lib.load('phantom').name == config_lib.load('configs/phantom.py').name == 'phantom'


def test_a_file_anywhere_imports_the_shipped_configs_and_those_beside_it(tmp_path, monkeypatch):
    """Two folders with files of one name, loaded one after the other, do not get in each other's way."""
    for i, folder in enumerate((tmp_path / 'a', tmp_path / 'b')):
        folder.mkdir()
        (folder / 'common.py').write_text(f'SEED = {i + 7}\n')
        (folder / 'mine.py').write_text(
            'from configs import common, phantom\n\ndef get_config(name):\n    from configs.common import SEED\n'
            '    assert SEED == common.SEED\n    c = phantom.get_config()\n    c.name, c.seed = name, SEED\n'
            '    return c\n')
    before = {name: module for name, module in sys.modules.items() if name.startswith('configs')}
    monkeypatch.chdir('/')
    loaded = [config_lib.load(f'{tmp_path}/{folder}/mine.py:run') for folder in 'aba']
    assert [(c.name, c.seed, c.data.format) for c in loaded] == [('run', 7, 'phantom'), ('run', 8, 'phantom'),
                                                                 ('run', 7, 'phantom')]
    assert {name: module for name, module in sys.modules.items() if name.startswith('configs')} == before


@pytest.mark.parametrize('spec, said', [
    ('configs/phantm.py', "no config 'configs/phantm.py', did you mean 'configs/phantom.py'?"),
    ('phantm', "no config 'phantm', did you mean 'phantom'?"),
    ('somewhere/x', f"no config 'somewhere/x'; there are {', '.join(config_lib.shipped())}")])
def test_a_wrong_name_suggests_the_nearest(spec, said, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(FileNotFoundError) as error:
        config_lib.load(spec)
    assert str(error.value) == said


BASE = 'from configs import base\n\ndef get_config():\n    c = base.get_config()\n'


@pytest.mark.parametrize('text, said', [
    (BASE + '    c.train.stpes = 3\n    return c\n', r'mine.py, line 5: AttributeError: .*stpes.*Did you mean "steps"'),
    (BASE + "    c.train.steps = 'many'\n    return c\n", 'mine.py, line 5: TypeError: .*steps'),
    (BASE + '    return undefined\n', 'mine.py, line 5: NameError'),
    ('def get_config(:\n', 'mine.py, line 1: SyntaxError'),
    ('x = 3\n', r"mine.py, line 1: AttributeError: .*get_config"),
    (BASE + '    return 3\n', r'expected get_config\(\) to give a ConfigDict, got int'),
    (BASE + '    c.train.steps = 0\n    return c\n', 'config.train.steps: expected a whole number of 1 or more, got 0'),
    (BASE + "    raise ValueError('this is wrong')\n", "config '.*mine.py': this is wrong")])
def test_what_is_wrong_in_a_config_file_is_said_with_its_line(text, said, tmp_path):
    (tmp_path / 'mine.py').write_text(text)
    with pytest.raises(UserError, match=said):
        config_lib.load(str(tmp_path / 'mine.py'))


@pytest.mark.parametrize('spec, said', [
    ('configs/coco.py:smal', "config 'configs/coco.py:smal': no variant 'smal'; it knows 'small'"),
    ('phantom:x', "config 'phantom:x': takes no argument, got 'x'"),
    ('lab:fpn_33', "config 'lab:fpn_33': no run 'fpn_33', did you mean 'fpn3'?")])
def test_an_unknown_argument_is_refused_by_name(spec, said):
    with pytest.raises(UserError) as error:
        config_lib.load(spec)
    assert str(error.value) == said


# ---- overrides ----
def test_overrides_are_typed_as_their_keys_are_and_the_original_stays():
    config = config_lib.load('phantom')
    changed = config_lib.with_overrides(config, [
        'train.steps=7', 'train.learning_rate=1', 'model.mask_head=false', 'data.canvas=(128,64)', 'train.freeze=a',
        'train.freeze=b', 'data.train.images=~/films', 'name=a=b', 'train.steps=8'])
    assert changed.is_locked and config.train.steps == 1200
    assert (changed.train.steps, changed.model.mask_head, changed.data.canvas) == (8, False, (128, 64))
    assert isinstance(changed.train.learning_rate, float) and changed.train.freeze == ('a', 'b')
    assert changed.name == 'a=b' and changed.data.train.images == str(Path.home() / 'films')


def test_paths_are_expanded_wherever_they_come_from():
    config = config_lib.load('phantom')
    with config.unlocked():
        config.train.init_from = '~/runs/a'
    assert config_lib.with_overrides(config, ()).train.init_from == str(Path.home() / 'runs' / 'a')
    assert {'data.train.annotations', 'data.val.images', 'data.graph', 'train.plain_from'} <= set(rules.PATHS)


@pytest.mark.parametrize('override, said', [
    ('train.stpes=3', "config.train.stpes: config.train has no key 'stpes', did you mean 'steps'?"),
    ('trian.steps=3', "config.trian.steps: config has no key 'trian', did you mean 'train'?"),
    ('train.steps.x=3', "config.train.steps.x: config.train.steps has no key 'x'"),
    ('data.split=3', 'config.data.split is a section: override its keys, as in --config.data.split.by=...'),
    ('train.steps=many', "config.train.steps: expected a whole number, got 'many'"),
    ('train.steps=1.5', "config.train.steps: expected a whole number, got '1.5'"),
    ('model.mask_head=perhaps', "config.model.mask_head: expected true or false, got 'perhaps'"),
    ('train.learning_rate=fast', "config.train.learning_rate: expected a number, got 'fast'"),
    ('train.optimizer=adam',
     "config.train.optimizer: expected one of 'sgd', 'adamw', got 'adam', did you mean 'adamw'?"),
    ('data.format=cocoo', "config.data.format: expected one of {formats}, got 'cocoo', did you mean 'coco'?"),
    ('model.backbone=resnet5', "config.model.backbone: expected one of {backbones}, got 'resnet5', "
     "did you mean 'resnet50'?"),
    ("model.relations=('clas',)", 'config.model.relations: expected different relations, got '
     "'clas', did you mean 'class'?"),
    ("model.relations=('part','part')",
     "config.model.relations: expected different relations, got 'part'"),
    ('data.canvas=128', 'config.data.canvas: expected two whole numbers, height and width, got (128,)'),
    ('data.canvas=(128,100)', 'config.data.canvas: expected multiples of 64, got (128, 100)'),
    ('data.split.hold_out=5', 'config.data.split.hold_out: expected a fold below data.split.folds = 5, got 5'),
    ('train.batch_size=0', 'config.train.batch_size: expected a whole number from 1 to 100000, got 0'),
    ('train.steps=-1', 'config.train.steps: expected a whole number of 1 or more, got -1'),
    ('train.learning_rate=nan', 'config.train.learning_rate: expected a number of 0 or more, got nan'),
    ('train.freeze=(a', "config.train.freeze: expected regular expressions, got ('(a',)"),
    ('test.boxes=1000000000000', 'config.test.boxes: expected a whole number from 1 to 100000, got 1000000000000'),
    ('test.score_threshold=30', 'config.test.score_threshold: expected a number from 0 to 1, got 30.0')])
def test_a_wrong_override_gets_its_keys_own_message(override, said):
    names = dict(formats=', '.join(map(repr, FORMATS)), backbones=', '.join(map(repr, BACKBONES)))
    with pytest.raises(UserError) as error:
        config_lib.with_overrides(config_lib.load('phantom'), [override])
    assert str(error.value) == (said.format(**names) if '{' in said else said)


# ---- rules ----
def test_every_key_has_a_rule_that_its_default_keeps():
    config = base.get_config()
    assert set(rules.RULES) == set(config_lib.flat(config))
    rules.check(config)


@pytest.mark.parametrize('value', [None, 'x', -1, 0, float('nan'), float('inf'), (), (1, 'a'), {}, True, 1e9, [1]])
def test_rules_answer_for_any_value(value):
    """Values from a damaged file have any type; a switch takes nothing but a truth value, and so on."""
    holds = {key: rule.holds(value) for key, rule in rules.RULES.items()}
    assert all(isinstance(answer, bool) for answer in holds.values())
    assert holds['model.mask_head'] == isinstance(value, bool)
    assert not holds['train.steps'] and not holds['train.ema'] or value in (0, 1)


def test_a_config_of_another_version_is_named_by_what_it_lacks():
    config = base.get_config().to_dict()
    del config['train']['rois']
    with pytest.raises(UserError, match='config.train.rois is missing: was this config made by another version'):
        rules.check(config_lib.ConfigDict(config))


def test_a_new_line_in_a_room_s_table_is_a_name_to_choose(monkeypatch):
    monkeypatch.setitem(FORMATS, 'mine', FORMATS['coco'])
    assert config_lib.with_overrides(config_lib.load('phantom'), ['data.format=mine']).data.format == 'mine'


def test_names_to_choose_from_are_those_that_the_rooms_know():
    tables = {
        'data.format': FORMATS,
        'data.fusion': fusion.FUSIONS,
        'data.exif': read_options.EXIF,
        'model.backbone': BACKBONES,
        'model.norm': {norm for body in BACKBONES.values() for norm in body.takes['norm']},
        'model.neck': NECK_STRIDES,
        'model.deformable': ('', *deformable.VERSIONS),
        'model.parts': settings.PARTS,
        'model.relation_loss': settings.LOSSES,
        'model.relation.class_.form': class_relation.FORMS,
        'model.relation.region.kernel': region_relation.KERNELS,
        'model.relation.class_region.kernel': region_relation.KERNELS,
        'model.relation.context.scale': attention.SCALES,
        'model.relation.object_attention.scale': attention.SCALES,
        'train.parallel': parallel.STEPS,
    }
    assert {key: set(rules.RULES[key].names()) for key in tables} == {key: set(table) for key, table in tables.items()}
    assert {name.rstrip('_') for name in base.get_config().model.relation} == set(RELATIONS)
