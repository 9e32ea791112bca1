"""The records of a document in COCO form: which images, categories and annotations can be used, and why others cannot.

Broken records go by the rules of the functions here and of `annotations`; each is one `Issue`.
"""
import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from relnet_jax.data.annotations import clean_annotation
from relnet_jax.data.images import UnreadableImage, read_image
from relnet_jax.data.issues import Issue
from relnet_jax.errors import UserError


def category_ids(file: Path, categories: list) -> dict[str, int]:
    """Name -> id, in the file's order. A table that is not one to one is an error: no rule could mend it."""
    ids = {}
    for i, category in enumerate(categories):
        where = f'{file}: categories[{i}]'
        if not _has_id(category) or not isinstance(category.get('name'), str):
            raise UserError(f'{where}: expected an integer id and a name, got {category!r}')
        if category['name'] in ids or category['id'] in ids.values():
            raise UserError(f"{where}: id {category['id']} or name '{category['name']}' is there twice")
        ids[category['name']] = category['id']
    return ids


def check_names(file: Path, wanted: Sequence[str], ids: dict[str, int]) -> None:
    """Raises ValueError for a wanted name that is no category, with the nearest one that is."""
    for n in wanted:
        if n not in ids:
            near = difflib.get_close_matches(n, ids, 1)
            hint = f"did you mean '{near[0]}'?" if near else f'it has {list(ids)}'
            raise UserError(f"{file}: no category '{n}', {hint}")


def clean_images(file: Path, folder: Path, images: list, *, max_images: int, window: tuple[float, float],
                 issues: list[Issue]) -> list[dict]:
    """The first usable image records (copies, with `width` and `height`); what is wrong with others joins `issues`."""
    records, seen, names = [], set(), {}
    for i, image in enumerate(images):
        if max_images and len(records) == max_images:
            break
        where = _where(file, image, f'images[{i}]')
        if not _has_id(image) or not isinstance(image.get('file_name'), str):
            issues.append(Issue(where, 'expected an id and a file_name', 'image dropped', repr(image)))
            continue
        if image['id'] in seen:
            issues.append(Issue(where, 'id is there twice', 'second image dropped'))
            continue
        path = folder / image['file_name']
        if not path.is_file():
            issues.append(Issue(where, 'file not found in the image folder', 'image dropped', image['file_name']))
            continue
        size = image.get('height'), image.get('width')
        if not all(_is_id(side) and side > 0 for side in size):
            try:
                size = read_image(path, window=window).shape[:2]
            except UnreadableImage as e:
                issues.append(Issue(where, 'no width and height, and unreadable', 'image dropped', e.reason))
                continue
        if image['file_name'] in names:
            other = names[image['file_name']]
            issues.append(Issue(where, 'file is also that of another image', 'both kept',
                                f'{image["file_name"]}, id {other}'))
        names.setdefault(image['file_name'], image['id'])
        seen.add(image['id'])
        records.append(image | {'height': size[0], 'width': size[1]})
    return records


def clean_objects(file: Path, annotations: list, *, records: list[dict], images: list, ids: dict[str, int],
                  wanted: Sequence[str], issues: list[Issue]) -> tuple[dict[int, list[dict]], Counter]:
    """(image id -> its objects of the wanted categories, number of objects per category that nobody asked for).

    Annotations of images that are known but not used are passed over: a dropped image has its own line, and images
    beyond max_images nobody asked for.
    """
    all_ids = {image['id'] for image in images if _has_id(image)}
    frames = {record['id']: (record['width'], record['height']) for record in records}
    names = {i: n for n, i in ids.items()}
    objects, unused, seen = {i: [] for i in frames}, Counter(), set()
    for i, annotation in enumerate(annotations):
        where = _where(file, annotation, f'annotations[{i}]')
        if not isinstance(annotation, dict):
            issues.append(Issue(where, 'expected a dict', 'dropped', repr(annotation)))
            continue
        image_id, category = annotation.get('image_id'), annotation.get('category_id')
        if not _is_id(image_id) or image_id not in all_ids:
            issues.append(Issue(where, 'image_id is not in the file', 'dropped', repr(image_id)))
            continue
        if image_id not in frames:
            continue
        if not _is_id(category) or category not in names:
            issues.append(Issue(where, 'category_id is not in the category table', 'dropped', repr(category)))
            continue
        if names[category] not in wanted:
            unused[names[category]] += 1
            continue
        found, problems = clean_annotation(annotation, *frames[image_id], where=where)
        key = (image_id, category, *found['box']) if found else None
        if key in seen:
            found, problems = None, [Issue(where, 'same image, category and box as an earlier one', 'dropped')]
        issues += problems
        if found:
            seen.add(key)
            objects[image_id].append(found)
    return objects, unused


def _is_id(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _has_id(record) -> bool:
    return isinstance(record, dict) and _is_id(record.get('id'))


def _where(file: Path, record, place: str) -> str:
    """How messages call a record: the reader's own `where`, else its place in the list and its id."""
    if not isinstance(record, dict):
        return f'{file.name}: {place}'
    if isinstance(record.get('where'), str):
        return f'{file.name}: {record["where"]}'
    return f'{file.name}: {place} id {record["id"]}' if 'id' in record else f'{file.name}: {place}'
