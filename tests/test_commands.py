"""Every command: a wrong flag, key, value, word or file ends with exit code 2 and one line on stderr that names it."""
import importlib
import os
import shutil
from types import SimpleNamespace

import pytest
from absl import flags

from relnet_jax import cli
from relnet_jax.runs import manifest
from relnet_jax.training import loop
from tests.tiny_run import tiny_config, write_films, write_run

# command -> (its module, what it must be given; {run}, {out} and {file} are filled in)
COMMANDS = {
    'train': ('relnet_jax.train', ['--workdir={out}']),
    'eval': ('relnet_jax.eval', ['--ckpt={run}', '--out={out}']),
    'predict': ('relnet_jax.predict', ['--ckpt={run}', '--images={file}', '--out={out}']),
    'ablate': ('relnet_jax.ablate', ['--runs=base', '--out={out}']),
    'check': ('relnet_jax.data.check', []),
    'phantom': ('relnet_jax.data.phantom.__main__', ['--out={out}']),
    'compare': ('relnet_jax.compare', ['{file}', '{file}']),
    'tfds_export': ('relnet_jax.data.tfds_export', ['--out={out}']),
    'convert': ('relnet_jax.interop.convert', ['{file}', '{out}']),
    'export': ('relnet_jax.interop.export', ['--ckpt={run}', '--out={out}'])}
WITH_CONFIG = [name for name in COMMANDS if name not in ('phantom', 'compare')]


@pytest.fixture(scope='module')
def places(tmp_path_factory):
    """A run's folder, and a file that is neither image nor weights."""
    folder = tmp_path_factory.mktemp('places')
    (folder / 'file').write_text('nothing of use')
    return dict(run=write_run(folder / 'run', tiny_config()), file=folder / 'file')


@pytest.fixture
def call(places, tmp_path, capsys, monkeypatch):
    """call('train', '--x') -> (exit code, stderr) of the command with what it must be given, in an empty folder."""
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')

    def run(name, *arguments, required=True):
        module, needed = COMMANDS[name]
        needed = [text.format(**places, out=tmp_path / 'out') for text in needed] if required else []
        code = importlib.import_module(module).main([*needed, *arguments])
        return code, capsys.readouterr().err
    yield run
    assert not list((tmp_path / 'here').iterdir()), 'nothing is written where the command was started'


def assert_refused(answer, name, *said):
    code, err = answer
    assert code == 2 and len(err.splitlines()) == 1, err
    assert err.startswith(f'{name}: ') and all(text in err for text in said), err


# ---- flags and words ----
@pytest.mark.parametrize('name', COMMANDS)
def test_an_unknown_flag_is_named_with_the_nearest(name, call):
    assert_refused(call(name, '--outt=x', required=False), name, "no flag '--outt'")


@pytest.mark.parametrize('name', ['eval', 'predict', 'ablate', 'phantom', 'export'])
def test_the_nearest_flag_and_the_required_one_are_named(name, call):
    assert "did you mean '--out'?" in call(name, '--outt=x', required=False)[1]
    first = '--out' if name in ('ablate', 'phantom') else '--ckpt'
    assert_refused(call(name, required=False), name, f'{first} is required: ')
    assert_refused(call(name, f'{first}='), name, f'{first} is required: ')


@pytest.mark.parametrize('name', COMMANDS)
def test_stray_words_are_no_flags(name, call):
    assert_refused(call(name, 'config.train.steps=3'), name, "'config.train.steps=3'",
                   "did you mean '--config.train.steps=3'?" if name != 'convert' else 'expected IN OUT')


@pytest.mark.parametrize('name', ['eval', 'predict', 'ablate', 'phantom'])
def test_a_file_is_no_folder_to_write_to(name, call, places):
    file = places['file']
    assert_refused(call(name, f'--out={file}'), name, f'--out={file}: expected a folder, this is a file')


def test_a_file_is_no_run_s_folder_and_a_folder_no_file_to_write(call, places):
    file, folder = places['file'], places['run']
    assert_refused(call('train', f'--workdir={file}'), 'train', f'--workdir={file}: expected a folder, this is a file')
    assert_refused(call('export', f'--out={folder}'), 'export', f'--out={folder}: expected a file, this is a folder')


@pytest.mark.parametrize('name, argument, said', [
    ('eval', '--split=test', '--split=test'), ('eval', '--overlays=-1', '--overlays=-1'),
    ('eval', '--boxes=64,64', "--boxes: expected different positive numbers separated by commas, got '64,64'"),
    ('predict', '--score=1.5', '--score=1.5'), ('predict', '--score=high', '--score=high'),
    ('ablate', '--seeds=0', '--seeds=0'), ('ablate', '--seeds=few', '--seeds=few'),
    ('ablate', '--boxes=a', "--boxes: expected different positive numbers separated by commas, got 'a'"),
    ('ablate', '--runs=bass', "no run 'bass', did you mean 'base'?"), ('ablate', '--runs=', '--runs: expected names'),
    ('ablate', '--data=fantom', "no data set 'fantom', did you mean 'phantom'?"),
    ('phantom', '--count=0', '--count=0'), ('phantom', '--ambiguity=2', '--ambiguity=2'),
    ('export', '--size=100,64', '--size=100,64: config.data.canvas: expected multiples of 64, got (100, 64)'),
    ('export', '--size=big', '--size=big: config.data.canvas: expected two whole numbers'),
    ('compare', '--resamples=0', '--resamples=0'), ('compare', '--annotations={file}', 'not JSON'),
    ('compare', '--voc_boxes=voc', '--voc_boxes=voc'), ('eval', '--fp_per_film=0', '--fp_per_film=0'),
    ('export', '--batch=0', '--batch=0'), ('export', '--platforms=abacus', '--platforms: expected some of'),
    ('train', '--workdir', 'Missing value for flag --workdir'),
    ('train', '--flagfile=nowhere', 'nowhere'),
    ('predict', '--config=phantom', "no flag '--config': only keys of the config, --config.KEY=VALUE"),
    ('phantom', '--config.seed=3', "no flag '--config.seed': this command has no config")])
def test_a_wrong_value_of_a_flag_is_named(name, argument, said, call, places):
    assert_refused(call(name, argument.format(**places)), name, said)


# ---- the config ----
@pytest.mark.parametrize('name', WITH_CONFIG)
@pytest.mark.parametrize('override, said', [
    ('train.stpes=3', "config.train has no key 'stpes', did you mean 'steps'?"),
    ('train.steps=many', "config.train.steps: expected a whole number, got 'many'"),
    ('train.steps=-1', 'config.train.steps: expected a whole number of 1 or more, got -1'),
    ('train.optimizer=adam', "optimizer: expected one of 'sgd', 'adamw', got 'adam', did you mean 'adamw'?"),
    ('train.batch_size=0', 'config.train.batch_size: '), ('data.format=vndr', "config.data.format: "),
    ('model.backbone=resnet5', "did you mean 'resnet50'?"), ('data.canvas=128', 'config.data.canvas: '),
    ("model.relations=('clas',)", "did you mean 'class'?")])
def test_a_wrong_key_type_or_value_of_the_config_is_named_by_every_command(name, override, said, call):
    assert_refused(call(name, f'--config.{override}'), name, 'config.', said)


def test_a_checkpoint_of_another_version_is_named_by_the_key_it_lacks(call, places, tmp_path):
    stored = tmp_path / 'old'
    shutil.copytree(places['run'], stored)
    file, = stored.glob('checkpoints/*/config/metadata')
    file.write_text(file.read_text().replace('"rois"', '"rois_of_then"'))
    manifest.seal(file.parents[1])
    for name in ('eval', 'predict', 'export'):
        assert_refused(call(name, f'--ckpt={stored}'), name, 'config.train.rois is missing: was this config made by')


def test_phases_that_cannot_be_are_named_before_the_data_are_opened(call):
    assert_refused(call('train', '--config=cxr', "--config.train.phases=({'name': 'a', 'stesp': 3},)"), 'train',
                   "config.train.phases[0]: no key 'stesp', did you mean 'steps'?")


@pytest.mark.parametrize('name', ['train', 'check', 'convert'])
def test_a_config_that_is_not_there_is_named_with_the_nearest(name, call, tmp_path):
    assert_refused(call(name, '--config=phantm'), name, "no config 'phantm', did you mean 'phantom'?",
                   f'(working in {tmp_path / "here"})')
    assert_refused(call(name, '--config=lab:fpn_33'), name, "did you mean 'fpn3'?")


# ---- files ----
@pytest.mark.parametrize('name', ['eval', 'predict', 'export'])
def test_a_checkpoint_that_is_not_there_is_named(name, call, tmp_path):
    assert_refused(call(name, '--ckpt=runs/mine'), name, f"no checkpoint folder '{tmp_path}/here/runs/mine'")
    assert_refused(call(name, f'--ckpt={tmp_path}'), name, f"no finished checkpoint in '{tmp_path}'")


@pytest.mark.parametrize('name, split', [('train', 'train'), ('train', 'val'), ('check', 'train'), ('check', 'val'),
                                         ('eval', 'val')])
def test_data_that_are_not_there_or_half_given_are_named(name, split, call, tmp_path, places):
    films = write_films(tmp_path / 'films', [(40, 50)])
    good = [f'--config.data.{part}.{key}={films / path}' for part in ('train', 'val')
            for key, path in (('annotations', 'instances.json'), ('images', 'images'))]

    def refused(annotations, images, *said):
        wrong = f'--config.data.{split}.annotations={annotations}', f'--config.data.{split}.images={images}'
        assert_refused(call(name, '--config.data.format=coco', *good, *wrong), name, *said)

    refused('a.json', '', f'data.{split}.images is not set: the folder of the images of a.json')
    refused('a.json', films, "annotation file 'a.json'", f'(working in {tmp_path / "here"})')
    refused(films / 'instances.json', 'none', "no image folder 'none'")
    refused(places['file'], films, f'{places["file"]}: not valid JSON')


def test_predict_looks_at_its_images_before_it_loads_the_model(call, places, tmp_path, monkeypatch):
    from relnet_jax.detector import detector
    monkeypatch.setattr(detector, 'load_detector', lambda *_: pytest.fail('the model was loaded'))
    (tmp_path / 'empty').mkdir()
    for images, said in ((tmp_path / 'nowhere.png', 'no such file or folder'), (tmp_path / 'empty', 'no images')):
        assert_refused(call('predict', f'--ckpt={places["run"]}', f'--images={images}', f'--out={tmp_path}/out',
                            required=False), 'predict', f'--images: {images}: {said}')
    assert not (tmp_path / 'out').exists()


def test_convert_says_what_goes_with_what(call, tmp_path, places):
    assert_refused(call('convert', required=False), 'convert', 'expected IN OUT, got nothing')
    assert_refused(call('convert', 'a', 'b', 'c', required=False), 'convert', "expected IN OUT, got 'a' 'b' 'c'")
    assert_refused(call('convert', 'no,no.pth', f'{tmp_path}/out', required=False), 'convert', "got 'no,no.pth' and")
    assert_refused(call('convert'), 'convert', str(places['file']))


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_that_may_not_be_written_to_is_named(call, tmp_path):
    (tmp_path / 'closed').mkdir(mode=0o500)
    assert_refused(call('phantom', f'--out={tmp_path}/closed/new'), 'phantom', 'closed', 'Permission denied')


# ---- train ----
def test_a_training_that_a_signal_stopped_is_not_done(call, tmp_path, monkeypatch):
    started = []

    def train(config, workdir):
        started.append((config.train.steps, workdir))
        return SimpleNamespace(step=3)
    monkeypatch.setattr(loop, 'train', train)
    assert call('train', '--config.train.steps=3')[0] == 0
    assert call('train', '--config.train.steps=4')[0] == cli.STOPPED == 75
    assert call('train', '--config.train.steps=3', required=False)[0] == 0
    assert started == [(3, tmp_path / 'out'), (4, tmp_path / 'out'), (3, tmp_path / 'here' / 'runs' / 'phantom')]


def test_half_of_what_several_processes_need_is_named(call, monkeypatch):
    monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'localhost:1')
    monkeypatch.setenv('NUM_PROCESSES', '2')
    monkeypatch.delenv('PROCESS_ID', raising=False)
    assert_refused(call('train'), 'train', 'expected NUM_PROCESSES and PROCESS_ID as numbers', "'PROCESS_ID'")


# ---- help ----
@pytest.mark.parametrize('name', COMMANDS)
def test_help_names_every_flag_with_its_meaning_and_the_exit_codes(name, call, capsys):
    module = importlib.import_module(COMMANDS[name][0])
    values = flags.FlagValues()
    module.define(values)
    assert module.main(['--ckpt=x', '--help']) == 0
    text = ' '.join(capsys.readouterr().out.split())
    for flag in values:
        assert f'--{flag}=...' in text or f'--[no]{flag}' in text
        assert ' '.join(values[flag].help.split()) in text
    assert ' '.join(module.__doc__.split()) in text and '130 stopped by Ctrl-C' in text
    assert ('configs/base.py' in text) == (name in WITH_CONFIG)
