"""README and docs: links lead somewhere, every command line is one that its command takes, no line is too wide.

Commands are read by their own parser, their config loaded and their overrides applied; nothing is run, except for the
cheap ones, on phantom films.
"""
import argparse
import functools
import importlib
import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path

import cv2
import pytest

from relnet_jax import cli
from relnet_jax import config as config_lib
from relnet_jax.data import check
from relnet_jax.data.phantom import __main__ as phantom
from tests.docs_text import PAGES, ROOT, Command, anchors, broken_links, commands, keys, links, wide_lines

SCRIPTS = {name: target.removesuffix(':main') for name, target in
           tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['scripts'].items()}
pages = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)


class Parsed(Exception):
    """A command has read its arguments, and is not to be run."""


# ---- the checks ----
def parse(command: Command) -> None:
    """Raises for arguments that the command does not take. Without any, it is only a mention of the command."""
    module, argv = command
    name = f'{module}.__main__' if (ROOT / module.replace('.', '/')).is_dir() else module
    if importlib.util.find_spec(name) is None:
        raise ValueError(f'no module {module}')
    for path in argv:
        if path.split('/')[0] in ('benchmarks', 'tests', 'docs') and not (ROOT / path).exists():
            raise ValueError(f'no such path: {path}')
    if not argv or argv == ('--help',):
        return
    loaded = importlib.import_module(name)
    if hasattr(loaded, 'define'):
        parse_ours(loaded, module, argv)
    elif hasattr(loaded, 'argparse'):
        parse_argparse(loaded, argv)
    elif any(word.startswith('-') for word in argv):
        raise ValueError(f'{module} takes no flags')


def parse_ours(module, name: str, argv: tuple[str, ...]) -> None:
    def stop(name, doc, define, command, argv=None, *, words=(), overrides=True):
        raise Parsed(cli.parse(define, argv, words=words, overrides=overrides))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, 'run', stop)
        try:
            module.main(list(argv)) if hasattr(module, 'main') else stop('', '', module.define, None, argv)
        except Parsed as found:
            call, = found.args
    if name == 'relnet_jax.ablate':
        family, data = call.flags.config or 'lab', f',data={call.flags.data}' if call.flags.data else ''
        specs = [f'{family}:{run}{data}' for run in call.flags.runs.split(',') if run]
    elif 'config' in call.flags:
        specs = [call.flags.config]
    else:
        specs = ['phantom']         # a checkpoint's own config has the keys of any
    for spec in specs:
        config_lib.with_overrides(load(spec), call.overrides)


@functools.cache
def load(spec: str):
    return config_lib.load(spec)


def parse_argparse(module, argv: tuple[str, ...]) -> None:
    own = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        raise Parsed(own(self, args, namespace))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        patch.setattr(sys, 'argv', [module.__name__, *argv])
        try:
            module.main()
        except Parsed:
            return
        except SystemExit as error:
            raise ValueError(f'{module.__name__} {" ".join(argv)}: its parser ended with {error.code}') from error
    raise ValueError(f'{module.__name__} does not parse its arguments')


def wrong_keys(text: str) -> list[str]:
    flat = load('base').to_dict()

    def known(key: str) -> bool:
        value = flat
        for part in key.split('.'):
            value = value.get(part) if isinstance(value, dict) else None
        return value is not None
    return [key for key in keys(text) if not known(key)]


def wrong_commands(text: str) -> list[str]:
    wrong = []
    for command in dict.fromkeys(commands(text, SCRIPTS)):
        try:
            parse(command)
        except (ValueError, OSError) as error:
            wrong.append(f'{command}: {error}')
    return wrong


# ---- the pages ----
@pages
def test_links_lead_to_files_and_headings(page):
    assert broken_links(page.read_text(), page) == []


@pages
def test_every_command_is_one_that_its_command_takes(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert wrong_commands(page.read_text()) == []


@pages
def test_every_key_of_the_config_that_is_named_is_there(page):
    assert wrong_keys(page.read_text()) == []


@pages
def test_lines_are_of_readable_width(page):
    if page.name != 'ablation_tables.md':       # generated
        assert wide_lines(page.read_text()) == []


def test_the_pages_have_links_and_commands():
    texts = {page.name: page.read_text() for page in PAGES}
    assert len(links(texts['README.md'])) > 12
    assert sum(len(commands(text, SCRIPTS)) for text in texts.values()) > 80
    found = {command.module for text in texts.values() for command in commands(text, SCRIPTS) if command.arguments}
    assert set(SCRIPTS.values()) <= {f'{name}.__main__' if name.endswith('phantom') else name for name in found}


def test_the_index_has_every_page():
    index = ROOT / 'docs' / 'index.md'
    assert {page.name for page in PAGES if page.parent == index.parent} - {index.name} <= set(links(index.read_text()))


# ---- the checks themselves ----
@pytest.mark.parametrize('line, said', [
    ('`python train.py --confg=phantom`', "no flag '--confg'"),
    ('```\npython train.py \\\n    --config.train.stpes=3\n```', "has no key 'stpes'"),
    ('| `python -m relnet_jax.predict --ckpt=a --images=b` |', '--out is required'),
    ('    check --config=phantm', "no config 'phantm'"),
    ('```\nD="--config.data.trian.images=x"\nrelnet-check $D\n```', 'trian'),
    ('`python -m relnet_jax.data.chek --strict`', 'no module'),
    ('`python -m relnet_jax.ablate --runs=bas --out=x`', "did you mean 'base'"),
    ('`python -m relnet_jax.compare A`', 'expected A B'),
    ('`python -m benchmarks.pipeline --no-such-flag`', 'its parser ended with 2'),
    ('`python -m benchmarks.gain_by_cue benchmarks/results/none`', 'no such path'),
    ('`ssh --command="cd x && python eval.py --kcpt=y"`', "no flag '--kcpt'")])
def test_a_wrong_command_is_found(line, said):
    wrong, = wrong_commands(f'# Title\n\nText.\n\n{line}\n')
    assert said in wrong


def test_right_commands_and_placeholders_are_not_wrong():
    text = ('`python eval.py --ckpt=RUN [--config.test.boxes=256]`:\n\n```\n'
            'python train.py --process_id=i --config=lab:RUN --config...  # x\n```\n\n'
            '`python -m relnet_jax.data.check` and `train.py`; `relnet-convert IN\nOUT`\n')
    assert wrong_commands(text) == []
    assert commands(text, SCRIPTS) == [
        Command('relnet_jax.train', ('--process_id=1', '--config=lab:base')),
        Command('relnet_jax.eval', ('--ckpt=RUN', '--config.test.boxes=256')), Command('relnet_jax.data.check', ()),
        Command('relnet_jax.interop.convert', ('IN', 'OUT'))]


def test_wrong_keys_are_found():
    text = '`train.steps`, `--config.model.mask_haed=False`, `config.data.canvas`, `data.val.anotations` `data.check`'
    assert wrong_keys(text) == ['model.mask_haed', 'data.val.anotations']


def test_broken_links_and_wide_lines_are_found(tmp_path):
    (tmp_path / 'b.md').write_text('## `b`: two words\n')
    text = ('# Here\n[a](b.md#b-two-words) [b](b.md#none) ![c](c.png) [d](#here) [e](#there) [f](https://x.y)\n'
            f'`[no](link.md)`\n\n| {"x" * 130} |\n{"y" * 121}\n<!-- runs: begin -->\n{"z" * 130}\n<!-- runs: end -->\n')
    (tmp_path / 'a.md').write_text(text)
    broken = broken_links(text, tmp_path / 'a.md')
    assert [line.split(':')[0] for line in broken] == ['b.md#none', 'c.png', '#there']
    wide, = wide_lines(text)
    assert wide.startswith('line 6 has 121 characters')
    assert anchors('# A\n## A\n```\n# no\n```\n') == {'a', 'a-1'}


# ---- the cheap commands, run ----
@pytest.fixture(scope='module')
def films(tmp_path_factory):
    """Ten phantom films, in a folder where the pages' names mean them."""
    folder = tmp_path_factory.mktemp('films')
    assert phantom.main([f'--out={folder}/films', '--count=10', '--size=64']) == 0
    truth = json.loads((folder / 'films' / 'instances.json').read_text())
    for record in truth['images']:
        record['patient_id'] = record['patient'] = f'p{record["id"]}'
    for name in ('instances.json', 'a.json'):
        (folder / name).write_text(json.dumps(truth))
    return folder


CHECKS = {command: page.name for page in PAGES if page.name in ('README.md', 'usage.md', 'which_config.md')
          for command in commands(page.read_text(), SCRIPTS)
          if command.module == 'relnet_jax.data.check' and any('images=films' in word for word in command.arguments)}


@pytest.mark.parametrize('command', CHECKS, ids=CHECKS.values())
def test_the_checks_of_the_pages_run(command, films, monkeypatch, capsys):
    monkeypatch.chdir(films)
    assert check.main(list(command.arguments)) == 0
    out = capsys.readouterr().out
    assert '10 image records = 10 used' in out and 'unreadable images: none' in out
    if '--plot=plots' in command.arguments:
        assert (films / 'plots' / 'images.png').is_file()


def test_phantom_films_are_written_as_the_pages_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, = {c for page in PAGES if page.name == 'usage.md' for c in commands(page.read_text(), SCRIPTS)
                if c.module == 'relnet_jax.data.phantom'}
    assert phantom.main(list(command.arguments)) == 0
    assert len(list((tmp_path / 'phantom').glob('*.png'))) == 20


def test_the_ten_lines_of_coco_in_the_readme_are_read(tmp_path, films, monkeypatch, capsys):
    text, = re.findall(r'```json\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)
    truth = json.loads(text)
    (tmp_path / 'instances.json').write_text(text)
    (tmp_path / 'films').mkdir()
    picture = cv2.imread(str(next((films / 'films').glob('*.png'))))
    for record in truth['images']:
        size = record['width'], record['height']
        cv2.imwrite(str(tmp_path / 'films' / record['file_name']), cv2.resize(picture, size) // (1 + record['id']))
    command, = {c for c in commands((ROOT / 'README.md').read_text(), SCRIPTS) if c.module == 'relnet_jax.data.check'}
    monkeypatch.chdir(tmp_path)
    assert check.main([*command.arguments, '--config.data.split.folds=2']) == 0
    out = capsys.readouterr().out
    assert '2 image records = 2 used + 0 dropped' in out and '2 annotations = 2 used' in out
    assert 'issues: none' in out and 'patients in both training and validation: none' in out


@pytest.mark.parametrize('name', SCRIPTS)
def test_help_is_there_for_every_installed_command(name, capsys):
    assert importlib.import_module(SCRIPTS[name]).main(['--help']) == 0
    assert name in Path(ROOT / 'docs' / 'usage.md').read_text() and 'Flags:' in capsys.readouterr().out
