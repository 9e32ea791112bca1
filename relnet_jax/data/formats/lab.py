"""The lab's annotations: a JSON list of films with findings (several names a box) and anatomical parts.

A record has `file_name`, `rows`, `cols`; `boxes` (xyxy) with `syms`, a list of names each, and `polygon`, one each or
none at all; `parts` with `part_boxes`; and whatever else, such as `fold`, `eva_id`, `doc_name`, which rides along in the
image's record (data.subset, data.split.by). ../docs/formats.md has an example.
"""
from pathlib import Path

from relnet_jax.data.formats.records import box_xywh, flat_polygons, parallel, read_records

LISTS = ('boxes', 'syms', 'polygon', 'parts', 'part_boxes')


def read_lab(path: str | Path) -> tuple[dict, list[str]]:
    """(COCO document, issues): an image a record, ids from 1 in the file's order; an annotation has its `record` index.

    A box with several names gives an annotation each. A record without polygons has no masks. Parts are annotations of
    categories with `supercategory` 'part'. A record whose findings do not belong together is dropped; parts or polygons
    that do not are left out. Category ids go by first appearance. Raises as `records.read_records`.
    """
    images, annotations, issues, ids, parts = [], [], [], {}, set()

    def add(image_id: int, name: str, **fields):
        annotations.append(dict(id=len(annotations) + 1, image_id=image_id, record=image_id - 1,
                                category_id=ids.setdefault(name, len(ids) + 1), **fields))

    for index, record, problem in read_records(path):
        where = f'{Path(path).name}: record[{index}]'
        try:
            if record is None:
                raise ValueError(problem)
            findings = parallel(record, 'boxes', 'syms')
        except ValueError as e:
            issues.append(f'{where}: {e}: dropped')
            continue
        size = {key: record[own] for key, own in (('width', 'cols'), ('height', 'rows')) if own in record}
        images.append({k: v for k, v in record.items() if k not in LISTS} | dict(id=index + 1) | size)
        for i, ((box, names), polygons) in enumerate(zip(findings, _polygons(record, where, issues))):
            try:
                names = [names] if isinstance(names, str) else names
                if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
                    raise ValueError(f'syms {str(names)[:100]} is no list of names')
                found = dict(bbox=box_xywh(box))
            except ValueError as e:
                issues.append(f'{where} finding {i}: {e}: dropped')
                continue
            for name in dict.fromkeys(names):
                add(index + 1, name, segmentation=polygons, **found)
        for name, box in _parts(record, where, issues):
            parts.add(name)
            add(index + 1, name, bbox=box)
    categories = [dict(id=i, name=name) | (dict(supercategory='part') if name in parts else {})
                  for name, i in ids.items()]
    return dict(images=images, annotations=annotations, categories=categories), issues


def _polygons(record: dict, where: str, issues: list[str]) -> list[list]:
    """COCO polygons of every box of a record, [] where it has none."""
    if not record.get('polygon'):
        return [[] for _ in record.get('boxes') or ()]
    found = []
    try:
        for i, (_, polygon) in enumerate(parallel(record, 'boxes', 'polygon')):
            try:
                found.append(flat_polygons(polygon))
            except ValueError as e:
                issues.append(f'{where} finding {i}: {e}: box kept without mask')
                found.append([])
    except ValueError as e:
        issues.append(f'{where}: {e}: boxes kept without masks')
        found = [[] for _ in record.get('boxes') or ()]
    return found


def _parts(record: dict, where: str, issues: list[str]) -> list[tuple[str, list[float]]]:
    found = []
    try:
        for i, (name, box) in enumerate(parallel(record, 'parts', 'part_boxes')):
            try:
                if not isinstance(name, str) or not name:
                    raise ValueError(f'{str(name)[:100]} is no name')
                found.append((name, box_xywh(box)))
            except ValueError as e:
                issues.append(f'{where} part {i}: {e}: dropped')
    except ValueError as e:
        issues.append(f'{where}: {e}: parts dropped')
    return found
