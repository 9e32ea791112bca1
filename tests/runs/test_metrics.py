import json

import numpy as np
import pytest

from relnet_jax.runs import startup
from relnet_jax.runs.metrics import MetricWriter, progress_lines
from relnet_jax.training.window import NonFiniteLoss, Window


class Images:
    image_ids = [100, 101, 102, 103]


def read(tmp_path):
    return [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]


def test_a_run_that_goes_on_repeats_no_step(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in (2, 4, 6):
            writer.write(step, 'train', dict(loss=1.0))
        writer.write(6, 'val', dict(box_AP50=0.5))
    with open(tmp_path / 'metrics.jsonl', 'a') as f:
        f.write('{"step": 8, "spl')          # killed in the middle of a line
    with MetricWriter(tmp_path, step=4) as writer:
        writer.write(6, 'train', dict(loss=2.0))
    assert read(tmp_path) == [dict(step=2, split='train', loss=1.0), dict(step=4, split='train', loss=1.0),
                              dict(step=6, split='train', loss=2.0)]
    assert list((tmp_path / 'tensorboard').iterdir())


def test_undefined_numbers_are_null(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, 'val', dict(box_APs=float('nan'), box_AP=0.25))
    assert read(tmp_path) == [dict(step=1, split='val', box_APs=None, box_AP=0.25)]


def test_progress_reads_like_the_lab_log():
    values = dict(loss=0.492845, loss_cls=0.123262, loss_bbox=0.071099, loss_mask=0.242533, rpn_cls_p2=0.05,
                  rpn_cls_p3=0.00129, rpn_bbox_p2=0.03, rpn_bbox_p3=0.000185, rpn_cls=0.05129, rpn_bbox=0.030185,
                  accuracy_cls=0.956787,
                  lr=0.000038, grad_norm=1.5, seconds_per_step=1.324776, images_per_second=1.51, data_wait=0.02)
    assert progress_lines(values, run='run', config_name='lab', step=77961, steps=96000) == '\n        '.join([
        '[run][lab][Step 77961 / 96000]',
        'loss: 0.492845, lr: 0.000038, time: 1.324776, eta: 6:38:18',
        'accuracy_cls: 0.956787',
        'loss_cls: 0.123262, loss_bbox: 0.071099, loss_mask: 0.242533',
        'rpn_cls: 0.051290, rpn_bbox: 0.030185',
        'rpn_cls_p2: 0.050000, rpn_cls_p3: 0.001290',
        'rpn_bbox_p2: 0.030000, rpn_bbox_p3: 0.000185',
        '1.51 img/s, waiting for data: 2 %, grad_norm: 1.5000'])


def step_metrics(loss, *, mask=0.5, rois=1.0):
    values = dict(loss=loss, loss_mask=mask, mask_rois=rois, lr=loss / 10, finite=float(np.isfinite(loss)))
    return {k: np.float32(v) for k, v in values.items()}


def test_window_means_are_over_its_own_steps():
    window = Window(Images(), batch_size=2)
    for step, loss in enumerate((1.0, 3.0), 1):
        window.add(step, [0, 1], step_metrics(loss))
    out = window.means()
    assert out['loss'] == 2 and out['lr'] == pytest.approx(0.3) and 'finite' not in out
    window.add(3, [0, 1], step_metrics(7.0))
    assert window.means()['loss'] == 7


def test_mask_loss_is_a_mean_over_the_steps_with_masks():
    window = Window(Images(), batch_size=2)
    window.add(1, [0, 1], step_metrics(1.0, mask=0.6))
    window.add(2, [0, 1], step_metrics(1.0, mask=0.0, rois=0.0))
    assert window.means()['loss_mask'] == pytest.approx(0.6)


def test_the_first_bad_step_is_named_with_its_images():
    window = Window(Images(), batch_size=2)
    for step, loss in ((11, 1.0), (12, np.nan), (13, np.nan)):
        window.add(step, [step - 11, 3], step_metrics(loss))
    with pytest.raises(NonFiniteLoss, match=r'step 12: loss, lr not finite, .* 101, 103'):
        window.check()


def test_time_spent_elsewhere_is_not_the_steps(monkeypatch):
    now = [0.0]
    monkeypatch.setattr('time.monotonic', lambda: now[0])

    def pass_time(seconds, what=None):
        now[0] += seconds
        return what

    window = Window(Images(), batch_size=4)
    pass_time(60)                               # compilation
    window.add(1, [0], step_metrics(1.0))
    assert window.discard() == 60
    for step in (2, 3):
        window.read(pass_time(1, 'batch') for _ in range(1))
        pass_time(3)
        window.add(step, [0], step_metrics(1.0))
        pass_time(100)                          # an evaluation
        window.restart()
    out = window.means()
    assert (out['seconds_per_step'], out['images_per_second'], out['data_wait']) == (4, 1, 0.25)


def test_compilation_cache_follows_its_variable(monkeypatch, tmp_path):
    import jax
    before = jax.config.jax_compilation_cache_dir
    try:
        monkeypatch.delenv(startup.CACHE_VARIABLE, raising=False)
        assert startup.use_compilation_cache() == before        # what JAX was told stays
        jax.config.update('jax_compilation_cache_dir', None)
        monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
        assert startup.use_compilation_cache() == str(tmp_path / 'relnet_jax') == jax.config.jax_compilation_cache_dir
        monkeypatch.setenv(startup.CACHE_VARIABLE, str(tmp_path / 'else'))
        assert startup.use_compilation_cache() == jax.config.jax_compilation_cache_dir == str(tmp_path / 'else')
        monkeypatch.setenv(startup.CACHE_VARIABLE, '')
        assert startup.use_compilation_cache() == ''
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update('jax_compilation_cache_dir', before)
