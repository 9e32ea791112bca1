"""The command, with the stand-in model and two made-up runs instead of configs/lab.py."""
import json
import os
import signal

import pytest

from relnet_jax import ablate
from relnet_jax.ablation import jobs, results, runner, side_by_side
from relnet_jax.ablation.table import LabRun
from relnet_jax.errors import UserError
from relnet_jax.models import mask_rcnn
from relnet_jax.training import loop
from relnet_jax.training.window import NonFiniteLoss
from tests.training import standin

LAB = '''
from tests.training import standin

def get_config(argument):
    run, data = argument.split(',')
    c = standin.small_config()
    assert data == 'data=phantom'
    c.name = run
    c.data.format, c.data.threads = 'phantom', 0
    c.data.phantom.size, c.data.phantom.train_images, c.data.phantom.val_images = 64, 4, 2
    c.train.steps, c.train.checkpoint_every, c.train.eval_every, c.test.batch_size = 2, 1, 0, 2
    if run == 'other':
        c.model.box_dropout = 0.25
    if run == 'tuned':
        c.train.phases = (dict(name='base', steps=1, plain=True), dict(name='still', steps=1, lr_factor=0.0))
    return c
'''


@pytest.fixture(autouse=True)
def lab(tmp_path, monkeypatch):
    path = tmp_path / 'lab.py'
    path.write_text(LAB)
    monkeypatch.setattr(ablate, 'LAB', str(path))
    monkeypatch.setattr(ablate, 'lab_texts',
                        lambda family: {'base': LabRun('plain', 'F', '12.3'), 'other': LabRun('changed', 'E')})
    monkeypatch.setattr(mask_rcnn, 'build', lambda config, num_classes, **_: standin.Standin(num_classes=num_classes))


@pytest.fixture
def trained(monkeypatch):
    """The (name, seed) of every training that was started."""
    started, real = [], runner.train

    def train(config, workdir):
        started.append((config.name, config.seed))
        return real(config, workdir)
    monkeypatch.setattr(runner, 'train', train)
    return started


def command(out, *more, runs='base,other', seeds=1):
    return ablate.main([f'--runs={runs}', f'--seeds={seeds}', f'--out={out}', *more])


def test_every_run_leaves_a_result_and_the_table_is_written(tmp_path, trained):
    out = tmp_path / 'out'
    assert command(out, '--config.train.log_every=1', seeds=2) == 0
    assert trained == [('base', 0), ('other', 0), ('base', 1), ('other', 1)]
    found = results.read_all(out)
    assert [(r['run'], r['seed'], r['steps']) for r in found] == [('base', 0, 2), ('base', 1, 2), ('other', 0, 2),
                                                                  ('other', 1, 2)]
    r = found[2]
    assert r['delta'] == {'model.box_dropout': 0.25} and r['overrides'] == ['train.log_every=1']
    assert r['about']['images'] == 2 and r['seconds'] > 0 and r['resumed_at_step'] == 0
    assert r['metrics']['box_AP50'] is not None and r['command'].startswith('python -m relnet_jax.ablate --runs=base,')
    evaluated = json.loads((out / 'runs' / 'other_s0' / 'eval' / 'metrics.json').read_text())['metrics']
    assert r['metrics'] == {m: evaluated.get(m) for m in results.METRICS}
    assert r['per_class_AP50'] == {name: v['box_AP50'] for name, v in evaluated['per_class'].items()}
    assert all((out / f'table.{suffix}').stat().st_size > 100 for suffix in ('md', 'csv', 'json', 'png'))
    assert '| `other` | changed | 2 | 2 |' in (out / 'table.md').read_text()


def test_what_is_done_is_skipped_and_the_table_grows(tmp_path, trained):
    out = tmp_path / 'out'
    command(out, runs='base')
    before = results.file_of(out, 'base', 0).read_bytes()
    trained.clear()
    assert command(out, seeds=2) == 0
    assert trained == [('other', 0), ('base', 1), ('other', 1)]
    assert results.file_of(out, 'base', 0).read_bytes() == before


def test_other_settings_are_refused_before_anything_runs(tmp_path, trained, capsys):
    out = tmp_path / 'out'
    command(out, runs='base')
    trained.clear()
    assert command(out, '--config.train.steps=3') == 2
    assert 'train.steps: expected 2, got 3' in capsys.readouterr().err and not trained


def test_a_run_that_another_process_has_is_left_to_it(tmp_path, trained, caplog):
    with side_by_side.claim(tmp_path, 'base_s0') as ours:
        assert ours and command(tmp_path) == 0
    assert trained == [('other', 0)]


def test_a_run_waits_for_the_one_that_it_starts_from(tmp_path, trained, monkeypatch):
    waited = []

    def finish(seconds):        # the other process, which trains base meanwhile
        if seconds != side_by_side.WAIT:
            return
        held.__exit__(None, None, None)
        waited.append(list(trained))
        assert command(tmp_path, runs='base') == 0
    held = side_by_side.claim(tmp_path, 'base_s0')
    held.__enter__()
    monkeypatch.setattr(ablate.time, 'sleep', finish)
    assert command(tmp_path, '--share_plain', runs='base,tuned') == 0
    assert waited == [[]] and trained == [('base', 0), ('tuned', 0)]


def test_runs_may_share_what_they_begin_with(tmp_path, trained, capsys):
    out = tmp_path / 'out'
    assert command(out, '--share_plain', runs='tuned,base') == 2
    assert 'tuned with seed 0 starts from base, which is not before it in --runs' in capsys.readouterr().err
    assert not trained
    assert command(out, '--share_plain', runs='base,tuned', seeds=2) == 0
    assert trained == [('base', 0), ('tuned', 0), ('base', 1), ('tuned', 1)]
    found = results.read_all(out)
    assert [r['steps'] for r in found] == [2, 2, 2, 2] and found[2]['metrics'] == found[0]['metrics']    # of rate 0
    assert found[2]['delta']['train.plain_from'] == found[3]['delta']['train.plain_from'] == str(
        out / 'runs' / 'base_s{seed}')
    assert command(out, '--share_plain', runs='tuned', seeds=2) == 0 and len(trained) == 4
    assert command(tmp_path / 'alone', runs='tuned') == 0
    assert results.read_all(tmp_path / 'alone')[0]['steps'] == 4        # both phases of two steps


def test_a_stopped_run_goes_on_from_its_checkpoint(tmp_path, trained, monkeypatch):
    out, real = tmp_path / 'out', loop.pipeline.train_batches

    def batches(*args, **kwargs):
        for i, batch in enumerate(real(*args, **kwargs)):
            if i == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch
    monkeypatch.setattr(loop.pipeline, 'train_batches', batches)
    steps = '--config.train.steps=4'
    assert command(out, steps) == 1
    assert trained == [('base', 0)] and not results.read_all(out)
    monkeypatch.setattr(loop.pipeline, 'train_batches', real)
    assert command(out, steps) == 0
    base, other = results.read_all(out)
    assert base['resumed_at_step'] == 3 and other['resumed_at_step'] == 0 and base['steps'] == other['steps'] == 4


def test_a_checkpoint_of_another_config_is_not_gone_on_with(tmp_path, capsys):
    out = tmp_path / 'out'
    command(out, runs='base')
    results.file_of(out, 'base', 0).unlink()
    assert command(out, '--config.train.momentum=0.5', runs='base') == 2
    assert 'train.momentum: 0.9 -> 0.5' in capsys.readouterr().err and not results.read_all(out)


def test_a_loss_that_is_not_finite_stops_only_what_starts_from_that_run(tmp_path, monkeypatch, caplog):
    real = runner.train

    def train(config, workdir):
        if config.name == 'base':
            raise NonFiniteLoss('step 1')
        return real(config, workdir)
    monkeypatch.setattr(runner, 'train', train)
    assert command(tmp_path / 'out') == 1
    assert 'base_s0 is passed over: step 1' in caplog.text and 'not finished: base_s0' in caplog.text
    assert [r['run'] for r in results.read_all(tmp_path / 'out')] == ['other']
    assert command(tmp_path / 'shared', '--share_plain', runs='base,tuned,other') == 1
    assert 'tuned_s0 is passed over: base_s0, which it starts from, is not finished' in caplog.text
    assert [r['run'] for r in results.read_all(tmp_path / 'shared')] == ['other']


def test_a_checkpoint_is_evaluated_at_other_numbers_of_boxes_later_too(tmp_path, trained, caplog):
    out = tmp_path / 'out'
    command(out, runs='base')
    own = results.read_all(out)[0]
    boxes = next(iter(own['boxes']))
    trained.clear()
    assert command(out, f'--boxes={boxes},7', '--no-keep_checkpoints', runs='base') == 0
    r = results.read_all(out)[0]
    assert not trained and set(r['boxes']) == {boxes, '7'} and r['metrics'] == own['metrics']
    assert r['boxes']['7'] == own['boxes'][boxes], 'the stand-in has no proposals'
    assert '| run | ' in (out / 'table.md').read_text() and 'number of test boxes' in (out / 'table.md').read_text()
    assert not (out / 'runs' / 'base_s0' / 'checkpoints').exists()
    assert command(out, '--boxes=9', runs='base') == 0
    assert 'no checkpoint left to evaluate at 9 test boxes' in caplog.text


def test_the_table_is_made_again_from_the_result_files_alone(tmp_path, trained):
    out = tmp_path / 'out'
    command(out, runs='base')
    trained.clear()
    (out / 'table.md').unlink()
    assert ablate.main(['--table_only', f'--out={out}', f'--docs={tmp_path}/docs.md']) == 0
    assert '`base`' in (out / 'table.md').read_text() and not trained
    assert '| `base` | plain | 12.3 |' in (tmp_path / 'docs.md').read_text()


def test_overrides_are_typed_and_wrong_ones_named(tmp_path):
    config = ablate.load_run('base', data='phantom', seed=4, overrides=['train.learning_rate=1', 'data.scale=96'])
    assert config.seed == 4 and config.train.learning_rate == 1.0 and config.data.scale == 96
    assert isinstance(config.train.learning_rate, float) and config.is_locked
    with pytest.raises(UserError, match="no key 'setps', did you mean 'steps'"):
        ablate.load_run('base', data='phantom', seed=0, overrides=['train.setps=1'])


@pytest.mark.parametrize('arguments, said', [
    (['--runs=base', '--sedes=2'], "no flag '--sedes', did you mean '--seeds'?"), ([], '--runs: expected names'),
    (['--runs=base', '--config.train.steps'], "config.train.steps: expected a whole number, got 'true'"),
    (['--runs=base', '--share_plain', '--no-keep_checkpoints'], 'needs the checkpoints')])
def test_wrong_arguments_end_with_one_clear_line(tmp_path, capsys, arguments, said):
    assert ablate.main([f'--out={tmp_path}', *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / 'runs').exists()


def test_the_time_left_follows_the_steps_that_are_left():
    def job(steps, done):
        config = ablate.load_run('base', data='phantom', seed=0, overrides=[f'train.steps={steps}'])
        return jobs.Job(config, {}, dict(seconds=120.0, steps=steps, resumed_at_step=0) if done else None)
    assert jobs.time_left([job(60, True), job(30, False), job(30, False)]) == '0:02:00'
    assert 'unknown' in jobs.time_left([job(60, False)])
