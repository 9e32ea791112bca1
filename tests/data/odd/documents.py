"""A clean document, and how tests spoil it."""
import copy

import numpy as np

from relnet_jax.data.issues import by_kind

SIZE = 128, 160     # height, width
CLASSES = [{'id': 1, 'name': 'nodule'}, {'id': 2, 'name': 'mass'}]


def rectangle(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def clean_document(count=10, name='im{}.png'):
    """Two objects with masks in each of `count` images, spread over the frame."""
    rng = np.random.default_rng(7)
    images, annotations = [], []
    for i in range(count):
        images.append(dict(id=i + 1, file_name=name.format(i), width=SIZE[1], height=SIZE[0]))
        for category, (w, h) in ((1, (30, 30)), (2, (36, 22))):
            x, y = int(rng.integers(0, SIZE[1] - w)), int(rng.integers(0, SIZE[0] - h))
            annotations.append(dict(id=len(annotations) + 1, image_id=i + 1, category_id=category, bbox=[x, y, w, h],
                                    area=w * h, iscrowd=0, segmentation=[rectangle(x, y, w, h)]))
    return dict(images=images, annotations=annotations, categories=copy.deepcopy(CLASSES))


def changed(field, value, kind='annotations'):
    """The clean document with `field` of every record set to `value`, or to what `value(record)` gives."""
    document = clean_document()
    for record in document[kind]:
        record[field] = value(record) if callable(value) else value
    return document


def boxes_of(source):
    return [source.load(i).boxes.tolist() for i in range(len(source))]


def kinds(source):
    return list(by_kind(source.issues))
