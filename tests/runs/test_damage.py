"""Damage to the newest of two steps: whatever happens to a file, training and evaluation end with the right numbers, or
with a line that names the file. All of it: python -m pytest -m slow tests/runs/test_damage.py -s
"""
import collections
import json
import logging
import random
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from relnet_jax.runs import checkpoint, manifest, step_folder
from relnet_jax.runs.checkpoint import CheckpointError
from relnet_jax.runs.state import TrainState
from tests.training.standin import small_config

TABLE = dict(classes=('mass', 'nodule'), category_ids=(3, 7), parts=('heart',))
KINDS = ('deleted', 'halved', 'emptied', 'one bit flipped')
READ_BY_EVAL = ('ema', 'config', 'classes')
FLIPS = 60


def state_at(step):
    """Arrays small enough for Orbax to keep among its names, and one that it writes to a file of its own."""
    rng = np.random.default_rng(step)
    params = {'head': {'kernel': rng.normal(size=(3, 3, 64, 32)).astype(np.float32),
                       'bias': rng.normal(size=32).astype(np.float32)}}
    ema = jax.tree.map(lambda p: p + 1, params)
    return TrainState(np.int32(step), np.uint32(0), params, jax.device_get(optax.trace(0.9).init(ema)), ema)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp('damage') / 'run', small_config()
    config.train.ema = 0.9
    with checkpoint.make_manager(folder, keep=2, best='box_AP50') as manager:
        for step in (1, 2):
            checkpoint.save(manager, state_at(step), config=config, class_table=TABLE, metrics=dict(box_AP50=0.5))
    return folder


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / 'run'))


def harm(file: Path, kind: str, seed: int):
    data = file.read_bytes()
    if kind == 'deleted':
        file.unlink()
    elif kind == 'one bit flipped':
        bit, harmed = random.Random(seed).randrange(len(data) * 8), bytearray(data)
        harmed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(harmed)
    else:
        file.write_bytes(data[:len(data) // 2] if kind == 'halved' else b'')


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def evaluation(run) -> str:
    """What eval.py reads: 'right', or what it was refused for."""
    try:
        assert checkpoint.read_config(run).train.ema == 0.9 and checkpoint.read_class_table(run) == TABLE
        assert same(checkpoint.load_params(run), state_at(2).ema), 'other numbers, silently'
        return 'right'
    except CheckpointError as error:
        return str(error)


def training(run) -> int:
    """The step that a run goes on from, with the numbers of that step, and which it can save after."""
    step_folder.set_aside_damaged(run)
    restored = checkpoint.restore_latest(run, state_at(9))
    assert same(restored, state_at(int(restored.step))), 'other numbers, silently'
    with checkpoint.make_manager(run, keep=2, best='box_AP50') as manager:
        checkpoint.save(manager, state_at(3), config=checkpoint.read_config(run), class_table=TABLE)
    assert checkpoint.steps(run)[-1] == 3
    return int(restored.step)


@pytest.mark.parametrize('every', [16, pytest.param(1, marks=pytest.mark.slow)])
def test_no_damage_is_silent_and_none_is_a_traceback(whole, tmp_path, caplog, every):
    newest = whole / 'checkpoints' / '2'
    names = sorted(path.relative_to(newest).as_posix() for path in newest.rglob('*') if path.is_file())
    big = [name for name in names if (newest / name).stat().st_size > 4096 and '/d/' in name]
    assert len(names) > 25 and len(big) >= 2
    cases = [(name, kind) for name in names for kind in KINDS] + [(big[i % len(big)], KINDS[-1]) for i in range(FLIPS)]
    counts = collections.Counter()
    for seed, (name, kind) in list(enumerate(cases))[::every]:
        run = Path(shutil.copytree(whole, tmp_path / str(seed)))
        harm(run / 'checkpoints' / '2' / name, kind, seed)
        item = name.split('/')[0] if '/' in name else ''
        said = evaluation(run)
        if item in READ_BY_EVAL or name == manifest.FILE:
            assert f"'{run}/checkpoints/2' is damaged: {name}" in said, (name, kind, said)
            assert said.endswith(f"; whole is '{run}/checkpoints/1'") and '\n' not in said
        else:
            assert said == 'right', (name, kind, said)
        caplog.clear()
        step = training(run)
        assert step == (1 if item or name == manifest.FILE else 2), (name, kind)
        if step == 1:
            assert (run / 'damaged' / '2').is_dir()
            assert f"step 2 is damaged and was moved to {run / 'damaged' / '2'}: {name}" in caplog.text
        counts.update([f'eval: {"right" if said == "right" else "refused"}', f'train: from step {step}'])
        shutil.rmtree(run)
    print(f'\n{len(cases[::every])} times: {dict(counts)}')


@pytest.mark.parametrize('item', ['ema', 'params', 'optimizer', 'classes', 'metrics', 'about'])
def test_an_item_that_is_gone_is_damage(run, item):
    """A run that keeps an average is never evaluated with the parameters themselves."""
    shutil.rmtree(run / 'checkpoints' / '2' / item)
    said = evaluation(run)
    assert said.startswith(f"'{run}/checkpoints/2' is damaged: {item}/") if item in READ_BY_EVAL else said == 'right'
    assert training(run) == 1


def test_a_second_damaged_step_of_the_same_number_gets_a_name_of_its_own(run):
    for _ in range(2):
        (run / 'checkpoints' / '2' / 'config' / 'metadata').unlink()
        step_folder.set_aside_damaged(run)
        shutil.copytree(run / 'checkpoints' / '1', run / 'checkpoints' / '2')
    assert sorted(path.name for path in (run / 'damaged').iterdir()) == ['2', '2-2']


def test_where_no_step_is_whole_nothing_is_moved_and_nothing_begins_anew(run):
    for step in '12':
        harm(run / 'checkpoints' / step / 'params' / '_METADATA', 'halved', 0)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="checkpoints/2' is damaged: params/_METADATA has .* bytes"):
            step_folder.set_aside_damaged(run)
    assert checkpoint.steps(run) == [1, 2]


@pytest.mark.parametrize('kind', KINDS)
def test_the_best_step_is_found_whatever_the_others_look_like(run, kind, caplog):
    for name in ('config/metadata', 'metrics/metrics', 'params/_METADATA', manifest.FILE):
        harm(run / 'checkpoints' / '2' / name, kind, 0)
    assert checkpoint.find(run / 'best') == run / 'checkpoints' / '1'
    assert 'left out in the search for the best step' in caplog.text


def test_odd_names_among_the_checkpoints_are_no_steps(run):
    for name in ('007', '-3', '1e3', '٣', '2.orbax-checkpoint-tmp', 'notes', '2 (copy)'):
        (run / 'checkpoints' / name).mkdir()
    (run / 'checkpoints' / '4').write_text('a file')
    assert checkpoint.steps(run) == [1, 2] and training(run) == 2


def test_a_later_format_is_named_not_set_aside(run):
    path = run / 'checkpoints' / '2' / manifest.FILE
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    for read in (checkpoint.read_config, step_folder.set_aside_damaged):
        with pytest.raises(CheckpointError, match='has the format 2 of a later version of relnet_jax; this one reads'):
            read(run)
    assert checkpoint.steps(run) == [1, 2]


# ---- checkpoints of before manifests ----
@pytest.fixture
def old(run):
    for step in '12':
        (run / 'checkpoints' / step / manifest.FILE).unlink()
        shutil.rmtree(run / 'checkpoints' / step / manifest.ABOUT)
    return run


def test_a_checkpoint_of_before_manifests_loads_and_says_that_it_cannot_be_sure(old, caplog):
    assert evaluation(old) == 'right' and 'is of a version without checksums' in caplog.text
    caplog.clear()
    assert training(old) == 2 and 'is of a version without checksums' in caplog.text


def test_an_average_that_is_gone_is_an_error_also_there(old):
    shutil.rmtree(old / 'checkpoints' / '2' / 'ema')
    assert 'is damaged: ema is missing, the average that config.train.ema asks for' in evaluation(old)


@pytest.mark.parametrize('name', ['config/metadata', 'classes/metadata', 'ema/_METADATA'])
@pytest.mark.parametrize('kind', KINDS[:3])
def test_what_orbax_cannot_read_there_is_one_line_too(old, name, kind):
    harm(old / 'checkpoints' / '2' / name, kind, 0)
    assert f"{name.split('/')[0]}' cannot be read: " in evaluation(old)


# ---- what was written, but should not be used ----
def rewritten(run, item, change):
    """Changes a JSON item of step 2 and seals it again, as if it had been written so."""
    folder = run / 'checkpoints' / '2'
    file = folder / item / 'metadata'
    value = json.loads(file.read_text())
    file.write_text(json.dumps(change(value) or value))
    manifest.seal(folder)


@pytest.mark.parametrize('change, said', [
    (lambda c: c['test'].update(boxes=10**12), 'config.test.boxes: expected a whole number from 1 to 100000, got 1000'),
    (lambda c: c['train'].update(optimizer='x'), 'config.train.optimizer: expected one of'),
    (lambda c: c.update(data=5), 'config.data.format is missing'),
    (lambda c: [c], 'expected a JSON object')])
def test_a_stored_config_is_checked_when_it_is_read(run, change, said):
    rewritten(run, 'config', change)
    with pytest.raises(CheckpointError, match=said):
        checkpoint.read_config(run)


def test_keys_that_a_version_did_not_have_are_as_in_base(run, caplog):
    caplog.set_level(logging.INFO, logger='absl')
    rewritten(run, 'config', lambda c: (c['train'].pop('allow_changed_data'), c['model'].pop('relation'))[:0])
    config = checkpoint.read_config(run)
    assert config.train.allow_changed_data is False and config.model.relation.region.kernel == 'relu'
    assert 'as in configs/base.py are ' in caplog.text and 'train.allow_changed_data' in caplog.text


@pytest.mark.parametrize('change', [
    dict(classes=['mass', 'mass']), dict(classes=[]), dict(classes='mass'), dict(category_ids=[1]),
    dict(category_ids=[1, 'x']), dict(parts=[3]), dict(graph=[[0.0, 1.0]]), dict(graph=[[0.0, 0.0, None]] * 3)])
def test_a_stored_class_table_is_checked_when_it_is_read(run, change):
    rewritten(run, 'classes', lambda table: table.update(change))
    with pytest.raises(CheckpointError, match=f'no class table: .*{next(iter(change))}'):
        checkpoint.read_class_table(run)


def test_parameters_that_are_not_finite_are_named(run):
    bad = state_at(4)
    bad.ema['head']['kernel'][0, 0, :3, 0] = np.nan
    with checkpoint.make_manager(run, keep=2, best='box_AP50') as manager:
        checkpoint.save(manager, bad, config=checkpoint.read_config(run), class_table=TABLE)
    with pytest.raises(CheckpointError, match='not finite, .*: head/kernel: 3 of 18432 numbers'):
        checkpoint.load_params(run)
