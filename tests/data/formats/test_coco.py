"""COCO files as sources: what is read, what is reported, and the real data sets that are at hand."""
import io
import json
import re
from contextlib import redirect_stdout

import cv2
import numpy as np
import pycocotools.mask as rle_tools
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from relnet_jax.data.images import UnreadableImage
from tests.data.opening import open_coco


def annotation(number, **fields):
    return {'id': number, 'image_id': 1, 'category_id': 3, 'bbox': [5, 6, 20, 10]} | fields


def read(files, **options):
    return open_coco(*files, **({'name': 'test', 'mask_size': 14} | options))


def test_an_example_holds_boxes_masks_labels_and_crowds(write_coco):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:50] = 1
    rle = rle_tools.encode(np.asfortranarray(mask))
    flat = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order='F')])))
    runs = np.diff(np.concatenate([[0], flat, [mask.size]])).tolist()
    source = read(write_coco([
        annotation(1, segmentation=[[5, 6, 25, 6, 25, 16, 5, 16]]),
        annotation(2, category_id=7, bbox=[30, 10, 20, 10], segmentation=rle | {'counts': rle['counts'].decode()}),
        annotation(3, category_id=20, bbox=[30, 10, 20, 10], iscrowd=1,
                   segmentation={'size': [40, 60], 'counts': runs}),
        annotation(4, bbox=[59, 39, 1, 1]),
        annotation(5, bbox=[5, 5, 2, 2], segmentation=[]),
        annotation(6, bbox=[5, 5, 3, 3], segmentation=None),
    ]))
    example = source.load(0)
    assert source.issues == () and source.classes == ('nodule', 'mass', 'left lung', 'right lung')
    assert source.category_ids == (3, 7, 20, 21) and source.parts == ()
    assert example.image.shape == (40, 60, 3) and (example.image_id, example.index) == (1, 0)
    np.testing.assert_array_equal(example.boxes, np.float32(
        [[5, 6, 25, 16], [30, 10, 50, 20], [30, 10, 50, 20], [59, 39, 60, 40], [5, 5, 7, 7], [5, 5, 8, 8]]))
    assert example.boxes.dtype == np.float32 and example.labels.dtype == np.int32 and example.masks.dtype == np.uint8
    assert example.labels.tolist() == [1, 2, 3, 1, 1, 1]
    assert example.crowd.tolist() == [False, False, True, False, False, False]
    assert example.has_mask.tolist() == [True, True, True, False, False, False]
    assert example.masks.shape == (6, 14, 14) and (example.masks[:3] == 255).all() and not example.masks[3:].any()
    assert example.part_boxes.shape == (0, 4) and example.part_valid.shape == (0,)


def test_an_image_without_objects_is_kept_and_has_empty_arrays(write_coco):
    source = read(write_coco([], sizes=[(40, 60), (30, 30)]))
    example = source.load(1)
    assert len(source) == 2 and source.image_ids == [1, 2]
    assert example.boxes.shape == (0, 4) and example.masks.shape == (0, 14, 14) and example.labels.shape == (0,)


def test_parts_come_from_the_largest_instance_and_may_be_classes_too(write_coco):
    files = write_coco([
        annotation(1, category_id=20, bbox=[0, 0, 5, 5]), annotation(2, category_id=20, bbox=[10, 0, 20, 30]),
        annotation(3, category_id=20, bbox=[0, 10, 6, 6]), annotation(4, bbox=[1, 1, 4, 4])])
    source = read(files, parts=('right lung', 'left lung'))
    example = source.load(0)
    assert source.classes == ('nodule', 'mass') and source.parts == ('right lung', 'left lung')
    assert example.part_valid.tolist() == [False, True] and example.part_boxes[1].tolist() == [10, 0, 30, 30]
    assert np.isfinite(example.part_boxes).all() and example.labels.tolist() == [1]
    assert [a['category_id'] for a in source.ground_truth()['annotations']] == [3]
    both = read(files, parts=('left lung',), classes=('mass', 'left lung'))
    assert both.load(0).labels.tolist() == [2, 2, 2] and both.load(0).part_valid.tolist() == [True]
    assert both.category_ids == (7, 20)


def place(issue):
    """Images first, then by the index in the list."""
    kind, index = re.search(r'(\w+)\[(\d+)\]', issue.where).groups()
    return kind == 'annotations', int(index)


def test_every_kind_of_broken_record_is_named_and_dropped_or_clipped(write_coco):
    images = [{'id': 1, 'file_name': '1.png', 'width': 60, 'height': 40},
              {'id': 1, 'file_name': '2.png', 'width': 60, 'height': 40},
              {'id': 5, 'file_name': 'lost.png', 'width': 60, 'height': 40},
              {'id': 'six', 'file_name': '2.png', 'width': 60, 'height': 40},
              {'id': 7, 'file_name': '1.png', 'width': 60, 'height': 40},
              {'id': 8},
              'nine']
    annotations = [
        annotation(1), annotation(2, category_id=99), annotation(3, category_id=None), annotation(4, bbox=[]),
        annotation(5, bbox=[1, 2, 0, 3]), annotation(6, bbox=[9, 9, -3, 4]), annotation(7, bbox=[100, 5, 3, 3]),
        annotation(8, bbox=[float('nan'), 5, 3, 3]), annotation(9, bbox=[50, 30, 20, 20]), annotation(10),
        annotation(11, image_id=77), annotation(12, bbox=[0, 0, 30, 30], segmentation=[[0, 0, 9, 0, 9, 9]]),
        annotation(13, bbox=[0, 0, 9, 9], segmentation={'size': [40, 60], 'counts': 'zz'}), annotation(14, image_id=5),
        annotation(15, bbox=[0, 0, 1, 1]), 16]
    source = read(write_coco(annotations, sizes=[(40, 60), (40, 60)], images=images), max_dropped=1)
    expected = [
        ('images[1] id 1', 'twice'), ('images[2] id 5', "file not found ('lost.png')"),
        ('images[4] id 7', "'1.png', id 1"), ('images[5] id 8', 'file_name'), ('images[6]', "'nine'"),
        ('annotations[1] id 2', 'not in the category table (99)'),
        ('annotations[2] id 3', 'not in the category table (None)'), ('annotations[3] id 4', 'four finite numbers'),
        ('annotations[4] id 5', 'zero'), ('annotations[5] id 6', 'negative'), ('annotations[6] id 7', 'outside'),
        ('annotations[7] id 8', 'four finite numbers'),
        ('annotations[8] id 9', 'clipped'), ('annotations[9] id 10', 'same image, category, box'),
        ('annotations[10] id 11', 'not in the file (77)'), ('annotations[11] id 12', 'both kept'),
        ('annotations[12] id 13', 'box kept without mask'), ('annotations[15]', 'expected a dict')]
    assert len(source.issues) == len(expected), '\n'.join(map(str, source.issues))
    for issue, (where, words) in zip(sorted(source.issues, key=place), expected):
        assert issue.where == f'instances.json: {where}' and words in str(issue)
    assert source.image_ids == [1, 'six', 7]
    boxes = [[5, 6, 25, 16], [50, 30, 60, 40], [0, 0, 30, 30], [0, 0, 9, 9], [0, 0, 1, 1]]
    assert source.load(0).boxes.tolist() == boxes
    assert len(source.load(1).boxes) == 0 and source.load(1).image_id == 'six'


def test_boxes_in_the_ground_truth_are_the_checked_ones_in_the_files_own_ids(write_coco):
    square = [[5, 6, 15, 6, 15, 16, 5, 16]]
    source = read(write_coco([
        annotation(0, bbox=[5, 6, 10, 10], segmentation=square), annotation(0, bbox=[50, 30, 20, 20]),
        annotation(1, bbox=[5, 5, 2, 2], category_id=7, area=3.5, iscrowd=1)]))
    truth = source.ground_truth()
    assert [(a['id'], a['category_id'], a['bbox'], a['area'], a['iscrowd']) for a in truth['annotations']] == [
        (1, 3, [5, 6, 10, 10], 100, 0), (2, 3, [50, 30, 10, 10], 100, 0), (3, 7, [5, 5, 2, 2], 3.5, 1)]
    assert truth['annotations'][0]['segmentation'] == square
    assert all('segmentation' not in a for a in truth['annotations'][1:])
    names = {'nodule': 3, 'mass': 7, 'left lung': 20, 'right lung': 21}
    assert {c['name']: c['id'] for c in truth['categories']} == names
    json.dumps(truth)


def test_pycocotools_gives_the_ground_truth_itself_an_average_precision_of_one(write_coco):
    boxes = [annotation(0, bbox=[5, 6, 10, 10]), annotation(1, category_id=7)]
    source = read(write_coco(boxes, sizes=[(40, 60), (9, 9)]))
    truth = source.ground_truth()
    with redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        results = coco.loadRes([{k: a[k] for k in ('image_id', 'category_id', 'bbox')} | {'score': 0.9}
                                for a in truth['annotations']])
        evaluation = COCOeval(coco, results, 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


def test_only_the_first_images_are_opened_with_max_images(write_coco):
    files = write_coco([annotation(1), annotation(2, image_id=3)], sizes=[(40, 60)] * 3)
    source = read(files, max_images=2)
    assert source.image_ids == [1, 2] and source.issues == () and len(source.ground_truth()['annotations']) == 1


def test_missing_sizes_are_taken_from_the_file(write_coco):
    source = read(write_coco([annotation(1, bbox=[10, 10, 90, 5])], images=[{'id': 1, 'file_name': '1.png'}]))
    assert (source.records[0]['height'], source.records[0]['width']) == (40, 60)
    assert source.load(0).boxes.tolist() == [[10, 10, 60, 15]]


def test_a_file_of_another_aspect_than_its_record_is_refused_by_name(write_coco):
    other = [{'id': 1, 'file_name': '1.png', 'width': 60, 'height': 40},
             {'id': 2, 'file_name': '2.png', 'width': 40, 'height': 60},
             {'id': 3, 'file_name': '2.png', 'width': 50, 'height': 60}]
    source = read(write_coco([annotation(1)], sizes=[(40, 60), (40, 60)], images=other))
    assert [str(issue) for issue in source.issues] == [
        'instances.json: images[1] id 2: width and height of the record look exchanged (2.png, 60 x 40 pixels, '
        'annotated at 40 x 60): image dropped',
        "instances.json: images[2] id 3: the file's aspect is another than the annotations' (2.png, 60 x 40 pixels, "
        'annotated at 50 x 60): image dropped']
    assert source.image_ids == [1]


def test_a_file_that_changed_its_aspect_since_it_was_opened_is_unreadable(write_coco):
    file, folder = write_coco([annotation(1)])
    source = read((file, folder))
    cv2.imwrite(str(folder / '1.png'), np.zeros((40, 80, 3), np.uint8))
    with pytest.raises(UnreadableImage, match='1.png: 80 x 40 pixels, but its annotations refer to 60 x 40'):
        source.load(0)


def test_wrong_names_and_files_stop_with_a_hint(write_coco, tmp_path):
    files = write_coco([annotation(1)])
    with pytest.raises(ValueError, match="no category 'nodul', did you mean 'nodule'"):
        read(files, classes=('nodul',))
    with pytest.raises(ValueError, match="no category 'xyz', it has"):
        read(files, parts=('xyz',))
    with pytest.raises(FileNotFoundError, match='none.json. is not there'):
        read((tmp_path / 'none.json', files[1]))
    with pytest.raises(FileNotFoundError, match='no image folder .*nowhere'):
        read((files[0], tmp_path / 'nowhere'))
    bad = tmp_path / 'bad.json'
    for content, words in (('{"images": [', 'not valid JSON'), ('[]', "list under 'images'"),
                           ('{"images": [], "annotations": [{}]}', "list under 'categories'"),
                           ('[{"image_id": 1, "category_id": 1, "score": 0.5}]', 'a list of results'),
                           ('[{"file_name": "a.png", "syms": []}]', 'chestx_det'), ('[' * 100_000, 'nested too deep'),
                           ('"a.json"', "list under 'images'"), ('1' * 5000, 'not valid JSON'), ('\xff', 'not valid')):
        bad.write_text(content)
        with pytest.raises(ValueError, match=words):
            read((bad, files[1]))


@pytest.mark.parametrize('categories', [[{'id': 3, 'name': 'a'}, {'id': 3, 'name': 'b'}], [{'id': 'x', 'name': 'a'}],
                                        [{'id': 3, 'name': 5}], ['a'], [{'id': True, 'name': 'a'}],
                                        [{'id': 3, 'name': 'a' * 201}], [{'id': 3, 'name': '\ud800'}]])
def test_a_category_table_that_is_not_one_to_one_is_an_error(write_coco, categories):
    with pytest.raises(ValueError, match=r'instances.json: categories\['):
        read(write_coco([], categories=categories))


def test_a_file_without_any_usable_image_is_an_error(write_coco):
    with pytest.raises(ValueError, match='1 of 1 image files cannot be used.*not found; such as .lost.png'):
        read(write_coco([], images=[{'id': 1, 'file_name': 'lost.png', 'width': 60, 'height': 40}]))


def open_real(real_data, folder, file='instances.json', **options):
    return open_coco(real_data / folder / file, real_data / folder / 'images', name=folder, mask_size=28, **options)


def check_example(example, source):
    """What every loaded example must hold."""
    height, width = example.image.shape[:2]
    assert (height, width) == (source.records[example.index]['height'], source.records[example.index]['width'])
    assert example.image.dtype == np.uint8 and example.image.shape[2] == 3 and example.image.std() > 1
    x1, y1, x2, y2 = example.boxes.T
    assert ((0 <= x1) & (x1 < x2) & (x2 <= width) & (0 <= y1) & (y1 < y2) & (y2 <= height)).all()
    assert ((1 <= example.labels) & (example.labels <= len(source.classes))).all()
    assert example.masks.shape == (len(x1), 28, 28)
    assert example.masks.any(axis=(1, 2)).tolist() == example.has_mask.tolist()


@pytest.mark.parametrize('file, objects, masks, issues', [
    ('instances.json', 460, 460, 0), ('instances_dirty.json', 380, 374, 2)])
def test_chest_films_open_clean_and_dirty(real_data, file, objects, masks, issues):
    parts = ('Left Lung', 'Right Lung')
    classes = tuple(c['name'] for c in json.loads((real_data / 'cxr_gb100' / file).read_text())['categories'])
    source = open_real(real_data, 'cxr_gb100', file, parts=parts, classes=classes)
    truth = source.ground_truth()['annotations']
    assert len(source) == 65 and len(truth) == objects and sum('segmentation' in a for a in truth) == masks
    assert [('zero width' in i.problem, i.rule) for i in source.issues] == [(True, 'dropped')] * issues
    for index in (0, 13, 29, 47):
        example = source.load(index)
        check_example(example, source)
        if example.part_valid.all():
            left, right = example.part_boxes
            assert left[0] > right[0], "the patient's left lung is on the image's right"


def test_coco_images_open_with_crowds_and_empty_images(real_data):
    source = open_real(real_data, 'coco_ccby')
    truth = source.ground_truth()
    assert len(source) == 79 and len(source.classes) == 80 and source.issues == ()
    assert len(truth['annotations']) == 824 and sum(a['iscrowd'] for a in truth['annotations']) == 11
    empty = set(source.image_ids) - {a['image_id'] for a in truth['annotations']}
    crowded = {a['image_id'] for a in truth['annotations'] if a['iscrowd']}
    assert len(empty) == 2
    for image_id in (*empty, *sorted(crowded)[:3]):
        example = source.load(source.image_ids.index(image_id))
        check_example(example, source)
        assert example.crowd.any() == (image_id in crowded)


def test_boxes_without_masks_open(real_data):
    source = open_real(real_data, 'cxr_nih_mass50')
    assert len(source) == 50 and source.issues == () and source.classes == ('Mass', 'Nodule')
    assert len(source.ground_truth()['annotations']) == 283
    check_example(source.load(0), source)
    assert not source.load(0).has_mask.any()


def test_many_small_masks_open(real_data):
    source = open_real(real_data, 'dsb2018_nuclei')
    assert len(source) == 82 and source.issues == () and len(source.ground_truth()['annotations']) == 2126
    for index in (0, 40, 81):
        check_example(source.load(index), source)
