"""The check tool: anchors, shared and unreadable images, class statistics and the printed report."""
import dataclasses
import io
import json

import cv2
import numpy as np
import pytest
from rich.console import Console

from configs import base
from relnet_jax.data import anchor_fit, duplicates, familiarity, records, statistics
from relnet_jax.data import check as C
from relnet_jax.data.duplicates import Look
from relnet_jax.data.source import subset
from relnet_jax.ops.anchors import pyramid_anchors
from tests.data.opening import open_coco


def make_config(train=('', ''), **data):
    config = base.get_config().unlock()
    config.data.update(dict(canvas=(64, 64), scale=40, max_size=64, mask_size=6, threads=2) | data)
    config.data.train.annotations, config.data.train.images = map(str, train)
    config.data.split.folds = 2
    config.model.anchor_sizes = (4, 8, 16, 32, 64)
    return config.lock()


@pytest.mark.parametrize('canvas', [(96, 64), (100, 72)])
def test_the_best_anchor_is_that_of_the_full_iou_matrix(canvas):
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 60, (200, 2)), rng.uniform(1, 60, (200, 2))
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    options = dict(strides=(4, 8, 16), sizes=(8, (12, 20), 40), ratios=(0.5, 1, 2))
    anchors = np.concatenate(pyramid_anchors(canvas, **options)).astype(np.float64)
    expected = []
    for box in boxes.astype(np.float64):
        sides = np.minimum(anchors[:, 2:], box[2:]) - np.maximum(anchors[:, :2], box[:2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        union = np.prod(anchors[:, 2:] - anchors[:, :2], axis=1) + np.prod(box[2:] - box[:2]) - shared
        expected.append((shared / union).max())
    np.testing.assert_allclose(anchor_fit.best_anchor_iou(boxes, canvas=canvas, **options), expected, rtol=1e-6)


def test_no_boxes_have_no_anchors():
    found = anchor_fit.best_anchor_iou(np.zeros((0, 4)), canvas=(64, 64), strides=(8,), sizes=(8,), ratios=(1,))
    assert found.shape == (0,)


def test_class_statistics_count_what_is_there(write_coco):
    square = [[8, 8, 24, 8, 24, 24, 8, 24]]
    files = write_coco([
        {'id': 1, 'image_id': 1, 'category_id': 3, 'bbox': [8, 8, 16, 16], 'segmentation': square},
        {'id': 2, 'image_id': 1, 'category_id': 3, 'bbox': [20, 0, 1, 1]},
        {'id': 3, 'image_id': 2, 'category_id': 3, 'bbox': [17, 17, 30, 30]},
        {'id': 4, 'image_id': 2, 'category_id': 7, 'bbox': [0, 0, 30, 30], 'iscrowd': 1}],
        sizes=[(40, 40), (80, 80), (9, 9)])
    source = open_coco(*files, name='s', mask_size=6)
    held = statistics.contents(source, make_config())
    found = statistics.class_statistics(held, make_config())
    # sides 16, 1 and 15 on the canvas; anchors of 16 px lie on the two larger ones, none is as small as a pixel
    assert found['nodule'] == dict(
        instances=3, images=2, masks=1, crowds=0, side=15.0, no_anchor=pytest.approx(1 / 3))
    assert found['mass'] == dict(instances=1, images=1, masks=0, crowds=1, side=0.0, no_anchor=0.0)
    assert found['left lung']['instances'] == 0 and statistics.images_without_objects(held) == 1


def shared(train, val):
    return duplicates.shared_images(train, val, *(duplicates.look_at_images(s, 2) for s in (train, val)))


def test_unreadable_images_are_listed_by_id_and_file(write_boxes):
    source = open_coco(*write_boxes(4), name='s', mask_size=6)
    assert duplicates.unreadable_images(source, duplicates.look_at_images(source, 2)) == []
    source.image_path(2).write_bytes(b'x')
    source.image_path(1).unlink()
    lines = duplicates.unreadable_images(source, duplicates.look_at_images(source, 2))
    assert len(lines) == 2 and lines[0].startswith('image 2: ') and lines[1].startswith('image 3: ')
    assert '2.png: No such file' in lines[0] and '3.png: corrupt' in lines[1]


def test_shared_images_are_found_by_file_content_and_name(write_boxes):
    source = open_coco(*write_boxes(5))
    train, val = subset(source, [0, 1, 2], name='train'), subset(source, [3, 4], name='val')
    assert shared(train, val) == []
    line, = duplicates.shared_images(train, val, [Look(content=b'a'), Look(content=b'b'), Look()],
                                     [Look(content=b'b'), Look()])
    assert line == 'validation image 4 (4.png): same content as training image 2 (2.png)'
    assert shared(train, subset(source, [2], name='val')) == [
        'validation image 3 (3.png): same file as training image 3 (3.png)']
    folder = source.image_path(0).parent / 'other'
    folder.mkdir()
    (folder / '1.png').write_bytes(source.image_path(4).read_bytes())
    moved = dataclasses.replace(subset(source, [4], name='val'), image_path=lambda i: folder / '1.png')
    moved.records[0] = dict(moved.records[0], file_name='1.png')
    assert shared(train, moved) == ['validation image 5 (1.png): same file name as training image 1 (1.png)']


def test_content_is_that_of_the_pixels_however_they_are_packed(write_coco):
    source = open_coco(*write_coco([], sizes=[(40, 60)] * 4))
    pixels = cv2.imread(str(source.image_path(0)))
    for i, level in ((2, 0), (3, 9)):
        cv2.imwrite(str(source.image_path(i)), pixels, [cv2.IMWRITE_PNG_COMPRESSION, level])
    assert source.image_path(2).read_bytes() != source.image_path(0).read_bytes()
    assert shared(subset(source, [0, 1], name='train'), subset(source, [3], name='val')) == [
        'validation image 4 (4.png): same content as training image 1 (1.png)']
    assert duplicates.repeated_images(source, duplicates.look_at_images(source, 2)) == [
        'image 3 (3.png): same content as image 1 (1.png)', 'image 4 (4.png): same content as image 1 (1.png)']


def test_images_that_show_nothing_are_named_by_the_check_and_before_a_training(write_coco, caplog):
    source = open_coco(*write_coco([], sizes=[(40, 60)] * 4))
    for i, level in ((1, 0), (3, 200)):
        cv2.imwrite(str(source.image_path(i)), np.full((40, 60), level, np.uint8))
    looks = duplicates.look_at_images(source, 2)
    assert duplicates.blank_images(source, looks) == ['image 2 (2.png)', 'image 4 (4.png)']
    familiarity.of_source(source, base.get_config())
    assert '2 of 4 images looked at are of one grey level, with nothing to see in them: 2, 4' in caplog.text


def test_the_same_name_in_every_patients_folder_is_no_leak(write_coco):
    files = write_coco([], sizes=[(40, 60), (30, 50)])
    for i in (1, 2):
        (files[1] / f'p{i}').mkdir()
        (files[1] / f'{i}.png').rename(files[1] / f'p{i}' / 'frontal.png')
    document = json.loads(files[0].read_text())
    for i, image in enumerate(document['images'], start=1):
        image['file_name'] = f'p{i}/frontal.png'
    files[0].write_text(json.dumps(document))
    source = open_coco(*files)
    assert shared(subset(source, [0], name='train'), subset(source, [1], name='val')) == []


def test_parts_are_counted_by_the_images_that_have_them(write_coco):
    source = open_coco(*write_coco([{'id': 1, 'image_id': 2, 'category_id': 20, 'bbox': [1, 1, 9, 9]}],
                                   sizes=[(40, 60), (40, 60)]), parts=('left lung', 'right lung'))
    assert duplicates.parts_found(source, duplicates.look_at_images(source, 1)) == {'left lung': 1, 'right lung': 0}


def test_the_report_names_issues_and_every_class(write_boxes):
    files = write_boxes(6)
    stray = '"annotations": [{"id": 9, "image_id": 1, "category_id": 55},'
    files[0].write_text(files[0].read_text().replace('"annotations": [', stray))
    (files[1] / '6.png').write_bytes(b'x')
    out = io.StringIO()
    C.print_report(C.report(make_config(files))[0], Console(file=out, width=120))
    text = out.getvalue()
    for words in ('nodule', 'right lung', 'issues: 1', 'image 6: ',
                  'annotations[0] id 9: category_id is not in the category table (55)',
                  'images in both training and validation: none', ': 3 images'):
        assert words in text, f'{words!r} not in\n{text}'
    assert text.count('annotations[0] id 9') == 1, 'once per file'


def test_the_command_prints_the_report(write_boxes, capsys):
    annotations, images = write_boxes(6)
    assert C.main(['--config=configs/base.py', '--config.data.scale=40', '--config.data.canvas=(64, 64)',
                   f'--config.data.train.annotations={annotations}', f'--config.data.train.images={images}']) == 0
    text = capsys.readouterr().out
    assert 'nodule' in text and 'issues: none' in text and 'canvas (64, 64)' in text


def test_strict_makes_findings_an_exit_code_and_json_holds_them(write_boxes, tmp_path, capsys):
    annotations, images = write_boxes(6)
    flags = ['--config=configs/base.py', '--config.data.scale=40', '--config.data.canvas=(64, 64)',
             f'--config.data.train.annotations={annotations}', f'--config.data.train.images={images}',
             f'--json={tmp_path}/report.json']
    document = json.loads(annotations.read_text())
    document['images'].append(document['images'][1] | dict(id=30, file_name='30.png'))
    annotations.write_text(json.dumps(document))
    (images / '30.png').write_bytes((images / '2.png').read_bytes())
    assert C.main(flags) == 0
    assert C.main([*flags, '--strict']) == 1
    found = json.loads((tmp_path / 'report.json').read_text())
    lines = sum(found['findings'].values(), [])
    assert any('30.png): same content as' in line or '(2.png): same content as' in line for line in lines)
    assert found['issues'] == []
    assert found['sets'][0]['images'] + found['sets'][1]['images'] == 7
    assert C.main([*flags[:-1], '--json=-']) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index('{\n'):])['anchors']['canvas'] == [64, 64]
    assert C.main(['--config=configs/base.py', f'--config.data.train.annotations={tmp_path}/none.json']) == 2


def test_plots_are_pictures_of_the_set(write_boxes, tmp_path):
    annotations, images = write_boxes(6)
    assert C.main(['--config=configs/base.py', '--config.data.scale=40', '--config.data.canvas=(64, 64)',
                   f'--config.data.train.annotations={annotations}', f'--config.data.train.images={images}',
                   f'--plot={tmp_path}/plots']) == 0
    names = {path.name for path in (tmp_path / 'plots').iterdir()}
    assert names == {'class_counts.png', 'box_sizes.png', 'together.png', 'images.png'}
    assert all(cv2.imread(str(tmp_path / 'plots' / name)).std() > 1 for name in names)


def test_suggested_sizes_cover_boxes_that_the_present_ones_miss():
    rng = np.random.default_rng(0)
    side = rng.uniform(5, 9, (300, 2))
    corner = rng.uniform(0, 200, (300, 2))
    boxes = np.concatenate([corner, corner + side], axis=1)
    anchors = dict(canvas=(256, 256), strides=(4, 8, 16), ratios=(0.5, 1.0, 2.0))
    assert anchor_fit.uncovered(boxes, sizes=(32, 64, 128), **anchors) == 1.0
    sizes, share = anchor_fit.suggest_sizes(boxes, sizes=(32, 64, 128), **anchors)
    assert len(sizes) == 3 and share == anchor_fit.uncovered(boxes, sizes=sizes, **anchors) < 0.3
    good = anchor_fit.suggest_sizes(boxes, sizes=sizes, **anchors)
    assert good[1] <= share
    assert anchor_fit.suggest_sizes(np.zeros((0, 4)), sizes=(8, 16, 32), **anchors) == ((8, 16, 32), 0.0)
    one_level = anchor_fit.suggest_sizes(boxes, canvas=(256, 256), strides=(16,), sizes=((32, 64),), ratios=(1.0,))
    assert len(one_level[0]) == 1 and len(one_level[0][0]) == 2


def test_suggested_sizes_have_the_form_of_the_present_ones():
    corner = np.random.default_rng(0).uniform(0, 200, (50, 2))
    boxes = np.concatenate([corner, corner + 12], axis=1)      # all of one size
    anchors = dict(canvas=(256, 256), strides=(4, 8), ratios=(1.0,))
    sizes, share = anchor_fit.suggest_sizes(boxes, sizes=((32, 48), (64, 96)), **anchors)
    assert sizes == ((12, 24), (48, 96)) and share == 0
    assert anchor_fit.suggest_sizes(boxes, canvas=(256, 256), strides=(4,), sizes=(64,), ratios=(1.0,))[0] == (12,)


def test_one_class_of_small_objects_moves_one_size():
    """As in JSRT: nodules of 11 px among structures that the present sizes cover."""
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 100, (200, 2)), np.repeat([11.0, 64, 112, 160], [20, 60, 60, 60])[:, None]
    anchors = dict(canvas=(288, 288), strides=(4, 8, 16, 32), ratios=(1.0,))
    boxes = np.concatenate([corner, corner + side], axis=1)
    assert anchor_fit.uncovered(boxes, sizes=(18, 64, 112, 160), **anchors) == pytest.approx(0.1)
    sizes, share = anchor_fit.suggest_sizes(boxes, sizes=(18, 64, 112, 160), **anchors)
    assert 8 < sizes[0] < 16 and sizes == tuple(sorted(sizes)) and share == 0


def test_patients_in_both_sets_are_named_once(write_boxes):
    source = open_coco(*write_boxes(5))
    for record, patient in zip(source.records, ('a', 7, 'a', 'c', '7')):
        record['patient_id'] = patient
    train, val = subset(source, [0, 1], name='train'), subset(source, [2, 3, 4], name='val')
    assert duplicates.shared_patients(train, val, 'id') == [
        'patient_id a: 1 images in validation (such as 3 (3.png)), 1 in training (such as 1 (1.png))',
        'patient_id 7: 1 images in validation (such as 5 (5.png)), 1 in training (such as 2 (2.png))']
    assert duplicates.shared_patients(train, subset(source, [3], name='val'), 'id') == []
    for record in source.records:
        record['ward'] = 'east'
    del source.records[3]['ward']
    assert duplicates.shared_patients(train, val, 'ward') == [
        'ward east: 2 images in validation (such as 3 (3.png)), 2 in training (such as 1 (1.png))']


def test_classes_of_one_set_alone_are_named(write_boxes, tmp_path):
    annotations, images = write_boxes(6)
    document = json.loads(annotations.read_text())
    document['categories'].append({'id': 30, 'name': 'fracture'})
    document['annotations'] = [a for a in document['annotations'] if a['category_id'] == 7]
    document['annotations'].append({'id': 99, 'image_id': 1, 'category_id': 30, 'bbox': [1, 1, 9, 9]})
    (tmp_path / 'val.json').write_text(json.dumps(document))
    config = make_config((annotations, images)).unlock()
    config.data.val.annotations, config.data.val.images = str(tmp_path / 'val.json'), str(images)
    found, _ = C.report(config)
    assert found['findings']['classes in one of them alone'] == [
        'none in validation: nodule (2)', 'in validation alone, unknown to training and left out: fracture (1)']


# ---- the annotation files alone ----
def test_annotation_files_alone_are_read_without_their_images(tmp_path, capsys):
    rows = ['patientId,x,y,width,height,Target', 'a,1,2,30,40,1', 'a,50,2,30,40,1', 'b,,,,,0', 'c,1,2,0,40,1']
    (tmp_path / 'labels.csv').write_text('\n'.join(rows))
    flags = ['--config=rsna', '--no-images', f'--config.data.train.annotations={tmp_path}/labels.csv']
    assert C.main([*flags, f'--json={tmp_path}/out.json']) == 0 and C.main([*flags, '--strict']) == 1
    text = capsys.readouterr().out
    assert 'labels: 2 images, 1 without objects, 2 annotations, made of 3 rows of the file' in text
    assert 'row 5: box without positive width and height ([1.0, 2.0, 0.0, 40.0]): dropped' in text
    found = json.loads((tmp_path / 'out.json').read_text())
    assert found['sets'][0]['classes'] == {'Lung Opacity': {'instances': 2, 'images': 1}}
    assert found['issues'] == [dict(where='labels.csv: row 5', problem='box without positive width and height',
                                    rule='dropped', found='[1.0, 2.0, 0.0, 40.0]')]
    assert C.main([*flags, f'--plot={tmp_path}/plots']) == 2 and C.main(['--config=phantom', '--no-images']) == 2
    assert C.main(flags[:2]) == 2


def test_records_that_are_no_records_are_counted_and_passed_over(tmp_path):
    (tmp_path / 'a.json').write_text(json.dumps(dict(
        images=[None, {'id': [1]}, {'id': 2, 'file_name': 'x'}], annotations=[3, {}, {'category_id': 9, 'image_id': 2}],
        categories=[{'id': 1, 'name': 'mass'}])))
    about, = records.read_records(make_config((tmp_path / 'a.json', '')))
    assert (about['images'], about['annotations'], about['without_objects'], about['rows']) == (3, 3, 1, None)
    assert about['classes'] == {'mass': dict(instances=0, images=0), 'category None': dict(instances=1, images=1),
                                'category 9': dict(instances=1, images=1)}
