"""The lab's annotations: a JSON list of films with findings (several names a box) and anatomical parts.

A record has `file_name`, `rows`, `cols`; `boxes` (xyxy) with `syms`, a list of names each, and `polygon`, one each or
none at all; `parts` with `part_boxes`; and whatever else, such as `fold`, `eva_id`, `doc_name`, which rides along in
the image's record (data.subset, data.split.by).
"""
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from relnet_jax.data.formats.broken import Broken, attempt
from relnet_jax.data.formats.records import NO_MASK, a_name, box_xywh, flat_polygons, parallel, read_records
from relnet_jax.data.issues import Issue

LISTS = ('boxes', 'syms', 'polygon', 'parts', 'part_boxes')


def read(path: Path, folder: Path, data: ConfigDict) -> tuple[dict, list[Issue]]:
    """A reader as `formats` describes it; image ids are record indices + 1, category ids go by first appearance.

    A box with several names gives an annotation each. A record without polygons has no masks. A record whose findings
    do not belong together is dropped; parts or polygons that do not are left out.
    """
    images, annotations, issues, ids, parts = [], [], [], {}, {}
    for index, where, record in read_records(path, issues):
        findings = attempt(issues, f'{path.name}: {where}', parallel, record, 'boxes', 'syms')
        if findings is None:
            continue
        size = {key: record[own] for key, own in (('width', 'cols'), ('height', 'rows')) if own in record}
        images.append({k: v for k, v in record.items() if k not in LISTS} | size | dict(id=index + 1, where=where))

        found = list(_findings(record, findings, f'{path.name}: {where}', issues))
        part_boxes = list(_parts(record, f'{path.name}: {where}', issues))
        parts |= dict.fromkeys(name for _, name, _ in part_boxes)
        for place, name, annotation in found + part_boxes:
            annotations.append(dict(image_id=index + 1, category_id=ids.setdefault(name, len(ids) + 1),
                                    where=where + place, **annotation))
    return dict(images=images, annotations=annotations, parts=list(parts),
                categories=[dict(id=i, name=name) for name, i in ids.items()]), issues


def _findings(record: dict, findings: list[tuple], where: str, issues: list[Issue]) -> Iterator[tuple[str, str, dict]]:
    """(place in the record, name, annotation) of every name of every usable box."""
    pairs = None
    if record.get('polygon'):
        pairs = attempt(issues, where, parallel, record, 'boxes', 'polygon', rule=NO_MASK)
    for i, (box, names) in enumerate(findings):
        place = f', finding {i}'
        found = attempt(issues, where + place, lambda box, names: (box_xywh(box), _names(names)), box, names)
        if found:
            mask = attempt(issues, where + place, flat_polygons, pairs[i][1], rule=NO_MASK) if pairs else None
            for name in dict.fromkeys(found[1]):
                yield place, name, dict(bbox=found[0], segmentation=mask or [])


def _parts(record: dict, where: str, issues: list[Issue]) -> Iterator[tuple[str, str, dict]]:
    """(place in the record, name, annotation) of every usable part."""
    pairs = attempt(issues, where, parallel, record, 'parts', 'part_boxes', rule='parts left out')
    for i, (name, box) in enumerate(pairs or []):
        place = f', part {i}'
        found = attempt(issues, where + place, lambda name, box: (a_name(name), box_xywh(box)), name, box)
        if found:
            yield place, found[0], dict(bbox=found[1])


def _names(value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        raise Broken('syms is no list of names', value)
    return [a_name(name) for name in names]
