"""COCO instances JSON as a `Source`: polygons, RLE, crowds, boxes without masks, own category ids, anatomical parts."""
import difflib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycocotools.mask as rle_tools
from absl import logging

from relnet_jax.data.annotations import clean_annotation
from relnet_jax.data.images import UnreadableImage, read_image
from relnet_jax.data.rle import decode_mask
from relnet_jax.data.source import Source
from relnet_jax.ops.masks import crop_mask, crop_polygons
from relnet_jax.types import Example


def read_coco(annotations: str | Path, images: str | Path, *, name: str, classes: Sequence[str] = (),
              parts: Sequence[str] = (), max_images: int = 0, mask_size: int = 112,
              window: tuple[float, float] = (0.5, 99.5)) -> Source:
    """Open the file `annotations` whose image files lie in the folder `images`, and check every record of it.

    * classes: category names in label order; () = all categories, in the file's order, that are not parts.
    * parts: category names of anatomical parts; the largest instance in an image gives the part's box.
    * max_images: the first so many images; 0 = all. mask_size: M of the mask crops. window: for 16-bit images.

    Broken records go by the rules of `data.annotations`, broken image records are dropped; each is one line in
    `Source.issues`. Images without objects are kept. Raises FileNotFoundError for the file or the folder and ValueError
    for a file that is no COCO file, a name that is no category, or when no image is left.
    """
    path, folder = Path(annotations), Path(images)
    document = _read_document(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"no image folder '{folder}'")
    ids = _category_ids(path, document['categories'])
    _check_names(path, (*classes, *parts), ids)
    classes = tuple(classes) or tuple(n for n in ids if n not in parts)
    issues = []
    records = _check_images(path, folder, document['images'], max_images, window, issues)
    if not records:
        raise ValueError(f'{path}: none of its {len(document["images"])} images can be used; first: {issues[:1]}')
    all_ids = {image['id'] for image in document['images'] if _has_id(image)}
    objects, unused = _check_objects(path, document['annotations'], records, all_ids, ids, (*classes, *parts), issues)
    _log_summary(path, name, records, objects, unused, issues)

    labels = {ids[n]: i + 1 for i, n in enumerate(classes)}
    slots = {ids[n]: i for i, n in enumerate(parts)}

    def load(index: int) -> Example:
        record = records[index]
        file = folder / record['file_name']
        image = read_image(file, window=window)
        if image.shape[:2] != (record['height'], record['width']):
            raise UnreadableImage(file, f'{image.shape[1]} x {image.shape[0]} pixels, but {path.name} says '
                                        f'{record["width"]} x {record["height"]}: its boxes would not fit')
        return _example(image, record['id'], index, objects[record['id']], labels, slots, mask_size)

    def ground_truth() -> dict:
        return _ground_truth(records, objects, {n: ids[n] for n in classes})

    return Source(name=name, classes=classes, category_ids=tuple(ids[n] for n in classes), parts=tuple(parts),
                  records=records, load=load, ground_truth=ground_truth,
                  image_path=lambda i: folder / records[i]['file_name'], issues=tuple(issues))


def _read_document(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file '{path}'")
    try:
        document = json.loads(path.read_bytes())
    except ValueError as e:
        raise ValueError(f'{path}: not valid JSON: {e}') from e
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise ValueError(f"{path}: not a COCO instances file, expected a list under '{key}'")
    return document


def _category_ids(path: Path, categories: list) -> dict[str, int]:
    """Name -> id, in the file's order. A table that is not one to one is an error: no rule could mend it."""
    ids = {}
    for i, category in enumerate(categories):
        where = f'{path}: categories[{i}]'
        if not _has_id(category) or not isinstance(category.get('name'), str):
            raise ValueError(f'{where}: expected an integer id and a name, got {category!r}')
        if category['name'] in ids or category['id'] in ids.values():
            raise ValueError(f"{where}: id {category['id']} or name '{category['name']}' is there twice")
        ids[category['name']] = category['id']
    return ids


def _check_names(path: Path, wanted: Sequence[str], ids: dict[str, int]):
    for n in wanted:
        if n not in ids:
            near = difflib.get_close_matches(n, ids, 1)
            hint = f"did you mean '{near[0]}'?" if near else f'it has {list(ids)}'
            raise ValueError(f"{path}: no category '{n}', {hint}")


def _is_id(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _has_id(record) -> bool:
    return isinstance(record, dict) and _is_id(record.get('id'))


def _check_images(path: Path, folder: Path, images: list, max_images: int, window: tuple[float, float],
                  issues: list[str]) -> list[dict]:
    """The first usable image records (copies, with `width` and `height`); what is wrong with others joins `issues`."""
    records, seen, names = [], set(), {}
    for i, image in enumerate(images):
        if max_images and len(records) == max_images:
            break
        where = f'{path.name}: images[{i}]'
        if not _has_id(image) or not isinstance(image.get('file_name'), str):
            issues.append(f'{where}: expected an integer id and a file_name, got {image!r}: image dropped')
            continue
        where += f' id {image["id"]}'
        if image['id'] in seen:
            issues.append(f'{where}: id is there twice: second image dropped')
            continue
        file = folder / image['file_name']
        if not file.is_file():
            issues.append(f"{where}: file '{image['file_name']}' not found in the image folder: image dropped")
            continue
        size = image.get('height'), image.get('width')
        if not all(_is_id(side) and side > 0 for side in size):
            try:
                size = read_image(file, window=window).shape[:2]
            except UnreadableImage as e:
                issues.append(f'{where}: no width and height, and unreadable ({e.reason}): image dropped')
                continue
        if image['file_name'] in names:
            other = names[image['file_name']]
            issues.append(f"{where}: file '{image['file_name']}' is also that of id {other}: both kept")
        names.setdefault(image['file_name'], image['id'])
        seen.add(image['id'])
        records.append(image | {'height': size[0], 'width': size[1]})
    return records


def _check_objects(path: Path, annotations: list, records: list[dict], all_ids: set[int], ids: dict[str, int],
                   wanted: Sequence[str], issues: list[str]) -> tuple[dict[int, list[dict]], Counter]:
    """(image id -> its objects of the wanted categories, number of objects per category that nobody asked for).

    Annotations of images that are known but not used are passed over: a dropped image has its own line, and images
    beyond max_images nobody asked for.
    """
    frames = {record['id']: (record['width'], record['height']) for record in records}
    names = {i: n for n, i in ids.items()}
    objects, unused, seen = {i: [] for i in frames}, Counter(), set()
    for i, annotation in enumerate(annotations):
        where = f'{path.name}: annotations[{i}]'
        if not isinstance(annotation, dict):
            issues.append(f'{where}: expected a dict, got {annotation!r}: dropped')
            continue
        where += f' id {annotation.get("id")}'
        image_id, category = annotation.get('image_id'), annotation.get('category_id')
        if not _is_id(image_id) or image_id not in all_ids:
            issues.append(f'{where}: image_id {image_id!r} is not in the file: dropped')
            continue
        if image_id not in frames:
            continue
        if not _is_id(category) or category not in names:
            issues.append(f'{where}: category_id {category!r} is not in the category table: dropped')
            continue
        if names[category] not in wanted:
            unused[names[category]] += 1
            continue
        found, problems = clean_annotation(annotation, *frames[image_id])
        key = (image_id, category, *found['box']) if found else None
        if key in seen:
            found, problems = None, [f'same image, category and box {found["box"]} as an earlier one: dropped']
        issues += [f'{where}: {problem}' for problem in problems]
        if found:
            seen.add(key)
            objects[image_id].append(found)
    return objects, unused


def _log_summary(path: Path, name: str, records: list[dict], objects: dict, unused: Counter, issues: list[str]):
    everything = [o for found in objects.values() for o in found]
    logging.info('%s: %d images (%d without objects), %d objects (%d without a mask, %d crowds)', name, len(records),
                 sum(not found for found in objects.values()), len(everything),
                 sum(o['segmentation'] is None for o in everything), sum(o['crowd'] for o in everything))
    if unused:
        logging.info('%s: not asked for: %s', name, ', '.join(f'{n} ({count})' for n, count in unused.most_common()))
    if issues:
        logging.warning('%s: %d issues%s\n%s', path, len(issues), ', the first 10:' if len(issues) > 10 else ':',
                        '\n'.join(f'  {issue}' for issue in issues[:10]))


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
