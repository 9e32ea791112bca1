"""COCO files opened without a config, and small configs that open them."""
from pathlib import Path

from configs import base
from relnet_jax.data.coco_source import coco_source
from relnet_jax.data.formats.coco import read_document


def open_coco(annotations, images, **options):
    """The `Source` of a COCO file and its folder of images; options as those of `coco_source`."""
    file = Path(annotations)
    return coco_source(read_document(file), Path(images), file=file, **{'name': file.stem, 'mask_size': 14} | options)


def make_config(**data):
    config = base.get_config().unlock()
    config.data.update(dict(canvas=(64, 64), scale=40, max_size=64, max_objects=4, mask_size=6, scale_jitter=(0.6, 1.5),
                            brightness=0.1, contrast=0.2, gamma=0.2, threads=3, prefetch=4) | data)
    return config.lock()


def coco_config(train, val=('', ''), **data):
    config = make_config(**data).unlock()
    config.data.train.annotations, config.data.train.images = map(str, train)
    config.data.val.annotations, config.data.val.images = map(str, val)
    return config.lock()
