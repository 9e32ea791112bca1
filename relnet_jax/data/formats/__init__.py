"""The formats a data set may come in. A new one is one file here with a reader, and one line in `FORMATS`.

A **reader** is `read(path, folder, data) -> (document, issues)`: the annotation file, the folder of its images, and
`config.data` with the options of the format. It opens no image. The document is a dict in COCO form:

* `images`: dicts of `id` (whole number or text), `file_name` (below the folder; one without an extension is found by
  its stem) and whatever else is known (`patient_id`, ...), which stays in the records. `width` and `height` (pixels)
  are those that the annotations refer to; without them, the header of the file is asked.
* `annotations`: dicts of `image_id`, `category_id`, `bbox` [x, y, width, height] in pixels, and optionally
  `segmentation` (list of flat polygons, or RLE dict; missing = no mask), `iscrowd` and `area`.
* `categories`: dicts of `id` and `name`, in label order.
* `parts` (optional): names of the categories that are anatomical parts, if the format says so itself; and `classes`:
  names of those to detect, in label order.

An image or annotation may say in `where` ('row 17') how messages shall call it; else it is 'annotations[16] id 4'.
`coco_source` checks every record and drops what is broken, so a reader need not; what a reader itself drops or changes
it returns as `Issue`s, one for each row of the file: rows in = rows used + rows reported. It raises FileNotFoundError
without the file and UserError, naming file and place, for one that is not of its format at all.

An entry of FORMATS is `open(data, split, wanted) -> Source`: `split` is 'train' or 'val', `wanted` the class names of
the model at hand (those that the data lack are left out), or None for those of `data.classes`.
"""
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from relnet_jax.data.coco_source import coco_source
from relnet_jax.data.formats import chestx_det, coco, lab, rsna, siim, tfds, vindr
from relnet_jax.data.formats.meta import add_meta
from relnet_jax.data.formats.parts_file import add_parts
from relnet_jax.data.formats.rename import rename
from relnet_jax.data.issues import Issue
from relnet_jax.data.phantom import phantom_source
from relnet_jax.data.read_options import read_options
from relnet_jax.data.source import Source
from relnet_jax.errors import UserError

Wanted = tuple[str, ...] | None


def from_documents(read: Callable) -> Callable[[ConfigDict, str, Wanted], Source]:
    """The entry of FORMATS for a reader."""
    def open_split(data: ConfigDict, split: str, wanted: Wanted) -> Source:
        files = data[split]
        if not files.annotations:
            raise UserError(f'data.{split}.annotations is not set: give a {data.format} file, and its folder of images '
                            f'as data.{split}.images')
        if not files.images:
            raise UserError(f'data.{split}.images is not set: the folder of the images of {files.annotations}')
        path, folder = Path(files.annotations), Path(files.images)
        document, issues = amend(*read(path, folder, data), path, data)
        return _open(document, issues, path, folder, data, files.max_images, wanted, name=path.stem)
    open_split.read = read      # for those who want the records alone, `data.records`
    return open_split


def _open(document: dict, issues: list[Issue], path: Path, folder: Path, data: ConfigDict, max_images: int,
          wanted: Wanted, *, name: str, find: Callable | None = None) -> Source:
    return coco_source(document, folder, file=path, issues=issues, name=name,
                       classes=tuple(data.classes) if wanted is None else wanted, strict=wanted is None,
                       parts=tuple(data.parts), max_images=max_images, mask_size=data.mask_size, min_box=data.min_box,
                       options=read_options(data), crowds=data.crowds, check_geometry=data.check_geometry,
                       allow_outside=data.allow_outside, max_unreadable=data.max_unreadable,
                       max_dropped=data.max_dropped, find=find)


def open_tfds(data: ConfigDict, split: str, wanted: Wanted) -> Source:
    """A TFDS data set, which holds its images."""
    files = data[split]
    if not files.annotations:
        raise UserError(f'data.{split}.annotations is not set: give the folder of a TFDS data set')
    folder = Path(files.annotations)
    document, find, name = tfds.read(folder, data, split=split)
    file = folder / split       # for messages
    document, issues = amend(document, [], file, data)
    return _open(document, issues, file, folder, data, files.max_images, wanted, name=name, find=find)


def amend(document: dict, issues: list[Issue], file: Path, data: ConfigDict) -> tuple[dict, list[Issue]]:
    """(document, issues) with what data.meta and data.parts_file add and data.rename changes."""
    more = []
    if data.meta:
        document, found = add_meta(document, Path(data.meta))
        more += found
    if data.rename:
        document, found = rename(document, data.rename, file)
        more += found
    if data.parts_file:
        document, found = add_parts(document, data.parts_file, data.parts)
        more += found
    return document, issues + more


def open_phantom(data: ConfigDict, split: str, wanted: Wanted) -> Source:
    return phantom_source(split=split, mask_size=data.mask_size, **data.phantom)


def has_validation(data: ConfigDict) -> bool:
    """Whether there are validation data of their own; else a part of the training images is held out."""
    return data.format == 'phantom' or bool(data.val.annotations)


FORMATS = {
    'phantom': open_phantom,
    'coco': from_documents(coco.read),
    'chestx_det': from_documents(chestx_det.read),
    'lab': from_documents(lab.read),
    'vindr': from_documents(vindr.read),
    'rsna': from_documents(rsna.read),
    'siim': from_documents(siim.read),
    'tfds': open_tfds,
}
