"""Opens documents beside images that are on disk."""
import json

import cv2
import numpy as np
import pytest

from tests.data.odd.documents import SIZE
from tests.data.opening import open_coco


@pytest.fixture
def files(tmp_path):
    """files(document): opens it, with as many images on disk as `clean_document` has by default."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(10):
        cv2.imwrite(str(folder / f'im{i}.png'), np.full(SIZE, 10 * i, np.uint8))

    def open_document(document, **options):
        file = tmp_path / 'a.json'
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        source = open_coco(file, options.pop('folder', folder), **options)
        c = source.counts       # everything is accounted for, whatever happened
        assert c['image_records'] == c['images'] + c['images_dropped'] + c['images_not_wanted']
        assert c['annotations'] == (c['used'] + c['dropped'] + c['duplicates'] + c['image_left_out'] + c['not_wanted'])
        dropped = [i for i in source.issues if 'annotations[' in i.where and i.rule == 'dropped']
        assert len(dropped) == c['dropped'] + c['duplicates']
        return source
    open_document.folder = folder
    return open_document
