"""Configs as files: load `path.py[:argument]`, override single keys, write and read JSON. Wrong keys and types stop with a hint."""
import difflib
import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from absl import app
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict


def load(spec: str) -> ConfigDict:
    """The locked config of `path/to/file.py` or `path/to/file.py:argument` (handed to its get_config)."""
    path, _, argument = spec.partition(':')
    if not Path(path).is_file():
        near = difflib.get_close_matches(path, [str(p) for p in Path(path).parent.glob('*.py')], 1)
        raise FileNotFoundError(f"no config file '{path}'" + (f", did you mean '{near[0]}'?" if near else ''))
    module_spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    config = module.get_config(argument) if argument else module.get_config()
    return config.lock()


def to_json(config: ConfigDict) -> str:
    return json.dumps(config.to_dict(), indent=1)


def flat(config: ConfigDict) -> dict:
    """'train.steps' -> value of every key, in the config's order."""
    return flatten_dict(config.to_dict(), sep='.')


def from_json(text: str) -> ConfigDict:
    """Inverse of `to_json`: lists come back as tuples, as configs hold them."""
    def tuples(v):
        if isinstance(v, dict):
            return {k: tuples(x) for k, x in v.items()}
        return tuple(tuples(x) for x in v) if isinstance(v, list) else v
    return ConfigDict(tuples(json.loads(text))).lock()


@contextmanager
def short_errors() -> Iterator[None]:
    """Around flags that hold a config: a wrong key ends in one line with the nearest right name, not in a traceback."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        while error.args and isinstance(error.args[0], Exception):
            error = error.args[0]
        sys.exit(f"{Path(sys.argv[0]).name}: config: {' '.join(str(error.args[0]).split())}")


def parse_flags(argv: list[str]) -> list[str]:
    """For `app.run(main, flags_parser=parse_flags)`."""
    with short_errors():
        return app.parse_flags_with_usage(argv)
