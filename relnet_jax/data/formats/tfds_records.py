"""What an example of a data set holds in TFDS form, and what `data.tfds_export` and the reader both know of it.

Boxes and segmentations are in the pixels that `width` and `height` of the record count; `image` is the file as it was,
which may be a resized copy.
"""
from typing import Any

import numpy as np

VERSION = '1.0.0'
FORMAT = 'relnet_jax 1'     # in the metadata, with `categories` (id, name, in label order) and `parts` (names)


def features() -> Any:
    """The FeaturesDict of an example."""
    import tensorflow_datasets as tfds  # half a second, wanted by two commands alone
    f = tfds.features
    return f.FeaturesDict({
        'image': f.Tensor(shape=(), dtype=np.object_),      # bytes of an image file
        'file_name': f.Text(), 'record': f.Text(),          # JSON of the record: id, width, height, whatever else
        'objects': f.Sequence({
            'bbox': f.Tensor(shape=(4,), dtype=np.float32),     # x, y, width, height
            'category_id': f.Scalar(np.int64), 'iscrowd': f.Scalar(np.bool_),
            'annotation': f.Text()})})      # JSON as of COCO: bbox (TFDS keeps 32 bits of it), area, segmentation
