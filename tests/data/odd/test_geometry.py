"""Boxes and masks in other forms than COCO's."""
import cv2
import numpy as np
import pytest

from tests.data.odd.documents import SIZE, changed, clean_document, kinds


def normalised(values):
    return [v / SIZE[1 - i % 2] for i, v in enumerate(values)]


@pytest.mark.parametrize('masks', [True, False])
@pytest.mark.parametrize('form, words', [
    (lambda x, y, w, h: [x, y, x + w, y + h], r'boxes look like \[x1, y1, x2, y2\], not \[x, y, width, height\]'),
    (lambda x, y, w, h: normalised([x, y, w, h]), 'boxes look normalised'),
    (lambda x, y, w, h: normalised([x, y, x + w, y + h]), 'boxes look normalised'),
    (lambda x, y, w, h: [str(x), y, x + w, y + h], r'boxes look like \[x1, y1, x2, y2\]')])
def test_boxes_that_look_like_something_else_stop(files, masks, form, words):
    document = changed('bbox', lambda a: form(*a['bbox']))
    if not masks:
        for a in document['annotations']:
            del a['segmentation']
    with pytest.raises(ValueError, match=f'{words}.*data.check_geometry=False'):
        files(document)
    assert files(document, check_geometry=False, max_dropped=1).counts['annotations'] == 20


@pytest.mark.parametrize('form, words', [
    (lambda x, y, w, h: [x + w / 2, y + h / 2, w, h], r'\[center x, center y, width, height\]'),
    (lambda x, y, w, h: [y, x, h, w], r'\[y, x, height, width\]'),
    (lambda x, y, w, h: [y, x, y + h, x + w], r'\[y1, x1, y2, x2\]'),
    (lambda x, y, w, h: [100 * v for v in normalised([x, y, w, h])], r'\[x, y, width, height\] in per cent')])
def test_masks_tell_what_boxes_mean(files, form, words):
    with pytest.raises(ValueError, match=f'boxes look like {words}, not'):
        files(changed('bbox', lambda a: form(*a['bbox'])))


def test_normalised_polygons_stop_with_or_without_boxes(files):
    document = changed('segmentation', lambda a: [normalised(a['segmentation'][0])])
    with pytest.raises(ValueError, match='polygons look normalised'):
        files(document)
    for a in document['annotations']:
        a['bbox'] = None
    with pytest.raises(ValueError, match='polygons look normalised'):
        files(document)


def test_rle_of_exchanged_size_is_recognised(files):
    runs = [0, SIZE[0] * SIZE[1]]
    with pytest.raises(ValueError, match=r'RLE sizes look like \[width, height\]: \[160, 128\] in an image 160 px'):
        files(changed('segmentation', dict(size=[SIZE[1], SIZE[0]], counts=runs)))


def test_boxes_in_per_cent_are_remarked_on(tmp_path, files, caplog):
    document = clean_document()
    for i in range(10):
        cv2.imwrite(str(files.folder / f'im{i}.png'), np.zeros((1000, 800), np.uint8))
    for image in document['images']:
        image.update(width=800, height=1000)
    for a in document['annotations']:
        a['bbox'], a['segmentation'] = [v / 1.7 for v in a['bbox']], None
    files(document)
    assert 'all 20 boxes lie in the upper left' in caplog.text and 'per cent' in caplog.text


def test_one_odd_box_is_not_the_whole_file(files):
    document = clean_document()
    document['annotations'][0] |= dict(bbox=[0.25, 0.25, 0.5, 0.5], segmentation=None)
    document['annotations'][1] |= dict(bbox=[100, 100, 140, 120], segmentation=None)
    source = files(document)
    assert source.counts['used'] == 20 and kinds(source) == [('bbox leaves the image', 'clipped')]
