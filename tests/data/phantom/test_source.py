"""The phantom as images and as a data set."""
import json
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from relnet_jax.data import phantom
from relnet_jax.data.phantom import drawing, looks, scene
from relnet_jax.data.phantom.__main__ import main
from relnet_jax.data.phantom.anatomy import PARTS, to_frame
from relnet_jax.data.transforms import flip, flip_tables
from relnet_jax.ops.masks import paste_mask

OPTIONS = dict(seed=0, ambiguity=0.5, size=128, train_images=12, val_images=8, mask_size=28)
SIDE_PAIRS = (('Left Scapula', 'Right Scapula'), ('Left Lung', 'Right Lung'))


def filled(outlines, size, *, grow=0):
    mask = np.zeros((size, size), np.uint8)
    for points in outlines:
        cv2.fillPoly(mask, [np.rint(points - 0.5).astype(np.int32)], 1)
    return cv2.dilate(mask, np.ones((2 * grow + 1, 2 * grow + 1), np.uint8)).astype(bool)


def same_truth(a, b):
    for field in ('labels', 'boxes', 'part_boxes', 'part_valid'):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    for p, q in zip(a.polygons, b.polygons, strict=True):
        np.testing.assert_array_equal(p, q)


def test_an_image_is_a_function_of_seed_and_index_on_any_thread():
    def make(index):
        return phantom.render(3, index, ambiguity=0.5, size=96)

    alone = [make(i) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(make, range(12)))
    for (image, truth), (again, truth_again) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(image, again)
        same_truth(truth, truth_again)
    assert not np.array_equal(alone[0][0], alone[1][0])
    assert not np.array_equal(alone[0][0], phantom.render(4, 0, ambiguity=0.5, size=96)[0])


def test_ambiguity_changes_the_inside_of_findings_and_nothing_else():
    changed = 0
    for index in range(20):
        plain, truth = phantom.render(0, index, ambiguity=0, size=128)
        alike, truth_again = phantom.render(0, index, ambiguity=1, size=128)
        same_truth(truth, truth_again)
        elsewhere = ~filled(truth.polygons, 128, grow=5)
        np.testing.assert_array_equal(plain[elsewhere], alike[elsewhere])
        changed += not np.array_equal(plain, alike)
    assert changed > 5


def test_truth_is_the_same_without_drawing():
    for index in range(5):
        same_truth(phantom.annotate(0, index, size=128), phantom.render(0, index, ambiguity=0.5, size=128)[1])


def test_polygons_lie_in_the_frame_and_boxes_are_tight_and_large_enough_to_be_learned():
    for index in range(200):
        truth = phantom.annotate(1, index, size=256)
        for box, polygon in zip(truth.boxes, truth.polygons, strict=True):
            assert polygon.shape[0] >= 8 and polygon.min() >= 0 and polygon.max() <= 256
            np.testing.assert_allclose(box, [*polygon.min(0), *polygon.max(0)], atol=1e-3)
            assert (box[2:] - box[:2]).min() > 7.5


def test_findings_are_drawn_where_they_are_annotated():
    checked = 0
    for index in range(80):
        anatomy, findings = scene.make_scene(0, index)
        for finding in findings:
            if finding.name not in ('Fracture', 'Calcification', 'Nodule', 'Mass'):
                continue                                    # well off their surroundings at ambiguity 0
            look = looks.OWN.get(finding.name)
            images = [drawing.draw(np.random.default_rng(0), anatomy, f, lk, 256).astype(int)
                      for f, lk in (([], []), ([finding], [look]))]
            drawn = np.abs(images[1] - images[0]) > 8
            outline = to_frame(finding.polygon, anatomy.pose) * 256
            told = filled([outline], 256)
            assert not (drawn & ~filled([outline], 256, grow=4)).any()
            assert (drawn & told).sum() / told.sum() > 0.55, finding.name
            checked += 1
    assert checked > 15


def test_parts_are_in_the_order_of_the_patients_sides():
    for index in range(50):
        truth = phantom.annotate(0, index, size=128)
        assert truth.part_valid.all() and truth.part_boxes.min() >= 0 and truth.part_boxes.max() <= 128
        assert (truth.part_boxes[:, 2:] > truth.part_boxes[:, :2]).all()
        x = dict(zip(PARTS, (truth.part_boxes[:, 0] + truth.part_boxes[:, 2]) / 2, strict=True))
        assert x['Right Scapula'] < x['Right Lung'] < x['Heart'] < x['Left Lung'] < x['Left Scapula']


def test_sides_stay_right_after_a_flip_with_exchanged_names():
    source = phantom.phantom_source(split='train', **OPTIONS)
    example = source.load(3)
    tables = flip_tables(source.classes, source.parts, SIDE_PAIRS)
    flipped = flip(example, *tables)
    x = dict(zip(source.parts, flipped.part_boxes[:, 0] + flipped.part_boxes[:, 2], strict=True))
    assert x['Right Scapula'] < x['Right Lung'] < x['Left Lung'] < x['Left Scapula']
    twice = flip(flipped, *tables)
    np.testing.assert_allclose(twice.part_boxes, example.part_boxes, atol=1e-4)


def test_geometry_does_not_depend_on_the_size():
    small, large = (phantom.render(0, 7, ambiguity=0.5, size=size) for size in (128, 256))
    np.testing.assert_allclose(2 * small[1].boxes, large[1].boxes, atol=1e-3)
    np.testing.assert_allclose(2 * small[1].part_boxes, large[1].part_boxes, atol=1e-3)
    shrunk = cv2.resize(large[0], (128, 128), interpolation=cv2.INTER_AREA).astype(float)
    other = phantom.render(0, 8, ambiguity=0.5, size=128)[0].astype(float)
    assert np.abs(shrunk - small[0])[:110].mean() < 7 < 0.5 * np.abs(shrunk - other)[:110].mean()


def test_every_image_carries_the_same_legible_word():
    for size in (64, 128, 256, 512):
        images = [phantom.render(0, i, ambiguity=0.5, size=size)[0] for i in range(4)]
        corners = [image[-max(8, size // 40):, :size // 5] for image in images]
        np.testing.assert_array_equal(np.min(corners, 0), np.max(corners, 0))
        assert (corners[0] > 150).mean() > 0.08 and (corners[0] < 20).mean() > 0.4


def test_splits_are_disjoint_whatever_their_length():
    train, val = (phantom.phantom_source(split=split, **OPTIONS) for split in ('train', 'val'))
    assert (len(train), len(val)) == (12, 8)
    assert not set(train.image_ids) & set(val.image_ids)
    assert not np.array_equal(train.load(0).image, val.load(0).image)
    longer = phantom.phantom_source(split='val', **{**OPTIONS, 'train_images': 500})
    np.testing.assert_array_equal(longer.load(0).image, val.load(0).image)


def test_examples_agree_with_the_coco_ground_truth():
    source = phantom.phantom_source(split='val', **OPTIONS)
    truth = COCO()
    truth.dataset = source.ground_truth()
    truth.createIndex()
    assert truth.getImgIds() == source.image_ids
    assert [c['name'] for c in truth.loadCats(list(source.category_ids))] == list(source.classes)
    total = 0
    for i, image_id in enumerate(source.image_ids):
        example = source.load(i)
        assert example.image.shape == (128, 128, 3) and example.image.dtype == np.uint8
        assert example.image_id == image_id and example.index == i
        annotations = truth.loadAnns(truth.getAnnIds(imgIds=[image_id]))
        assert [a['category_id'] for a in annotations] == example.labels.tolist()
        for j, annotation in enumerate(annotations):
            x, y, w, h = annotation['bbox']
            np.testing.assert_allclose(example.boxes[j], [x, y, x + w, y + h], atol=1e-3)
            outline = np.array(annotation['segmentation']).reshape(-1, 2)
            fine = filled([outline * 8], 128 * 8).reshape(128, 8, 128, 8)
            assert fine.sum() / 64 == pytest.approx(annotation['area'], rel=0.08)
            mask = fine.mean((1, 3)) > 0.5
            pasted = paste_mask(example.masks[j] / 255, example.boxes[j], (128, 128), threshold=0.5)
            assert (mask & pasted).sum() / (mask | pasted).sum() > 0.6     # a spot has 25 pixels at this size
            total += 1
    assert total > 5


def test_images_without_findings_have_empty_arrays_of_the_right_shape():
    source = phantom.phantom_source(split='train', **{**OPTIONS, 'train_images': 60})
    empty = next(i for i in range(60) if not len(phantom.annotate(0, i, size=128).labels))
    example = source.load(empty)
    assert example.boxes.shape == (0, 4) and example.masks.shape == (0, 28, 28) and example.labels.dtype == np.int32
    assert example.part_boxes.shape == (5, 4) and example.part_valid.all()


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="'train' or 'val', got 'test'"):
        phantom.phantom_source(split='test', **OPTIONS)
    with pytest.raises(ValueError, match='train_images'):
        phantom.phantom_source(split='train', **{**OPTIONS, 'train_images': 0})
    with pytest.raises(ValueError, match='ambiguity'):
        phantom.render(0, 0, ambiguity=1.5, size=64)


def test_command_line_writes_images_and_coco_truth(tmp_path, capsys):
    assert main([f'--out={tmp_path / "films"}', '--count=3', '--size=96']) == 0
    truth = json.loads((tmp_path / 'films' / 'instances.json').read_text())
    assert len(truth['images']) == 3 and f"{len(truth['annotations'])} findings" in capsys.readouterr().out
    for record in truth['images']:
        image = cv2.imread(str(tmp_path / 'films' / record['file_name']), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(image, phantom.render(0, record['id'], ambiguity=0.5, size=96)[0])
