"""What a run's log says in words, and that the files its last lines name are there."""
import datetime
import json
import re
from pathlib import Path

import jax
import pytest

from configs import phantom
from relnet_jax import train
from relnet_jax.data.source import Source
from relnet_jax.models import mask_rcnn
from relnet_jax.training import story
from tests.training import standin

NOON = datetime.datetime(2026, 11, 27, 12, 0)


def images(name, count, *, objects=None, parts=('Heart',)):
    """A source that was read, or made if `objects` is None, whose objects cannot be counted then."""
    return Source(name=name, classes=('Mass', 'Nodule'), category_ids=(1, 2), parts=parts, records=[{}] * count,
                  load=None, ground_truth=lambda: dict(annotations=[{}] * objects),
                  counts={} if objects is None else {'objects': 99})


@pytest.mark.parametrize('train_set, val_set, expected', [
    (images('a.json', 20, objects=31), images('b.json', 5, objects=7), [
        'data: 20 images with 31 objects to train on (a.json), 5 images with 7 objects to measure on (b.json)',
        '2 classes to find: Mass, Nodule; 1 anatomical parts: Heart']),
    (images('made', 20, parts=()), images('none', 0, parts=()), [
        'data: 20 images to train on (made), none to measure on', '2 classes to find: Mass, Nodule'])])
def test_the_data_are_told_in_words(train_set, val_set, expected):
    assert story.data_lines(train_set, val_set) == expected


def test_the_model_is_told_with_what_it_finds_its_size_and_its_learning_rate():
    config = phantom.get_config()
    params = {name: dict(kernel=jax.ShapeDtypeStruct((count,), 'float32'))
              for name, count in (('box_head', 500_000), ('fpn', 1_190_000))}
    with config.unlocked():
        config.train.learning_rate, config.train.batch_size, config.train.base_batch_size = 0.01, 8, 4
    model, rate = story.model_lines(config, params)
    assert model == ('model: backbone tiny, neck fpn, boxes and masks, no relations; 1.69 M parameters, all of them '
                     'trained')
    assert rate == 'learning rate 0.02 = 0.01 x batch size 8 / 4'
    with config.unlocked():
        config.model.mask_head, config.model.relations, config.train.freeze = False, ('part', 'context'), ('fpn/',)
    assert story.model_lines(config, params)[0] == (
        'model: backbone tiny, neck fpn, boxes alone, relations part, context; 1.69 M parameters, 0.50 M of them '
        'trained')


def test_the_time_is_told_once_steps_are_timed():
    assert story.time_line(0.15, left=1180, now=NOON) == (
        'a step takes 0.15 s, so the 1180 steps left take about 3 minutes, until 12:02; evaluation comes on top')
    assert 'about 1.5 days, until 2026-11-29 00:00' in story.time_line(1.0, left=129_600, now=NOON)


@pytest.mark.parametrize('seconds, words', [(0.2, '0 seconds'), (1, '1 second'), (59, '59 seconds'), (60, '1 minute'),
                                            (5400, '1.5 hours'), (3600, '1 hour'), (86_400 * 12.3, '12 days')])
def test_times_are_told_in_their_largest_unit(seconds, words):
    assert story.in_words(seconds) == words


def test_a_step_is_one_line_on_a_terminal():
    values = dict(loss=1.43, loss_cls=0.4514, loss_bbox=0.46, loss_mask=0.474, seconds_per_step=0.154,
                  images_per_second=25.97)
    assert story.step_line(values, step=120, steps=1200) == (
        'step 120 of 1200: loss 1.430 (classes 0.451, boxes 0.460, masks 0.474), 26.0 images/s, 0:02:46 left')


def test_the_last_line_says_what_to_open_and_what_to_try_and_all_it_names_is_there(tmp_path, monkeypatch, caplog):
    """A whole run by the command, with the stand-in model."""
    monkeypatch.setattr(mask_rcnn, 'build', standin.build)
    monkeypatch.chdir(tmp_path)
    changes = {'canvas': '(64,64)', 'scale': 64, 'max_size': 64, 'threads': 0, 'phantom.size': 64,
               'phantom.train_images': 8, 'phantom.val_images': 3}
    with caplog.at_level('INFO', logger='absl'):
        assert train.main(['--workdir=my runs/a', *(f'--config.data.{key}={value}' for key, value in changes.items()),
                           '--config.train.steps=2', '--config.train.batch_size=2', '--config.train.log_every=1']) == 0
    found, written, again, last = caplog.messages[-4:]
    about = json.loads(Path('my runs/a/eval/metrics.json').read_text())['about']
    assert re.fullmatch(r'found in 3 validation images with \d+ objects, all synthetic: box AP50 \d.*', found)
    assert f"{about['objects']} objects" in found
    assert last == ("open my runs/a/eval/report.html; try next: python -m relnet_jax.predict --ckpt='my runs/a' "
                    '--images=FILM --out=found, or your own data (docs/usage.md)')
    assert Path('my runs/a/eval/report.html').read_text().startswith('<!')
    assert len(list(Path('my runs/a/eval/overlays').iterdir())) == 3
    assert again.endswith("python -m relnet_jax.eval --ckpt='my runs/a'")
    for name in ('checkpoints', 'metrics.jsonl', 'tensorboard', 'eval/detections.json'):
        assert name.split('/')[-1] in written and Path('my runs/a', name).exists(), name
    assert (Path(story.__file__).parents[2] / story.USAGE).exists()


def test_a_run_that_measured_nothing_says_so(tmp_path):
    *_, last = story.ending(tmp_path)
    assert last.startswith('no validation images') and f'--ckpt={tmp_path}' in last


def test_found_numbers_are_told_with_their_intervals():
    metrics = dict(box_AP50=0.8029, mask_AP50=None, box_AP=0.5, intervals=dict(box_AP50=[0.742, 0.849]))
    assert story.found_line(dict(images=200, objects=539, synthetic=False), metrics) == (
        'found in 200 validation images with 539 objects: box AP50 80.3 (95 % interval 74.2 to 84.9), mask AP50 not '
        'defined')
