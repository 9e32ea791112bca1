"""Configs: found by file or by name, changed by overrides, checked, written and read as JSON.

`mine.py`, `mine.py:argument` or `folder/mine.py` is a file; `phantom`, `lab:fpn3` or `configs/lab.py:fpn3` one of the
shipped configs, where no such file is there. `from configs import base` in a config file means its own folder first,
then the shipped ones, wherever the file lies.
"""
import importlib.util
import inspect
import json
import os
import sys
import traceback
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from relnet_jax import rules
from relnet_jax.errors import UserError, hint

PACKAGE = Path(__file__).parent
# An installed package has the configs within, a checkout beside it.
SHIPPED = PACKAGE / 'configs' if (PACKAGE / 'configs').is_dir() else PACKAGE.parent / 'configs'

KINDS = {int: 'a whole number', float: 'a number', bool: 'true or false', tuple: "a tuple such as (1,2) or ('a',)"}


def shipped() -> list[str]:
    """Names of the configs that come with the package; a file with a leading underscore is shared by some of them."""
    return sorted(path.stem for path in SHIPPED.glob('[!_]*.py'))


def find(spec: str) -> tuple[Path, str]:
    """(file, argument) that `spec` means. Raises FileNotFoundError with the nearest right name."""
    name, _, argument = spec.partition(':')
    path = Path(name).expanduser()
    if path.suffix == '.py' and path.is_file():
        return path, argument
    if path.parent.as_posix() in ('.', 'configs') and path.suffix in ('', '.py') and path.stem in shipped():
        return SHIPPED / f'{path.stem}.py', argument
    files = path.parent.glob('*.py') if path.suffix else ()
    raise FileNotFoundError(f"no config '{name}'{hint(name, dict.fromkeys([*map(str, files), *shipped()]))}")


@contextmanager
def _package_of_configs(folder: Path) -> Iterator[None]:
    """`configs` is a package of the files in `folder` and the shipped ones, for as long as a config file runs."""
    def modules():
        return {name: sys.modules[name] for name in list(sys.modules) if name.split('.')[0] == 'configs'}

    before = modules()
    package = types.ModuleType('configs')
    package.__path__ = [str(folder), str(SHIPPED)]
    for name in before:
        del sys.modules[name]
    sys.modules['configs'] = package
    try:
        yield
    finally:
        for name in modules():
            del sys.modules[name]
        sys.modules.update(before)


def _run(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f'configs.{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module(spec: str) -> types.ModuleType:
    """The module of a config file."""
    path, _ = find(spec)
    with _package_of_configs(path.parent):
        return _run(path)


def load(spec: str) -> ConfigDict:
    """The locked config that the file's get_config() gives, or get_config(argument).

    Raises FileNotFoundError without the file, and UserError for what goes wrong in it, naming the line, and for a
    config that breaks `rules`.
    """
    path, argument = find(spec)
    try:
        with _package_of_configs(path.parent):
            get_config = _run(path).get_config
            if argument and not inspect.signature(get_config).parameters:
                raise ValueError(f"takes no argument, got '{argument}'")
            config = get_config(argument) if argument else get_config()
    except ValueError as error:     # what a config says of its argument
        raise UserError(f"config '{spec}': {error}") from error
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise UserError(f"config '{spec}': {path}, line {(lines or [getattr(error, 'lineno', 1)])[-1]}: "
                        f'{type(error).__name__}: {_first_line(error)}') from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"config '{spec}': expected get_config() to give a ConfigDict, got {type(config).__name__}")
    rules.check(config)
    return config.lock()


def _first_line(error: Exception) -> str:
    while error.args and isinstance(error.args[0], Exception):      # ml_collections wraps its own
        error = error.args[0]
    return ' '.join(str(error.args[0] if error.args else error).split())


def with_overrides(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """A locked copy of `config` with 'train.steps=600' and the like applied, typed as the keys are, `~` in paths
    expanded, and checked. A tuple may also be given item by item, its key repeated.

    Raises UserError, naming the key: an unknown one with the nearest right name, a wrong type, what breaks `rules`.
    """
    config, given = config.copy_and_resolve_references(), {}
    for override in overrides:
        given.setdefault(override.partition('=')[0], []).append(f'--config.{override}')
    for key, arguments in given.items():
        _check_key(config, key)
        values, argv = flags.FlagValues(), ['config', *arguments]
        try:
            config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=argv)
            values(argv)
        except (flags.Error, TypeError, ValueError) as error:
            kind = type(rules.value_of(config, key))
            raise UserError(f"config.{key}: expected {KINDS.get(kind, kind.__name__)}, got "
                            f"'{arguments[-1].partition('=')[2]}'") from error
        config = values.config
    rules.check(config)
    with config.unlocked():
        for key in rules.PATHS:
            *section, name = key.split('.')
            folder = rules.value_of(config, '.'.join(section))
            folder[name] = os.path.expanduser(folder[name])
    return config.lock()


def _check_key(config: ConfigDict, key: str) -> None:
    """Raises UserError unless `key` is one that holds a value."""
    section, done = config, 'config'
    for name in key.split('.'):
        if not isinstance(section, ConfigDict) or name not in section:
            known = section.keys() if isinstance(section, ConfigDict) else ()
            raise UserError(f"config.{key}: {done} has no key '{name}'{hint(name, known)}")
        section, done = section[name], f'{done}.{name}'
    if isinstance(section, ConfigDict):
        raise UserError(f'config.{key} is a section: override its keys, as in --config.{key}.{next(iter(section))}=...')


def flat(config: ConfigDict) -> dict:
    """'train.steps' -> value of every key, in the config's order."""
    from flax.traverse_util import flatten_dict  # takes a second, which a command's --help need not wait for
    return flatten_dict(config.to_dict(), sep='.')


def to_json(config: ConfigDict) -> str:
    return json.dumps(config.to_dict(), indent=1)


def from_json(text: str) -> ConfigDict:
    """Inverse of `to_json`: lists come back as tuples, as configs hold them."""
    def tuples(v):
        if isinstance(v, dict):
            return {k: tuples(x) for k, x in v.items()}
        return tuple(tuples(x) for x in v) if isinstance(v, list) else v
    return ConfigDict(tuples(json.loads(text))).lock()


def from_earlier(stored: dict) -> tuple[ConfigDict, list[str]]:
    """(locked config, keys taken from configs/base.py) of what `to_json` wrote, perhaps before those keys were there.

    Raises UserError, naming the key, for what breaks `rules`. A key that is missing in a section with one that nobody
    knows counts as renamed, not as new, and is refused too.
    """
    config = from_json(json.dumps(stored))
    given = set(flat(config))
    renamed = {key.rpartition('.')[0] for key in given - set(rules.RULES)}
    new = [key for key in rules.RULES if key not in given and key.rpartition('.')[0] not in renamed]
    base, whole = load('base') if new else None, config.to_dict()
    for key in new:
        *sections, name = key.split('.')
        section = whole
        for step in sections:
            section = section.setdefault(step, {}) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[name] = rules.value_of(base, key)
    config = from_json(json.dumps(whole))
    rules.check(config)
    return config, new
