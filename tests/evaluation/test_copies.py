"""Boxes belong to the film: a DICOM of 2048 px, a PNG of 1024 and a JPEG of 512 give the same boxes and the same AP."""
import json

import cv2
import numpy as np
import pytest

from configs import base
from relnet_jax.data import pipeline
from relnet_jax.data.rle import decode_mask
from relnet_jax.detector.results import to_coco_results, to_original
from relnet_jax.evaluation import report
from relnet_jax.evaluation.overlays import overlays
from relnet_jax.types import Detections
from tests.data.dicom_files import write_dicom

HEIGHT, WIDTH = 2048, 1720
BOXES = np.float32([[200, 300, 700, 720], [1000, 1203, 1301, 1377], [1100, 200, 1500, 1000], [310, 1500, 770, 1905]])
COPIES = {'dcm': (2048, 1720), 'png': (1024, 860), 'jpg': (513, 431)}      # the last is rounded to odd sides
CANVAS = (512, 448)


@pytest.fixture(scope='module')
def film():
    """uint16 [HEIGHT, WIDTH]: a dim field with a bright rectangle in every box."""
    picture = np.full((HEIGHT, WIDTH), 4000, np.uint16)
    for x1, y1, x2, y2 in BOXES.astype(int):
        picture[y1:y2, x1:x2] = 40_000
    return picture


def open_copy(folder, film, suffix, *, size=None):
    """(config, source) of a data set whose one film is at hand as `suffix`, annotated at HEIGHT x WIDTH."""
    size = size or COPIES[suffix]
    small = cv2.resize(film, size[::-1], interpolation=cv2.INTER_AREA)
    path = folder / f'film.{suffix}'
    if suffix == 'dcm':
        write_dicom(path, small, WindowCenter=32768, WindowWidth=65536)
    else:
        cv2.imwrite(str(path), (small >> 8).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 98])
    outline = [[x1, y1, x2, y1, x2, y2, x1, y2] for x1, y1, x2, y2 in BOXES.tolist()]
    annotations = [dict(id=i + 1, image_id=1, category_id=9, bbox=[b[0], b[1], b[2] - b[0], b[3] - b[1]],
                        segmentation=[outline[i]]) for i, b in enumerate(BOXES.tolist())]
    annotations.append(dict(id=9, image_id=1, category_id=5, bbox=[100, 100, 1500, 1800]))
    (folder / 'a.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name=path.name, width=WIDTH, height=HEIGHT)], annotations=annotations,
        categories=[dict(id=9, name='mass'), dict(id=5, name='thorax')])))
    config = base.get_config()
    with config.unlocked():
        d = config.data
        d.val.annotations = d.train.annotations = str(folder / 'a.json')
        d.val.images = d.train.images = str(folder)
        d.parts, d.canvas, d.scale, d.max_size, d.mask_size, d.threads = ('thorax',), CANVAS, 500, 500, 28, 0
    return config, pipeline.open_sources(config)[1]


def find_bright(batch) -> Detections:
    """A stand-in for the detector: the bright rectangles on the canvas, with full masks."""
    _, _, stats, _ = cv2.connectedComponentsWithStats((batch.image[0, :, :, 0] > 80).astype(np.uint8))
    boxes = np.float32([[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:]])[None]
    count = boxes.shape[1]
    return Detections(boxes=boxes, scores=np.full((1, count), 0.9, np.float32), labels=np.ones((1, count), np.int32),
                      valid=np.ones((1, count), bool), masks=np.ones((1, count, 28, 28), np.float32))


def by_place(boxes) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64)
    return boxes[np.lexsort(boxes.T)]


@pytest.mark.parametrize('suffix', COPIES)
def test_every_copy_of_a_film_gives_the_boxes_of_its_annotation(tmp_path, film, suffix):
    config, source = open_copy(tmp_path, film, suffix)
    assert bool(source.notes) == (suffix != 'dcm') and not source.issues
    batch = next(pipeline.eval_batches(source, config, 1))
    assert batch.original_size[0].tolist() == [HEIGHT, WIDTH]

    truth = to_original(batch.gt_boxes[0][batch.gt_valid[0]], batch.image_size[0], batch.original_size[0])
    np.testing.assert_allclose(by_place(truth), by_place(BOXES), atol=1e-2)
    part = to_original(batch.part_boxes[0], batch.image_size[0], batch.original_size[0])
    np.testing.assert_allclose(part, [[100, 100, 1600, 1900]], atol=1e-2)
    assert (batch.gt_masks[0][batch.gt_valid[0]] == 255).all()

    results = to_coco_results(find_bright(batch), batch, source)
    found = np.array([r['bbox'] for r in results])
    found[:, 2:] += found[:, :2]
    np.testing.assert_allclose(by_place(found), by_place(BOXES), atol=1.5 * HEIGHT / batch.image_size[0, 0])  # pixels
    for r in results:
        assert decode_mask(r['segmentation']).shape == (HEIGHT, WIDTH)
    metrics = report.evaluate(source.ground_truth(), results)
    assert metrics['box_AP50'] == metrics['mask_AP50'] == 1.0


@pytest.mark.parametrize('suffix', COPIES)
def test_training_batches_of_every_copy_have_their_boxes_on_the_objects(tmp_path, film, suffix):
    config, source = open_copy(tmp_path, film, suffix)
    with config.unlocked():
        config.data.scale_jitter, config.data.flip = (0.7, 1.0), 0.5
    batches = pipeline.train_batches(source, config, batch_size=2, seed=0)
    for _ in range(4):
        batch = next(batches)
        picture = batch.image[0, :, :, 0]
        for x1, y1, x2, y2 in batch.gt_boxes[0][batch.gt_valid[0]]:
            inside = picture[round(y1) + 1:round(y2) - 1, round(x1) + 1:round(x2) - 1]
            assert inside.min() > 100 and picture[round(y1) - 4, round((x1 + x2) / 2)] < 60


def test_overlays_of_copies_show_truth_and_results_in_the_annotations_pixels(tmp_path, film):
    config, source = open_copy(tmp_path, film, 'jpg')
    batch = next(pipeline.eval_batches(source, config, 1))
    results = to_coco_results(find_bright(batch), batch, source)
    written, = overlays(source, results, tmp_path / 'out', config=config)
    config, source = open_copy(tmp_path, film, 'dcm')
    reference, = overlays(source, results, tmp_path / 'reference', config=config)
    pair = cv2.imread(str(written)).astype(int), cv2.imread(str(reference)).astype(int)
    assert pair[0].shape == pair[1].shape and np.abs(pair[0] - pair[1]).mean() < 3


def test_a_copy_of_another_aspect_is_refused_by_name(tmp_path, film):
    with pytest.raises(ValueError, match=r"aspect is another .*film.png, 900 x 1024 pixels, annotated at 1720 x 2048"):
        open_copy(tmp_path, film, 'png', size=(1024, 900))
