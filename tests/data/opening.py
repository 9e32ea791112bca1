"""COCO files opened without a config."""
from pathlib import Path

from relnet_jax.data.coco_source import coco_source
from relnet_jax.data.formats.coco import read_document


def open_coco(annotations, images, **options):
    """The `Source` of a COCO file and its folder of images; options as those of `coco_source`."""
    file = Path(annotations)
    return coco_source(read_document(file), Path(images), file=file, **{'name': file.stem, 'mask_size': 14} | options)
