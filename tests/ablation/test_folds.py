"""Cross-validation by the command, with the stand-in model, on twelve films of six patients."""
import json

import cv2
import numpy as np
import pytest

from relnet_jax import ablate
from relnet_jax.ablation import folds, results, runner
from relnet_jax.data import pipeline
from relnet_jax.models import mask_rcnn
from tests.training import standin

FAMILY = '''
from types import SimpleNamespace

from tests.training import standin

RUNS = dict(base=SimpleNamespace(description='plain', section='', map50='', map1=''),
            other=SimpleNamespace(description='changed', section='', map50='', map1=''))

def get_config(run):
    c = standin.small_config()
    c.name, c.data.format, c.data.threads = run, 'coco', 0
    c.data.split.by = 'patient'
    c.train.steps, c.train.checkpoint_every, c.train.eval_every, c.test.batch_size = 2, 1, 0, 2
    if run == 'other':
        c.model.box_dropout = 0.25
    return c
'''


@pytest.fixture
def family(tmp_path, monkeypatch):
    """Arguments that name the config file and the data."""
    monkeypatch.setattr(mask_rcnn, 'build', lambda config, num_classes, **_: standin.Standin(num_classes=num_classes))
    rng = np.random.default_rng(0)
    for i in range(1, 13):
        cv2.imwrite(str(tmp_path / f'{i}.png'), rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    (tmp_path / 'set.json').write_text(json.dumps(dict(
        images=[dict(id=i, file_name=f'{i}.png', width=64, height=64, patient=f'p{i % 6}', mm_per_pixel=1,
                     half=i // 7) for i in range(1, 13)],
        annotations=[dict(id=i, image_id=i, category_id=1 + i % 2, bbox=[8, 8, 20, 20]) for i in range(1, 13)],
        categories=[dict(id=1, name='Nodule'), dict(id=2, name='Mass')])))
    (tmp_path / 'family.py').write_text(FAMILY)
    return [f'--config={tmp_path}/family.py', f'--config.data.train.annotations={tmp_path}/set.json',
            f'--config.data.train.images={tmp_path}']


def watch(monkeypatch, tell):
    """What `tell` says of the config of every training that is started."""
    started, real = [], runner.train

    def train(config, workdir):
        started.append(tell(config))
        return real(config, workdir)
    monkeypatch.setattr(runner, 'train', train)
    return started


@pytest.fixture
def trained(monkeypatch):
    """The (name, seed, fold) of every training that was started."""
    return watch(monkeypatch, lambda config: (config.name, config.seed, config.data.split.hold_out))


def command(family, out, *more, runs='base', count=3):
    return ablate.main([*family, f'--runs={runs}', f'--folds={count}', '--seeds=1', f'--out={out}', *more])


def test_every_film_is_measured_by_the_fold_that_did_not_see_it(family, tmp_path, trained):
    out = tmp_path / 'out'
    assert command(family, out, runs='base,other') == 0
    assert trained == [(run, 0, fold) for run in ('base', 'other') for fold in range(3)]
    work = out / 'runs' / 'base_s0'
    held = [json.loads((work / f'fold_{fold}' / 'eval' / 'ground_truth.json').read_text()) for fold in range(3)]
    patients = [{image['patient'] for image in truth['images']} for truth in held]
    assert [len(p) for p in patients] == [2, 2, 2] and len(set().union(*patients)) == 6
    truth = json.loads((work / 'eval' / 'ground_truth.json').read_text())
    assert [image['id'] for image in truth['images']] == list(range(1, 13)) and len(truth['annotations']) == 12
    pooled = json.loads((work / 'eval' / 'detections.json').read_text())
    parts = [json.loads((work / f'fold_{fold}' / 'eval' / 'detections.json').read_text()) for fold in range(3)]
    assert pooled and sorted(map(str, pooled)) == sorted(str(r) for part in parts for r in part)

    base, other = results.read_all(out)
    assert base['folds'] == 3 and base['steps'] == 2 and base['about']['images'] == 12
    evaluated = json.loads((work / 'eval' / 'metrics.json').read_text())['metrics']
    assert base['metrics'] == {m: evaluated.get(m) for m in results.METRICS}
    assert other['delta'] == {'model.box_dropout': 0.25} and other['data'] == 'family'
    table = json.loads((out / 'patients.json').read_text())
    assert table['base']['patients'] == 6 and table['other']['control'] == 'base'
    assert table['base']['metrics']['nodule_22mm_4']['mean'] == evaluated['nodule_22mm_4']
    same = json.loads((out / 'runs' / 'other_s0' / 'eval' / 'metrics.json').read_text())['metrics']
    for name, difference in table['other']['differences'].items():      # undefined ones are null
        if difference['mean'] is not None:
            assert difference['mean'] == pytest.approx(same[name] - evaluated[name])
    assert '`nodule_radius_0.5`' in (out / 'patients.md').read_text()
    assert (work / 'eval' / 'report.html').exists()
    text = (out / 'table.md').read_text()
    assert '| `other` | changed |' in text and 'lab mAP' not in text and 'The lab' not in text


def test_a_fold_starts_from_the_same_fold_of_another_run(family, tmp_path, monkeypatch):
    out, real, begun = tmp_path / 'out', runner.train, []
    assert command(family, out) == 0

    def train(config, workdir):
        begun.append(config.train.init_from)
        return real(config, workdir)
    monkeypatch.setattr(runner, 'train', train)
    assert command(family, tmp_path / 'tuned', f'--config.train.init_from={out}/runs/base_s0/fold_{{fold}}') == 0
    assert begun == [str(folds.folder_of(out / 'runs' / 'base_s0', fold)) for fold in range(3)]


def test_a_finished_fold_is_not_trained_again(family, tmp_path, trained, monkeypatch, caplog):
    out, real = tmp_path / 'out', runner.run_once
    monkeypatch.setattr(runner, 'run_once', lambda config, workdir: real(config, workdir)
                        if config.data.split.hold_out < 2 else None)     # as if a signal had come
    assert command(family, out) == 1 and not results.read_all(out)
    monkeypatch.setattr(runner, 'run_once', real)
    trained.clear()
    with caplog.at_level('INFO', logger='absl'):
        assert command(family, out) == 0
    assert trained == [('base', 0, 2)] and results.read_all(out)[0]['folds'] == 3
    assert 'base_s0, fold 3 of 3; time left: 0:' in caplog.text
    trained.clear()
    assert command(family, out) == 0 and not trained


def test_processes_share_the_folds_of_a_run(family, tmp_path, trained, monkeypatch, caplog):
    out, real, joined = tmp_path / 'out', runner.run_once, []

    def run_once(config, workdir):
        found = real(config, workdir)
        if not joined:      # while the first fold is this process's, another joins and does the rest
            joined.append(None)
            joined[0] = command(family, out)
        return found
    monkeypatch.setattr(runner, 'run_once', run_once)
    with caplog.at_level('INFO', logger='absl'):
        assert command(family, out) == 0
    assert joined == [0] and sorted(trained) == [('base', 0, fold) for fold in range(3)]
    assert caplog.text.count('base_s0_fold_0: another process has it') == 1
    assert results.read_all(out)[0]['folds'] == 3


def test_folds_of_another_config_are_not_pooled(family, tmp_path, capsys):
    out = tmp_path / 'out'
    assert command(family, out) == 0
    results.file_of(out, 'base', 0).unlink()
    assert command(family, out, '--config.train.momentum=0.5') == 2
    assert 'train.momentum: expected 0.5, got 0.9' in capsys.readouterr().err and not results.read_all(out)


def test_folds_that_do_not_hold_out_every_film_are_refused(family, tmp_path, capsys):
    out = tmp_path / 'out'
    assert command(family, out) == 0
    results.file_of(out, 'base', 0).unlink()
    path = folds.folder_of(out / 'runs' / 'base_s0', 1) / 'eval' / 'ground_truth.json'
    truth = json.loads(path.read_text())
    path.write_text(json.dumps(truth | dict(images=truth['images'][1:])))
    assert command(family, out) == 2
    assert 'hold out 11 images, 11 different ones, expected each of the 12' in capsys.readouterr().err


def test_a_subset_is_trained_on_and_every_film_is_measured(family, tmp_path, monkeypatch):
    sizes = watch(monkeypatch, lambda config: [len(source) for source in pipeline.open_sources(config)])
    assert command(family, tmp_path / 'out', '--config.data.subset=half=1') == 0
    assert sizes == [[4, 4]] * 3
    truth = json.loads((tmp_path / 'out' / 'runs' / 'base_s0' / 'eval' / 'ground_truth.json').read_text())
    assert len(truth['images']) == 12


def test_crossed_and_plain_results_do_not_stand_in_one_table(family, tmp_path, capsys, trained):
    out = tmp_path / 'out'
    assert command(family, out) == 0
    trained.clear()
    assert command(family, out, '--config.data.split.folds=3', runs='other', count=1) == 2
    assert 'folds: expected 3, got 1' in capsys.readouterr().err and not trained


@pytest.mark.parametrize('more, said', [
    (['--boxes=9'], '--folds does not go with --boxes'), (['--data=phantom'], 'only configs/lab.py has a choice'),
    (['--config=configs/rsna.py'], 'has no RUNS'),
    (['--config.data.val.annotations=x.json'], 'expected no validation data of their own')])
def test_what_does_not_go_with_folds_ends_with_one_line(family, tmp_path, capsys, trained, more, said):
    assert command(family, tmp_path / 'out', *more) == 2
    assert said in capsys.readouterr().err and not trained
