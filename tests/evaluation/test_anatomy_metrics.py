import io
import math

import numpy as np
from rich.console import Console

from configs import phantom
from relnet_jax.data import pipeline
from relnet_jax.evaluation import anatomy


def measured(find):
    """`part_metrics` of three phantom images, of which the last one of two batches is padding."""
    c = phantom.get_config()
    with c.unlocked():
        c.data.update(canvas=(64, 64), scale=64, max_size=64, threads=0, mask_size=14)
        c.data.phantom.update(size=64, train_images=1, val_images=3)
        c.test.batch_size = 2
    _, val = pipeline.open_sources(c)
    return anatomy.part_metrics(find, None, val, c)


def test_parts_are_averaged_over_the_images_that_show_them(monkeypatch):
    calls = []
    monkeypatch.setattr(anatomy, 'rows_of', lambda count, batch_size: batch_size)      # as of one device

    def find(params, image, image_size, truth):
        calls.append(truth.shape)
        iou = np.full((2, 5), 0.9 if len(calls) == 1 else 0.3)
        return iou, np.tile([0.9, 0.1, 0.9, 0.9, 0.9], (2, 1))
    metrics = measured(find)
    assert calls == [(2, 5, 4)] * 2
    assert list(metrics) == ['Left Scapula', 'Right Scapula', 'Left Lung', 'Right Lung', 'Heart']
    for name, part in metrics.items():
        assert part['images'] == 3 and math.isclose(part['iou'], (0.9 + 0.9 + 0.3) / 3)     # not the padded fourth
        assert part['found'] == (0 if name == 'Right Scapula' else 1) and math.isnan(part['invented'])
    assert math.isclose(anatomy.mean_iou(metrics), 0.7)
    console = Console(file=io.StringIO(), width=100)
    anatomy.print_parts(metrics, title='parts', console=console)
    assert '0.700' in console.file.getvalue() and 'Heart' in console.file.getvalue()


def test_parts_that_no_image_shows_are_undefined():
    parts = dict(a=dict(images=0, iou=math.nan, found=math.nan, invented=0.5))
    assert math.isnan(anatomy.mean_iou(parts))
