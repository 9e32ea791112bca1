"""Difficult input through the whole line with the real detector: train, checkpoint, evaluate; all is accounted for."""
import contextlib
import json
import logging
from collections import Counter

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from configs import coco
from relnet_jax.data import pipeline
from relnet_jax.training import loop

OBJECTS = 500       # in one image; more than max_objects


@pytest.fixture
def folder(tmp_path):
    """A COCO data set in which every image has a difficulty of its own, one of them corrupt, and two broken records."""
    rng = np.random.default_rng(0)
    images, annotations = tmp_path / 'images', []
    images.mkdir()

    def write(number, name, pixels):
        cv2.imwrite(str(images / name), pixels)
        return dict(id=number, file_name=name, width=pixels.shape[1], height=pixels.shape[0])

    def add(image, box, **fields):
        record = dict(id=len(annotations) + 1, image_id=image, category_id=3, bbox=[float(v) for v in box],
                      area=float(box[2] * box[3]), iscrowd=0)
        annotations.append(record | fields)

    def square(x, y, side):
        return [[x, y, x + side, y, x + side, y + side, x, y + side]]

    colour = rng.integers(0, 256, (60, 80, 3), np.uint8)
    records = [
        write(1, 'no_objects.png', colour),
        write(2, 'boxes_only.jpg', colour),
        write(3, 'crowd.png', colour),
        write(4, 'many.png', colour),
        write(5, 'one_pixel.png', colour),
        write(6, 'grey_16_bit.png', rng.integers(0, 65536, (50, 70), np.uint16)),
        write(7, 'rgba.png', rng.integers(0, 256, (50, 70, 4), np.uint8)),
        write(8, 'corrupt.png', colour),
    ]
    (images / 'corrupt.png').write_bytes((images / 'corrupt.png').read_bytes()[:200])
    add(2, (10, 10, 30, 20))
    add(3, (0, 0, 60, 40), iscrowd=1, segmentation=dict(size=[60, 80], counts=[0, *[40, 20] * 59, 40, 1220]))
    add(3, (5, 5, 20, 20), segmentation=square(5, 5, 20))
    for _ in range(OBJECTS):
        x, y, side = rng.uniform(0, 60), rng.uniform(0, 40), rng.uniform(2, 20)
        add(4, (x, y, side, side), segmentation=square(x, y, side))
    add(5, (40, 30, 1, 1), segmentation=square(40, 30, 1))
    add(6, (10, 10, 25, 25), segmentation=square(10, 10, 25))
    add(7, (10, 10, 25, 25), segmentation=square(10, 10, 25))
    add(8, (10, 10, 25, 25), segmentation=square(10, 10, 25))
    add(7, (10, 10, 0, 25), segmentation=square(10, 10, 25))            # broken: no width
    add(7, (10, 10, 5, 5), category_id=99)                              # broken: no such category
    (tmp_path / 'instances.json').write_text(json.dumps(
        dict(images=records, annotations=annotations, categories=[dict(id=3, name='thing')])))
    return tmp_path


def tiny(folder):
    c = coco.get_config('small')
    files = dict(annotations=str(folder / 'instances.json'), images=str(folder / 'images'))
    c.data.train.update(files)
    c.data.val.update(files)
    c.data.update(canvas=(64, 64), scale=64, max_size=64, mask_size=28, max_objects=30, max_unreadable=0.2)
    c.model.update(fpn_channels=16, box_head_dim=16, mask_channels=8, mask_convs=1)
    c.train.update(steps=4, batch_size=2, base_batch_size=2, warmup_steps=1, pre_nms=40, proposals=20, rois=16,
                   rpn_samples=16, log_every=1, ema=0.9)
    c.test.update(batch_size=2, pre_nms=40, boxes=20, detections=10, score_threshold=0.0)
    return c


def box_ap_by_pycocotools(folder, detections):
    """Box AP and AP50 of the detections against the annotation file itself, without its two broken records."""
    truth = COCO()
    document = json.loads((folder / 'instances.json').read_text())
    truth.dataset = document | {'annotations': document['annotations'][:-2]}
    with contextlib.redirect_stdout(None):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:2]


def test_difficult_images_train_and_evaluate_and_what_is_broken_is_named(folder, caplog):
    with caplog.at_level(logging.INFO, logger='absl'):
        state = loop.train(tiny(folder), folder / 'run')
    assert int(state.step) == 4
    lines = [json.loads(line) for line in (folder / 'run' / 'metrics.jsonl').read_text().splitlines()]
    train = [line for line in lines if line['split'] == 'train']
    assert [line['step'] for line in train] == [1, 2, 3, 4]
    assert all(v is not None for line in train for v in line.values())      # null would be NaN
    assert all(0 < line['loss_cls'] < 2 and 0 < line['grad_norm'] < 100 for line in train)

    written = json.loads((folder / 'run' / 'eval' / 'metrics.json').read_text())
    counted = {key: written['about'][key] for key in ('images', 'images_without_findings', 'objects',
                                                      'objects_without_mask')}
    assert counted == dict(images=8, images_without_findings=1, objects=OBJECTS + 7, objects_without_mask=1)
    metrics = written['metrics']
    assert metrics['per_class']['thing']['objects'] == OBJECTS + 6      # the crowd is none of them

    detections = json.loads((folder / 'run' / 'eval' / 'detections.json').read_text())
    assert Counter(d['image_id'] for d in detections) == dict.fromkeys(range(1, 8), 10)     # not of the corrupt one
    frames = {image['id']: image for image in json.loads((folder / 'instances.json').read_text())['images']}
    for d in detections:
        (x, y, w, h), frame = d['bbox'], frames[d['image_id']]
        assert x >= 0 and y >= 0 and w > 0 and h > 0 and 0 <= d['score'] <= 1 and d['category_id'] == 3
        assert x + w <= frame['width'] + 1e-3 and y + h <= frame['height'] + 1e-3
        assert d['segmentation']['size'] == [frame['height'], frame['width']]
    expected = box_ap_by_pycocotools(folder, detections)
    assert [metrics['box_AP'], metrics['box_AP50']] == pytest.approx(expected, abs=1e-9) and expected[1] > 0

    said = [record.getMessage() for record in caplog.records]
    for words in (
            'annotations[507] id 508: bbox has zero width or height', 'annotations[508] id 509: category_id is not',
            'corrupt.png: corrupt, truncated or not an image', '1 of 8 images could not be read',
            'image 4 has 500 objects; the largest 30 are used (data.max_objects)'):
        assert any(words in line for line in said), words


def test_only_the_largest_objects_are_kept(folder):
    c = tiny(folder)
    _, val = pipeline.open_sources(c)
    batches = list(pipeline.eval_batches(val, c, 1))
    many = next(b for b in batches if val.records[int(b.image_index[0])]['file_name'] == 'many.png')
    sides = np.sort([a['bbox'][2] for a in val.ground_truth()['annotations'] if a['image_id'] == 4])[::-1]
    scale = many.image_size[0, 1] / many.original_size[0, 1]
    assert many.gt_valid.sum() == c.data.max_objects
    widths = np.sort(many.gt_boxes[0, :, 2] - many.gt_boxes[0, :, 0])[::-1]
    np.testing.assert_allclose(widths, sides[:c.data.max_objects] * scale, atol=1e-3)
