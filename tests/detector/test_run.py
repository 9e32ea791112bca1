import json
from types import SimpleNamespace

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from relnet_jax import progress
from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.source import Source
from relnet_jax.detector import run
from relnet_jax.evaluation.overlays import MIN_SCORE, overlays
from relnet_jax.evaluation.report import evaluate
from relnet_jax.types import Detections, Example

SIZES = [(40, 60), (64, 64), (50, 30), (20, 90), (33, 47)]
BOX = [5, 6, 17, 16]


@pytest.fixture
def config():
    c = base.get_config().copy_and_resolve_references()
    with c.unlocked():
        c.data.canvas, c.data.scale, c.data.max_size = (64, 64), 48, 64
        c.data.max_objects, c.data.mask_size, c.data.threads = 3, 28, 2
        c.test.batch_size = 2
    return c


def make_source(*, broken=()):
    """Five grey images of different sizes with one bright object each; `broken` positions cannot be read."""
    def load(i):
        if i in broken:
            raise UnreadableImage(f'{i}.png', 'made so')
        image = np.full((*SIZES[i], 3), 60, np.uint8)
        image[BOX[1]:BOX[3], BOX[0]:BOX[2]] = 220
        return Example(
            image=image, image_id=100 + i, index=i, boxes=np.float32([BOX]), labels=np.int32([2]),
            crowd=np.zeros(1, bool), masks=np.full((1, 28, 28), 255, np.uint8), has_mask=np.ones(1, bool),
            part_boxes=np.zeros((0, 4), np.float32), part_valid=np.zeros(0, bool))
    x1, y1, x2, y2 = BOX
    annotations = [dict(id=i, image_id=100 + i, category_id=5, bbox=[x1, y1, x2 - x1, y2 - y1], iscrowd=0,
                        area=(x2 - x1) * (y2 - y1), segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]]) for i in range(5)]
    records = [dict(id=100 + i, height=h, width=w) for i, (h, w) in enumerate(SIZES)]
    return Source(name='toy', classes=('a', 'b'), category_ids=(3, 5), parts=(), records=records, load=load,
                  ground_truth=lambda: dict(images=records, annotations=annotations,
                                            categories=[dict(id=3, name='a'), dict(id=5, name='b')]))


def bright_region_detector(shapes):
    """A detect_fn that finds the bright pixels: box around them, score from `params`; notes the shapes it sees."""
    def detect(params, image, image_size, part_boxes, part_valid):
        shapes.append((image.shape, image_size.shape))
        bright = np.asarray(image[..., 0]) > 140
        boxes = np.zeros((len(image), 2, 4), np.float32)
        for b, mask in enumerate(bright):
            if mask.any():
                ys, xs = np.where(mask)
                boxes[b, 0] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        found = boxes[..., 2] > 0
        return Detections(
            boxes=jnp.asarray(boxes), scores=jnp.full((len(image), 2), params), valid=jnp.asarray(found),
            labels=jnp.full((len(image), 2), 2), masks=jnp.ones((len(image), 2, 28, 28)))
    return detect


def test_all_images_in_order_with_one_batch_shape(config):
    shapes = []
    results = run.detect_source(bright_region_detector(shapes), 0.75, make_source(), config)
    assert [r['image_id'] for r in results] == [100, 101, 102, 103, 104]
    assert shapes == [((4, 64, 64, 3), (4, 2))] * 2         # two images on each of two devices
    for r, (h, w) in zip(results, SIZES):
        assert r['category_id'] == 5 and r['score'] == 0.75 and r['segmentation']['size'] == [h, w]
    metrics = evaluate(make_source().ground_truth(), results)
    assert metrics['box_AP50'] == metrics['mask_AP50'] == metrics['voc_AP_0.50'] == pytest.approx(1.0)


def test_unreadable_images_have_no_results_and_are_counted(config, caplog):
    with caplog.at_level('WARNING', logger='absl'):
        results = run.detect_source(bright_region_detector([]), 0.75, make_source(broken=(1, 4)), config)
    assert [r['image_id'] for r in results] == [100, 102, 103]
    assert 'toy: 2 of 5 images could not be read' in caplog.text
    assert evaluate(make_source().ground_truth(), results)['box_AR100'] < 0.7


def test_progress_is_a_line_with_the_time_left_where_there_is_no_terminal(config, caplog, monkeypatch):
    monkeypatch.setattr(progress, 'REPORT_EVERY', 0.0)
    monkeypatch.setattr(progress.sys, 'stderr', SimpleNamespace(isatty=lambda: False))
    with caplog.at_level('INFO', logger='absl'):
        run.detect_source(bright_region_detector([]), 0.75, make_source(), config, progress='val')
    lines = [m for m in caplog.messages if m.startswith('val: ')]
    assert [line.split(' img')[0] for line in lines] == ['val: 4/5', 'val: 5/5', 'val: 5/5']
    assert lines[-1].endswith('eta 0:00:00')
    caplog.clear()
    with caplog.at_level('INFO', logger='absl'):
        run.detect_source(bright_region_detector([]), 0.75, make_source(), config)
    assert not caplog.messages


def test_overlays_show_truth_beside_prediction(config, tmp_path):
    source = make_source(broken=(1,))
    results = run.detect_source(bright_region_detector([]), 0.75, source, config)
    paths = overlays(source, results, tmp_path / 'a', config=config, count=3)
    assert [p.name for p in paths] == ['0000_100.png', '0002_102.png']
    picture = cv2.imread(str(paths[0]))
    half = picture.shape[1] // 2
    assert abs(picture[:, :half].astype(int) - picture[:, -half:]).mean() < 10  # drawn alike, but for the texts
    weak = [dict(r, score=MIN_SCORE - 0.01) for r in results]
    nothing = cv2.imread(str(overlays(source, weak, tmp_path / 'b', config=config, count=1)[0]))
    assert abs(nothing[:, :half].astype(int) - nothing[:, -half:]).max() > 100


def test_overlays_of_the_phantom_say_so(config, tmp_path):
    plain = cv2.imread(str(overlays(make_source(), [], tmp_path, config=config, count=1)[0]))
    with config.unlocked():
        config.data.format = 'phantom'
    marked = cv2.imread(str(overlays(make_source(), [], tmp_path, config=config, count=1)[0]))
    assert marked.shape[0] > plain.shape[0] and marked.shape[1] == plain.shape[1]


def test_results_are_the_same_every_time(config):
    texts = {json.dumps(run.detect_source(bright_region_detector([]), 0.75, make_source(), config)) for _ in range(3)}
    assert len(texts) == 1
