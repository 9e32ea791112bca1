"""What an example of a data set holds in TFDS form; `data.tfds_export` writes it and `formats.tfds` reads it.

`image`, `image/filename` and `objects` with `bbox`, `label` and `is_crowd` are as in TFDS's own detection sets, for
whatever else reads them. TFDS keeps 32 bits of a number, so what has to come back to the last bit stands in JSON texts:
`record` (id, width, height and all else that is known of the image) and `annotation` (as in COCO files: bbox,
segmentation, area). These are in the pixels that `width` and `height` of the record count; `image` is the file as it
was, which may be a resized copy.
"""
from collections.abc import Sequence
from typing import Any

import numpy as np

VERSION = '1.0.0'
FORMAT = 'relnet_jax 1'     # in the metadata, with `categories` (id, name: classes, then parts), `classes` and `parts`


def features(classes: Sequence[str], parts: Sequence[str]) -> Any:
    """The FeaturesDict of an example; labels are positions in these names."""
    import tensorflow_datasets as tfds  # half a second, wanted by one format alone
    f = tfds.features

    def boxes(names: Sequence[str], **more: Any) -> Any:
        return f.Sequence({'bbox': f.BBoxFeature(), 'label': f.ClassLabel(names=list(names)),
                           'annotation': f.Text(), **more})

    return f.FeaturesDict({
        'image': f.Image(shape=(None, None, 3)), 'image/filename': f.Text(), 'record': f.Text(),
        'objects': boxes(classes, is_crowd=f.Scalar(np.bool_)), 'parts': boxes(parts)})
