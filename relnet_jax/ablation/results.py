"""The result file of one run and one seed, and the rule which files may stand in one table.

DIR/results/RUN_sSEED.json holds: run, seed, data; `overrides` given on the command line; `settings`, the flat config of
the plain run `REFERENCE` under the same data and overrides, which is what all files of a table share; `delta`, the keys
in which this run differs from it; `config_hash` of both together; steps, metrics and per-class AP50 in 0..1 (null =
not defined), the same metrics at other numbers of test boxes, the data set and the post-processing; seconds, machine,
versions, date and command.
"""
import datetime
import functools
import hashlib
import json
import os
import platform
from pathlib import Path

import flax
import jax
import numpy as np
import optax
from ml_collections import ConfigDict

import relnet_jax
from relnet_jax import config as config_lib
from relnet_jax import files
from relnet_jax.errors import UserError
from relnet_jax.runs import checkpoint

REFERENCE = 'base'
METRICS = ('box_AP', 'box_AP50', 'mask_AP50', 'voc_AP_0.01', 'voc_AP_0.50')
NOT_COMPARED = (*checkpoint.HARMLESS, 'seed', 'test.batch_size')   # no influence on results, or the seed itself
DATA_SET = ('data_set', 'images', 'objects')
KEYS = ('run', 'seed', 'data', 'overrides', 'settings', 'delta', 'config_hash', 'steps', 'metrics', 'per_class_AP50',
        'boxes', 'about', 'seconds', 'resumed_at_step', 'machine', 'date', 'command')
FOLDS = 'folds'     # a further key of cross-validated runs: how many trainings stand behind the result


class ResultError(UserError):
    """A result file is damaged, or does not belong to the others."""


def flat(config: ConfigDict) -> dict:
    """Key path -> JSON value of every key that may change a result."""
    found = json.loads(json.dumps(config_lib.flat(config)))
    return {key: value for key, value in found.items() if key not in NOT_COMPARED}


def describe_config(config: ConfigDict, reference: ConfigDict) -> dict:
    """`settings`, `delta` and `config_hash` of a run's config beside that of the plain run."""
    mine, settings = flat(config), flat(reference)
    delta = {key: mine.get(key) for key in sorted(mine.keys() | settings.keys()) if mine.get(key) != settings.get(key)}
    text = json.dumps(mine, sort_keys=True)
    return dict(settings=settings, delta=delta, config_hash=hashlib.sha256(text.encode()).hexdigest()[:12])


def complete(settings: dict) -> dict:
    """A flat config that an earlier version may have written: keys that it lacks are as in configs/base.py."""
    return _base() | settings


@functools.cache
def _base() -> dict:
    return flat(config_lib.load('base'))


def differences(expected: dict, got: dict) -> list[str]:
    """Lines 'train.steps: expected 600, got 300' for the keys in which two flat configs differ."""
    return [f'{key}: expected {json.dumps(expected.get(key))}, got {json.dumps(got.get(key))}'
            for key in sorted(expected.keys() | got.keys()) if expected.get(key) != got.get(key)]


def run_config(result: dict) -> dict:
    """The flat config of a result's run, `complete`."""
    return complete(result['settings'] | result['delta'])


def machine() -> dict:
    """What the numbers were made on: processor, cores, devices and versions. Names no host."""
    model = platform.processor() or platform.machine()
    info = Path('/proc/cpuinfo')
    if info.is_file():
        names = [line.partition(':')[2].strip() for line in info.read_text(encoding='utf-8').splitlines()
                 if line.startswith('model name')]
        model = names[0] if names else model
    devices = jax.devices()
    return dict(processor=model, cores=os.cpu_count(), devices=f'{len(devices)} x {devices[0].device_kind}',
                system=platform.system(), python=platform.python_version(), jax=jax.__version__, flax=flax.__version__,
                optax=optax.__version__, numpy=np.__version__, relnet_jax=relnet_jax.__version__)


def now() -> str:
    """Date and time in UTC, to the minute."""
    return datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d %H:%M UTC')


def run_name(run: str, seed: int | str) -> str:
    """What a run with its seed is called in files, folders and messages."""
    return f'{run}_s{seed}'


def file_of(out: str | Path, run: str, seed: int) -> Path:
    return file_named(out, run_name(run, seed))


def file_named(out: str | Path, name: str) -> Path:
    """`name`: as of `run_name`."""
    return Path(out) / 'results' / f'{name}.json'


def write(path: Path, result: dict) -> None:
    """Writes at once, NaN as null."""
    if missing := [k for k in KEYS if k not in result]:
        raise ResultError(f'{path}: the result lacks {", ".join(missing)}')
    lines = [f'{json.dumps(key)}: {files.to_json(result[key])}' for key in (*KEYS, *[FOLDS] * (FOLDS in result))]
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, '{\n' + ',\n'.join(lines) + '\n}\n')    # a key a line: short, and git shows what changed


def read(path: Path) -> dict:
    """Raises ResultError for a file that is not a result, or that is called after another run or seed."""
    try:
        result = files.read_json(path)
    except json.JSONDecodeError as error:
        raise ResultError(f'{path}: not JSON: {error}') from error
    missing = [k for k in KEYS if not isinstance(result, dict) or k not in result]
    if missing:
        raise ResultError(f'{path}: not a result file, it lacks {", ".join(missing)}')
    name = run_name(result['run'], result['seed'])
    if path.stem != name:
        raise ResultError(f'{path}: expected the result of {path.stem}, got {name}')
    return result


def read_all(out: str | Path) -> list[dict]:
    """All results under `out`, ordered by run and seed. Raises ResultError as `read` and `check_comparable` do."""
    found = [read(path) for path in sorted((Path(out) / 'results').glob('*.json'))]
    found.sort(key=lambda r: (r['run'], r['seed']))
    check_comparable(found)
    return found


def check_comparable(found: list[dict]) -> None:
    """Raises ResultError, naming the difference, unless all share their settings and each run its config.

    `found`: results, or what is known of them before they ran (`settings`, `delta`, `config_hash`, `data`, run, seed).
    """
    runs, data_set = {}, None
    for r in found:
        first = found[0]
        wrong = differences(*({'data': x['data'], FOLDS: x.get(FOLDS, 1)} | complete(x['settings'])
                              for x in (first, r)))
        if not wrong:
            first = runs.setdefault(r['run'], r)
            wrong = differences(*(run_config(x) for x in (first, r)))
        if not wrong and 'about' in r and not any(key.startswith('data.') for key in r['delta']):
            first = data_set = data_set or r    # the files may have changed, though their names did not
            wrong = differences(*({key: x['about'][key] for key in DATA_SET} for x in (first, r)))
        if wrong:
            raise ResultError(
                f"{run_name(r['run'], r['seed'])} and {run_name(first['run'], first['seed'])} have different settings "
                'and cannot stand in one table:\n  ' + '\n  '.join(wrong)
            )
