"""A document in COCO form as a `Source`: its records are checked, and what is left is loaded image by image."""
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pycocotools.mask as rle_tools
from absl import logging

from relnet_jax.data import fit, geometry_checks
from relnet_jax.data.annotations import grow_box
from relnet_jax.data.categories import category_ids, choose, count_used, is_background
from relnet_jax.data.document import candidates, check_dropped, fit_objects, use_images
from relnet_jax.data.image_files import Found
from relnet_jax.data.images import UnreadableImage, read_image
from relnet_jax.data.issues import A_FEW, Issue, listed, log_summary
from relnet_jax.data.read_options import DEFAULTS, ReadOptions
from relnet_jax.data.rle import decode_mask
from relnet_jax.data.source import Source
from relnet_jax.errors import UserError
from relnet_jax.ops.masks import crop_mask, crop_polygons
from relnet_jax.types import Example


def coco_source(document: dict, folder: Path, *, file: Path, name: str, classes: Sequence[str] = (),
                parts: Sequence[str] = (), strict: bool = True, max_images: int = 0, mask_size: int = 112,
                min_box: float = 0, options: ReadOptions = DEFAULTS, crowds: bool = True, check_geometry: bool = True,
                allow_outside: bool = False, max_unreadable: float = 0.05, max_dropped: float = 0.2,
                find: Callable[[str], Found] | None = None, issues: Sequence[Issue] = ()) -> Source:
    """Open a `document` (see `data.formats`) whose image files lie in `folder`, and check every record of it.

    * file: what it was read from, for messages. issues: what the reader found.
    * classes: category names in label order; () = those of the document if it and not `parts` says so, else all
      categories, in the file's order, that are neither parts nor called background. strict: a name that is no category
      is an error; else such names are left out.
    * parts: category names of anatomical parts, () = those of the document; the largest instance in an image gives the
      part's box.
    * max_images: the first so many images; 0 = all. mask_size: M of the mask crops. options: how image files are read.
    * min_box: sides of boxes below it, in pixels, are grown to it, but not those of parts.
    * crowds: False = `iscrowd` is not looked at, every object is one instance.
    * check_geometry: boxes and sizes that look like something else (`geometry_checks`) are an error.
    * allow_outside: image files may lie outside of the folder.
    * find: file name -> `image_files.Found`, of formats that hold their images; None = as `image_files.image_finder`.
    * max_unreadable, max_dropped: shares of missing image files and of unusable annotations above which it is an error.

    Files that are turned or of another size than the annotations say go by the rules of `fit`, broken records by those
    of `document` and `annotations`; each is one of `Source.issues`, and `Source.counts` adds up. Images without objects
    are kept. Raises FileNotFoundError without the folder and UserError for a name that is no category, for a file that
    is broken as a whole, and when no image or no object is left of those there were.
    """
    if find is None and not folder.is_dir():
        raise FileNotFoundError(f"no image folder '{folder}'")
    issues, annotations = list(issues), document['annotations']
    not_read = sum(issue.rule == 'dropped' for issue in issues)
    ids, found = category_ids(file, document['categories'], count_used(annotations))
    issues += found
    part_ids, found = choose(file, tuple(parts) or document.get('parts', ()), ids, strict=strict,
                             remedy='; a part may also come from data.parts_file')
    issues += found
    default = () if parts else document.get('classes', ())
    class_ids, found = choose(file, classes or default or [n for n in ids if n not in part_ids
                                                           and not is_background(n)], ids, strict=strict)
    issues += found
    images = use_images(file, folder, document['images'], max_images=max_images, max_lost=max_unreadable,
                        allow_outside=allow_outside, options=options, issues=issues, find=find)
    turns, notes = fit.fit_all(images.records, images.headers, options.exif)
    names = {number: n for n, number in ids.items()}
    wanted = {*class_ids.values(), *part_ids.values()}
    to_check, counts, unwanted = candidates(file, annotations, images, names=names, wanted=wanted, crowds=crowds,
                                            issues=issues)
    if check_geometry:
        geometry_checks.check_whole_file(file, to_check)
    objects, fitted = fit_objects(to_check, issues=issues)
    counts += fitted
    count = len(to_check) + counts['dropped'] - fitted['dropped']
    check_dropped(file, not_read + counts['dropped'], not_read + count, max_dropped, issues)
    objects = {record['id']: objects.get(record['id'], []) for record in images.records}
    if min_box:
        _grow_boxes(images.records, objects, min_box, but=set(part_ids.values()))
    _check_crowds(file, objects, {number: n for n, number in class_ids.items()})
    labels = {number: i + 1 for i, number in enumerate(class_ids.values())}
    slots = {number: i for i, number in enumerate(part_ids.values())}
    shown = sum(o['category_id'] in labels for found in objects.values() for o in found)
    counts = dict(image_records=len(document['images']), images=len(images.records), images_dropped=images.dropped,
                  images_not_wanted=len(document['images']) - len(images.records) - images.dropped,
                  annotations=len(annotations),
                  **{key: counts[key] for key in ('used', 'dropped', 'duplicates', 'image_left_out', 'not_wanted')},
                  objects=shown)
    _log_counts(name, counts, objects, class_ids)
    if others := [f'{n} ({unwanted[n]})' for n in ids if ids[n] not in wanted]:
        logging.info('%s: categories not asked for, with their objects: %s', name, listed(others))
    for note in notes:
        logging.info('%s: %s', name, note)
    log_summary(str(file), issues)

    records, paths = images.records, images.paths

    def load(index: int) -> Example:
        record = records[index]
        image = fit.turn(read_image(paths[index], options), turns[index])
        example = _example(image, record['id'], index, objects[record['id']], labels, slots, mask_size)
        try:
            return fit.scaled(example, (record['height'], record['width']))
        except ValueError as e:
            raise UnreadableImage(paths[index], str(e)) from e

    def ground_truth() -> dict:
        return _ground_truth(records, objects, class_ids)

    return Source(name=name, classes=tuple(class_ids), category_ids=tuple(class_ids.values()), parts=tuple(part_ids),
                  records=records, load=load, ground_truth=ground_truth,
                  image_path=lambda i: paths[i] if isinstance(paths[i], Path) else None,
                  issues=tuple(issues), notes=notes, counts=counts, annotated=bool(annotations),
                  other_ids=tuple(number for number in names if number not in labels), unwanted=dict(unwanted))


def _check_crowds(file: Path, objects: dict, names: dict[int, str]) -> None:
    """Warns of classes whose objects are all crowds, which teach nothing; raises UserError if all classes are so."""
    found = Counter((o['category_id'], o['crowd']) for here in objects.values() for o in here
                    if o['category_id'] in names)
    crowded = [number for number in names if found[number, True] and not found[number, False]]
    remedy = 'if they are single objects all the same, set data.crowds=False'
    if found.total() >= A_FEW and not any(found[number, False] for number in names):
        raise UserError(f'{file}: all {found.total()} objects are marked as crowds (iscrowd 1), and none is left to '
                        f'train on or to be found; {remedy}')
    if crowded:
        logging.warning('%s: all objects of %s are marked as crowds (iscrowd 1): nothing is learnt of them; %s', file,
                        listed(names[number] for number in crowded), remedy)


def _grow_boxes(records: list[dict], objects: dict, side: float, *, but: set[int]) -> None:
    for record in records:
        for o in objects[record['id']]:
            if o['category_id'] not in but:
                o['box'] = grow_box(o['box'], side, record['width'], record['height'])


def counted(counts: Mapping[str, int]) -> str:
    """`Source.counts` as two sums."""
    c = counts
    images = f'{c["images"]} used + {c["images_dropped"]} dropped + {c["images_not_wanted"]} not asked for'
    annotations = (f'{c["used"]} used + {c["dropped"]} dropped + {c["duplicates"]} duplicates + '
                   f'{c["image_left_out"]} of images left out + {c["not_wanted"]} of categories not asked for')
    return f'{c["image_records"]} image records = {images}; {c["annotations"]} annotations = {annotations}'


def _log_counts(name: str, counts: dict[str, int], objects: dict, classes: dict[str, int]) -> None:
    everything = [o for found in objects.values() for o in found]
    logging.info('%s: %d images (%d without objects), %d objects (%d without a mask, %d crowds)', name, len(objects),
                 sum(not found for found in objects.values()), len(everything),
                 sum(o['segmentation'] is None for o in everything), sum(o['crowd'] for o in everything))
    logging.info('%s: %s', name, counted(counts))
    found = {o['category_id'] for o in everything}
    if empty := [n for n, number in classes.items() if number not in found]:
        logging.info('%s: no objects of %s', name, listed(empty))


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
    masks = np.array([_crop(o, mask_size) for o in shown], np.uint8).reshape(-1, mask_size, mask_size)
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
        masks=masks, has_mask=masks.any(axis=(1, 2)),      # not one that is nowhere inside its box
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
            if o['area'] is None:       # reckoned once; a mask may be thinner than the pixels that are counted
                o['area'] = (segmentation and _mask_area(segmentation, record)) or _box_area(o)
            annotation = dict(id=len(annotations) + 1, image_id=record['id'], category_id=o['category_id'],
                              bbox=[x1, y1, x2 - x1, y2 - y1], area=o['area'], iscrowd=int(o['crowd']))
            if isinstance(segmentation, dict):
                annotation['segmentation'] = segmentation | {'counts': segmentation['counts'].decode()}
            elif segmentation is not None:
                annotation['segmentation'] = segmentation
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
