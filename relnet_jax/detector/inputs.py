"""What a detector may be given: arrays, files and folders, and how they become a source of images."""
import itertools
import os
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from relnet_jax.data import fit
from relnet_jax.data.grey import window_16bit
from relnet_jax.data.images import SUFFIXES, UnreadableImage, dicom_uids, is_image_file, read_header, read_image
from relnet_jax.data.read_options import ReadOptions, read_options
from relnet_jax.data.source import Source
from relnet_jax.errors import UserError, hint
from relnet_jax.types import Example

LONGEST_NAME = 180      # bytes of an output's name; file systems allow 255
KINDS = 'an array uint8, uint16 or float in 0..1, [h, w], [h, w, 1], [h, w, 3] or [h, w, 4]'


def files_in(folder: str | Path, *, without: Path | None = None) -> list[Path]:
    """The images in a folder and its subfolders in sorted order, without what lies in `without`."""
    without = without and without.resolve()
    return sorted(p for p in Path(folder).rglob('*')
                  if is_image_file(p) and not (without and p.resolve().is_relative_to(without)))


def find_images(names: Sequence[str], out: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """(pairs of a file and what its output is named after, problems) of files and folders given by name; a file that
    is meant twice is there once.

    Folders are searched with their subfolders for images, in sorted order, leaving out what lies in `out`, so that a
    second run does not take the first one's overlays for input. A file in a folder is named after its path below it.
    """
    found, problems = {}, []
    for name in names:
        path = Path(name)
        if path.is_dir():
            here = files_in(path, without=out)
            if not here:
                problems.append(f'{path}: no images ({", ".join(SUFFIXES)}) in this folder')
            for file in here:
                found.setdefault(file.absolute(), (file, file.relative_to(path)))
        elif path.exists():
            found.setdefault(path.absolute(), (path, Path(path.name)))
        else:
            problems.append(f'{path}: no such file or folder')
    return list(found.values()), problems


def name_outputs(found: Sequence[tuple[Path, Path]], taken: Iterable[str] = ()) -> list[str]:
    """A name for the output of each of `find_images`, none of which is among `taken`.

    It is the path after which it is named with '__' for '/' and .png for the extension; further words or numbers keep
    equal ones apart, also where case does not count.
    """
    taken, outputs = {name.casefold() for name in taken}, []
    for file, relative in found:
        stem = '__'.join(relative.with_suffix('').parts).encode()[-LONGEST_NAME:].decode(errors='ignore')
        choices = itertools.chain(
            [stem, f'{stem}{relative.suffix.replace(".", "_")}', f'{file.resolve().parent.name}__{stem}'],
            (f'{stem}-{n}' for n in itertools.count(2)))
        choice = next(c for c in choices if f'{c}.png'.casefold() not in taken)
        taken.add(f'{choice}.png'.casefold())
        outputs.append(f'{choice}.png')
    return outputs


def to_rgb8(image: Any, options: ReadOptions) -> np.ndarray:
    """uint8 [h, w, 3], RGB, of an array as `KINDS` has them: uint8 as it is, uint16 as 16-bit files are read (spread
    between the percentiles `options.window`), float times 255. Grey is replicated, a fourth channel dropped.

    Raises UserError, saying what was given, for anything else.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise UserError(f'expected {KINDS}, got {np.asarray(image).dtype} {list(np.shape(image))}')
    array = array[:, :, :3]
    if array.dtype == np.uint16:
        array = window_16bit(array, options.window)
    elif np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not 0 <= low <= high <= 1:       # NaN, too
            raise UserError(f'expected {KINDS}, got {array.dtype} from {low:g} to {high:g}')
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise UserError(f'expected {KINDS}, got {array.dtype}')
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def read_item(item: Any, options: ReadOptions) -> tuple[np.ndarray, dict]:
    """(uint8 [h, w, 3] as displayed, what its header says: `orientation`, and the UIDs of DICOM) of a file or array.

    Raises UnreadableImage for a file, UserError for an array.
    """
    if not isinstance(item, (str, os.PathLike)):
        return to_rgb8(item, options), {}
    orientation = read_header(item, options).orientation
    image = fit.turn(read_image(item, options), 1 if options.exif == 'ignore' else orientation)
    return image, dict(orientation=orientation) | dicom_uids(item, options)


def part_rows(known: Mapping[str, Sequence[float]], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(boxes float32 [P, 4], valid bool [P]) of the parts called `names`; `known`: name -> xyxy in pixels of the image.

    Raises UserError for a part that the detector does not know and for what is no box.
    """
    boxes, valid = np.zeros((len(names), 4), np.float32), np.zeros(len(names), bool)
    for name, box in known.items():
        if name not in names:
            raise UserError(f"no part '{name}'{hint(name, names) or '; this detector was trained without parts'}")
        if np.shape(box) != (4,) or not (box[0] < box[2] and box[1] < box[3]):
            raise UserError(f"part '{name}': expected x1, y1, x2, y2, got {list(box)}")
        boxes[names.index(name)], valid[names.index(name)] = box, True
    return boxes, valid


def image_source(items: Sequence[Any], class_table: Mapping, config: ConfigDict, about: MutableMapping[int, dict], *,
                 parts: Sequence[Mapping[str, Sequence[float]] | None] = ()) -> Source:
    """Files and arrays as a data source without objects; image ids count from 1. `class_table` is that of the
    checkpoint.

    Loading an image notes in `about`, by its position, what `read_item` tells of it, or as `problem` why it cannot be
    read. Nothing is read before. parts: where parts are known, for each image as of `part_rows`.
    """
    part_names, options = tuple(class_table['parts']), read_options(config.data)
    known = [part_rows(given or {}, part_names) for given in parts] or [part_rows({}, part_names)] * len(items)

    def load(index: int) -> Example:
        try:
            image, about[index] = read_item(items[index], options)
        except UnreadableImage as e:
            about[index] = dict(problem=str(e))
            raise
        except UserError as e:
            raise UserError(f'image {index}: {e}') from None
        part_boxes, part_valid = known[index]
        return Example(
            image=image, image_id=index + 1, index=index, boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int32), crowd=np.zeros(0, bool),
            masks=np.zeros((0, config.data.mask_size, config.data.mask_size), np.uint8), has_mask=np.zeros(0, bool),
            part_boxes=part_boxes, part_valid=part_valid)

    return Source(
        name='images', classes=tuple(class_table['classes']), category_ids=tuple(class_table['category_ids']),
        parts=part_names, records=[dict(id=i + 1) for i in range(len(items))], load=load, annotated=False,
        ground_truth=lambda: dict(images=[], annotations=[], categories=categories(class_table)))


def categories(class_table: Mapping) -> list[dict]:
    """The classes as COCO has them."""
    return [dict(id=i, name=name) for i, name in zip(class_table['category_ids'], class_table['classes'])]
