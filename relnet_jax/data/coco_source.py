"""A document in COCO form as a `Source`: its records are checked, and what is left is loaded image by image."""
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycocotools.mask as rle_tools
from absl import logging

from relnet_jax.data.document import category_ids, check_names, clean_images, clean_objects
from relnet_jax.data.images import UnreadableImage, read_image
from relnet_jax.data.issues import Issue, log_summary
from relnet_jax.data.rle import decode_mask
from relnet_jax.data.source import Source
from relnet_jax.errors import UserError
from relnet_jax.ops.masks import crop_mask, crop_polygons
from relnet_jax.types import Example


def coco_source(document: dict, folder: Path, *, file: Path, name: str, classes: Sequence[str] = (),
                parts: Sequence[str] = (), strict: bool = True, max_images: int = 0, mask_size: int = 112,
                window: tuple[float, float] = (0.5, 99.5), issues: Sequence[Issue] = ()) -> Source:
    """Open a `document` (see `data.formats`) whose image files lie in `folder`, and check every record of it.

    * file: what it was read from, for messages. issues: what the reader found.
    * classes: category names in label order; () = all categories, in the file's order, that are not parts. strict: a
      name that is no category is an error; else such names are left out.
    * parts: category names of anatomical parts, () = those of the document; the largest instance in an image gives the
      part's box.
    * max_images: the first so many images; 0 = all. mask_size: M of the mask crops. window: for 16-bit images.

    Broken records go by the rules of `data.document` and `data.annotations`; each is one of `Source.issues`. Images
    without objects are kept. Raises FileNotFoundError without the folder and ValueError for a name that is no category
    or when no image is left.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no image folder '{folder}'")
    ids = category_ids(file, document['categories'])
    parts = tuple(parts) or tuple(document.get('parts', ()))
    if not strict:
        classes, parts = ([n for n in names if n in ids] for names in (classes, parts))
    check_names(file, (*classes, *parts), ids)
    classes = tuple(classes) or tuple(n for n in ids if n not in parts)
    issues = list(issues)
    records = clean_images(file, folder, document['images'], max_images=max_images, window=window, issues=issues)
    if not records:
        raise UserError(f'{file}: none of its {len(document["images"])} images can be used; first: '
                         f'{issues[0] if issues else "there is none"}')
    objects, unused = clean_objects(file, document['annotations'], records=records, images=document['images'], ids=ids,
                                    wanted=(*classes, *parts), issues=issues)
    _log_counts(name, records, objects, unused)
    log_summary(str(file), issues)

    labels = {ids[n]: i + 1 for i, n in enumerate(classes)}
    slots = {ids[n]: i for i, n in enumerate(parts)}

    def load(index: int) -> Example:
        record = records[index]
        path = folder / record['file_name']
        image = read_image(path, window=window)
        if image.shape[:2] != (record['height'], record['width']):
            raise UnreadableImage(path, f'{image.shape[1]} x {image.shape[0]} pixels, but {file.name} says '
                                        f'{record["width"]} x {record["height"]}: its boxes would not fit')
        return _example(image, record['id'], index, objects[record['id']], labels, slots, mask_size)

    def ground_truth() -> dict:
        return _ground_truth(records, objects, {n: ids[n] for n in classes})

    return Source(name=name, classes=classes, category_ids=tuple(ids[n] for n in classes), parts=tuple(parts),
                  records=records, load=load, ground_truth=ground_truth,
                  image_path=lambda i: folder / records[i]['file_name'], issues=tuple(issues))


def _log_counts(name: str, records: list[dict], objects: dict, unused: Counter) -> None:
    everything = [o for found in objects.values() for o in found]
    logging.info('%s: %d images (%d without objects), %d objects (%d without a mask, %d crowds)', name, len(records),
                 sum(not found for found in objects.values()), len(everything),
                 sum(o['segmentation'] is None for o in everything), sum(o['crowd'] for o in everything))
    if unused:
        logging.info('%s: not asked for: %s', name, ', '.join(f'{n} ({count})' for n, count in unused.most_common()))


def _crop(o: dict, size: int) -> np.ndarray:
    """uint8 [size, size] coverage of a checked object inside its box; zeros without a mask."""
    box = np.float32(o['box'])
    if o['segmentation'] is None:
        return np.zeros((size, size), np.uint8)
    if isinstance(o['segmentation'], dict):
        return crop_mask(decode_mask(o['segmentation']), box, size)
    return crop_polygons(o['segmentation'], box, size)


def _example(image: np.ndarray, image_id: int, index: int, found: list[dict], labels: dict[int, int],
             slots: dict[int, int], mask_size: int) -> Example:
    shown = [o for o in found if o['category_id'] in labels]
    masks = [_crop(o, mask_size) for o in shown]
    part_boxes, part_area = np.zeros((len(slots), 4), np.float32), np.zeros(len(slots))
    for o in found:
        slot = slots.get(o['category_id'])
        if slot is not None and not o['crowd'] and _box_area(o) > part_area[slot]:
            part_boxes[slot], part_area[slot] = o['box'], _box_area(o)
    return Example(
        image=image, image_id=image_id, index=index,
        boxes=np.array([o['box'] for o in shown], np.float32).reshape(-1, 4),
        labels=np.array([labels[o['category_id']] for o in shown], np.int32),
        crowd=np.array([o['crowd'] for o in shown], bool),
        masks=np.array(masks, np.uint8).reshape(-1, mask_size, mask_size),
        has_mask=np.array([o['segmentation'] is not None for o in shown], bool),
        part_boxes=part_boxes, part_valid=part_area > 0)


def _ground_truth(records: list[dict], objects: dict[int, list[dict]], ids: dict[str, int]) -> dict:
    """The checked objects of the classes in COCO form, numbered from 1 on: pycocotools takes an id of 0 for none."""
    wanted, annotations = set(ids.values()), []
    for record in records:
        for o in objects[record['id']]:
            if o['category_id'] not in wanted:
                continue
            x1, y1, x2, y2 = o['box']
            segmentation = o['segmentation']
            annotation = dict(id=len(annotations) + 1, image_id=record['id'], category_id=o['category_id'],
                              bbox=[x1, y1, x2 - x1, y2 - y1], area=o['area'], iscrowd=int(o['crowd']))
            if isinstance(segmentation, dict):
                annotation['segmentation'] = segmentation | {'counts': segmentation['counts'].decode()}
            elif segmentation is not None:
                annotation['segmentation'] = segmentation
            if annotation['area'] is None:
                annotation['area'] = _box_area(o) if segmentation is None else _mask_area(segmentation, record)
            annotations.append(annotation)
    return dict(images=[dict(record) for record in records], annotations=annotations,
                categories=[dict(id=i, name=n) for n, i in ids.items()])


def _box_area(o: dict) -> float:
    x1, y1, x2, y2 = o['box']
    return (x2 - x1) * (y2 - y1)


def _mask_area(segmentation: list | dict, record: dict) -> float:
    if isinstance(segmentation, list):
        segmentation = rle_tools.merge(rle_tools.frPyObjects(segmentation, record['height'], record['width']))
    return float(rle_tools.area(segmentation))
