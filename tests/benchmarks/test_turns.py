"""Benchmarks: workers take turns, and every benchmark can at least be imported."""
import importlib
import sys
from pathlib import Path

import pytest

from benchmarks.turns import Worker, in_turns

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'
WORKER = '''
import json, sys, time
sys.path.insert(0, {folder!r})
from turns import serve
job = json.loads(sys.argv[1])
def work(name):
    with open(job['log'], 'a') as log:
        print(job['side'], name, file=log)
    time.sleep(job['seconds'])
serve({{name: lambda name=name: work(name) for name in job['names']}}, dict(side=job['side']))
'''


@pytest.fixture
def start(tmp_path):
    script = tmp_path / 'worker.py'
    script.write_text(WORKER.format(folder=str(BENCHMARKS)))
    return lambda side, names, seconds=0.0: Worker([sys.executable, str(script)], dict(
        side=side, names=names, seconds=seconds, log=str(tmp_path / 'log')))


def test_workers_take_turns_and_the_best_round_counts_but_not_the_first(start, tmp_path):
    workers = {'a': start('a', ['x', 'y'], 0.01), 'b': start('b', ['x'])}
    found = in_turns(workers, ['x', 'y'], rounds=2)
    for worker in workers.values():
        worker.stop()
    assert (tmp_path / 'log').read_text().splitlines() == ['a x', 'b x'] * 3 + ['a y'] * 3
    assert set(found['a']) == {'x', 'y'} and set(found['b']) == {'x'}
    assert found['a']['x']['wall'] >= 0.01 > found['b']['x']['wall']
    assert found['a']['x']['cpu'] < 0.01 and found['a']['x']['peak_gib'] > 0


def test_a_worker_that_ends_is_an_error_with_its_exit_code():
    with pytest.raises(RuntimeError, match='exit code 3'):
        Worker([sys.executable, '-c', 'raise SystemExit(3)'], {})


@pytest.mark.parametrize('name', sorted(path.stem for path in BENCHMARKS.glob('*.py')))
def test_every_benchmark_imports(name):
    if name in ('torchvision_side', 'detector_torchvision', 'golden_convnext'):     # run by a Python that has torch
        compile((BENCHMARKS / f'{name}.py').read_text(), name, 'exec')
    else:
        importlib.import_module(f'benchmarks.{name}')
