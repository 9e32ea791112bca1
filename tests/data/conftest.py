"""A small COCO data set on disk, as images and annotations are given to it."""
import json

import cv2
import numpy as np
import pytest

CATEGORIES = [{'id': 3, 'name': 'nodule'}, {'id': 7, 'name': 'mass'}, {'id': 20, 'name': 'left lung'},
              {'id': 21, 'name': 'right lung'}]


@pytest.fixture
def write_coco(tmp_path):
    """write_coco(annotations, sizes=[(height, width), ...], images=None) -> (annotation file, image folder).

    Writes one PNG of noise per size, ids from 1 on; `images` replaces the image records.
    """
    def write(annotations, sizes=((40, 60),), images=None, categories=CATEGORIES):
        folder = tmp_path / 'images'
        folder.mkdir(exist_ok=True)
        records = []
        for i, (height, width) in enumerate(sizes, 1):
            pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f'{i}.png'), pixels)
            records.append({'id': i, 'file_name': f'{i}.png', 'height': height, 'width': width})
        file = tmp_path / 'instances.json'
        file.write_text(json.dumps({'images': records if images is None else images, 'annotations': annotations,
                                    'categories': categories}))
        return file, folder

    return write


@pytest.fixture
def write_boxes(write_coco):
    """write_boxes(count): a data set of `count` images of different sizes with image i holding i % 3 boxes."""
    def write(count):
        sizes = [(32 + 4 * i, 60 - 2 * i) for i in range(count)]
        annotations = [{'id': 10 * i + k, 'image_id': i + 1, 'category_id': 3 if k else 7,
                        'bbox': [2 + 5 * k, 3, 8 + i, 9]} for i in range(count) for k in range(i % 3)]
        return write_coco(annotations, sizes)

    return write
