"""data.parts_file: boxes of anatomical parts from a file of their own, for any format.

Either a COCO file, of which every category is a part, or a JSON dict of file names, each with a dict of part names and
boxes [x1, y1, x2, y2] in the pixels that the findings' boxes refer to:

    {"36199.png": {"Left Lung": [560, 180, 900, 820], "Right Lung": [130, 170, 470, 800]}, ...}

'none' says that no film has any part annotated: all of data.parts are unknown, and a model may predict them.
"""
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from relnet_jax.data.formats import coco
from relnet_jax.data.formats.broken import Broken, attempt
from relnet_jax.data.formats.records import box_xywh, is_number, read_json
from relnet_jax.data.issues import Issue
from relnet_jax.errors import UserError


def add_parts(document: dict, parts_file: str, parts: Sequence[str]) -> tuple[dict, list[Issue]]:
    """(document, issues) with the parts of a file as further categories, annotations and names of `parts`.

    parts: the names that count, () = all that the file has; one that is nowhere is a category without annotations.
    Images go by their file name, else by its last part without the suffix. Parts of other images are passed over: one
    file may serve several data sets. Raises UserError for a file that is neither form or has none of the images.
    """
    issues, found = [], {}
    if parts_file != 'none':
        for name, part, box in _entries(Path(parts_file), issues):
            found.setdefault(name, []).append((part, box))
    stems = {_stem(name): boxes for name, boxes in found.items()}
    names = list(parts) or list(dict.fromkeys(part for boxes in found.values() for part, _ in boxes))
    ids = {c['name']: c['id'] for c in document['categories'] if isinstance(c, dict) and {'id', 'name'} <= c.keys()}
    free = max((i for i in ids.values() if isinstance(i, int)), default=0) + 1
    new = [dict(id=i, name=name) for i, name in enumerate((n for n in names if n not in ids), free)]
    ids |= {category['name']: category['id'] for category in new}
    annotations, known = [], 0
    for image in document['images']:
        name = image.get('file_name') if isinstance(image, dict) else None
        boxes = (found.get(name) or stems.get(_stem(name), [])) if isinstance(name, str) else []
        known += bool(boxes)
        annotations += [dict(image_id=image.get('id'), category_id=ids[part], bbox=box, where=f'{name}, {part}')
                        for part, box in boxes if part in names]
    if found and document['images'] and not known:
        raise UserError(f'{parts_file}: data.parts_file has none of the images; its first is {next(iter(found))!r}')
    return document | dict(categories=document['categories'] + new, annotations=document['annotations'] + annotations,
                           parts=list(dict.fromkeys([*document.get('parts', ()), *names]))), issues


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _entries(path: Path, issues: list[Issue]) -> Iterator[tuple[str, str, list[float]]]:
    """(file name, part, box [x, y, width, height]) of everything in the file that is one."""
    document = read_json(path)
    if not isinstance(document, dict):
        raise UserError(f'{path}: expected a COCO file or a dict of file names, got {type(document).__name__}')
    if {'images', 'annotations', 'categories'} <= document.keys():
        yield from _coco_entries(path, issues)
        return
    for name, boxes in document.items():
        if not isinstance(boxes, dict):
            issues.append(Broken('expected a dict of part names and boxes', boxes).at(f'{path.name}: {name}'))
            continue
        for part, box in boxes.items():
            found = attempt(issues, f'{path.name}: {name}, {part}', box_xywh, box)
            if found:
                yield name, part, found


def _coco_entries(path: Path, issues: list[Issue]) -> Iterator[tuple[str, str, list[float]]]:
    document = coco.read_document(path)
    files, parts = ({str(r['id']): r[key] for r in document[records] if isinstance(r, dict) and 'id' in r and key in r}
                    for records, key in (('images', 'file_name'), ('categories', 'name')))
    for i, annotation in enumerate(document['annotations']):
        found = attempt(issues, f'{path.name}: annotations[{i}]', _coco_entry, annotation, files, parts)
        if found:
            yield found


def _coco_entry(annotation: Any, files: dict, parts: dict) -> tuple[str, str, list[float]]:
    if not isinstance(annotation, dict):
        raise Broken('expected a dict', annotation)
    name, part = files.get(str(annotation.get('image_id'))), parts.get(str(annotation.get('category_id')))
    if not isinstance(name, str) or not isinstance(part, str):
        raise Broken('no such image or category', [annotation.get('image_id'), annotation.get('category_id')])
    box = annotation.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise Broken('bbox is not four finite numbers', box)
    return name, part, [float(v) for v in box]
