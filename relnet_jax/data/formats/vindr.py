"""VinDr-CXR annotations: one CSV row for each box that a reader drew, or for each reader who found nothing.

Reads the Kaggle and AMIA form (`image_id, class_name, class_id, rad_id, x_min, y_min, x_max, y_max`; class 14 = No
finding) and PhysioNet's (no `class_id`; no `rad_id` in its test set, which the readers agreed on). Boxes are in pixels
of the original DICOM, whose size the file does not say: for resized copies give data.meta, a CSV file with it.
Nguyen et al., VinDr-CXR, Scientific Data 2022.
"""
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from relnet_jax.data.formats.broken import Broken
from relnet_jax.data.formats.fusion import fuse_readers
from relnet_jax.data.formats.rows import Row, read_rows
from relnet_jax.data.issues import Issue

CLASSES = ('Aortic enlargement', 'Atelectasis', 'Calcification', 'Cardiomegaly', 'Consolidation', 'ILD',
           'Infiltration', 'Lung Opacity', 'Nodule/Mass', 'Other lesion', 'Pleural effusion', 'Pleural thickening',
           'Pneumothorax', 'Pulmonary fibrosis')        # class ids 0..13
NO_FINDING = 'No finding'                               # class id 14
BOX = ('x_min', 'y_min', 'x_max', 'y_max')
FAR = 1e6       # pixels


def read(path: Path, folder: Path, data: ConfigDict) -> tuple[dict, list[Issue]]:
    """A reader as `formats` describes it; category ids are the class ids of the file.

    data.fusion: what becomes of the boxes of several readers, see `fusion.fuse_readers`; data.fusion_iou: the overlap
    above which two boxes of a class mean the same finding. `readers` of an image are those who looked at it, of an
    annotation those who drew it; `rows` are the lines that an annotation was made of, and those of an image that say
    there is nothing, or were outvoted.
    """
    rows, issues = read_rows(path, ('image_id', 'class_name', *BOX))
    images, found, ids, seen = {}, {}, {name: i for i, name in enumerate((*CLASSES, NO_FINDING))}, set()
    for row in rows:
        image, reader = row.get('image_id'), row.get('rad_id')
        try:
            name = _class_name(row, ids) if row.has('class_name') else NO_FINDING      # a list of films alone
            if not image:
                raise Broken('no image_id')
            box = None if name == NO_FINDING else _box(row)
            if box and (image, name, reader, *box) in seen:
                raise Broken('same image, class, reader and box as an earlier row', box)
        except Broken as e:
            issues.append(e.at(f'{path.name}: {row.where}'))
            continue
        record = images.setdefault(image, dict(id=image, file_name=image, readers=[], rows=[], where=row.where))
        if reader not in record['readers']:
            record['readers'].append(reader)
        if box is None:
            record['rows'].append(row.line)
        else:
            seen.add((image, name, reader, *box))
            found.setdefault(image, []).append((box, ids[name], reader, row.line))
    annotations = [a for image, drawn in found.items()
                   for a in _annotations(images[image], drawn, fusion=data.fusion, iou=data.fusion_iou)]
    outvoted = sum(map(len, found.values())) - sum(len(a['rows']) for a in annotations)
    if outvoted:
        issues.append(Issue(path.name, "boxes that no more than half of the image's readers drew (data.fusion)",
                            'left out', str(outvoted)))
    categories = [dict(id=i, name=name) for name, i in ids.items() if name != NO_FINDING]
    return dict(images=list(images.values()), annotations=annotations, categories=categories), issues


def _class_name(row: Row, ids: dict[str, int]) -> str:
    """The name of a row's class; one that is new joins `ids`, under its own id or the next free one."""
    name = row.get('class_name')
    if name.lower() == NO_FINDING.lower():
        return NO_FINDING
    if not name:
        raise Broken('no class_name')
    number = row.number('class_id')
    if number is None:
        number = ids.get(name, max(ids.values()) + 1)
    if number != int(number):
        raise Broken('class_id is no whole number', number)
    if ids.get(name, number) != number or (name not in ids and number in ids.values()):
        raise Broken('class_name and class_id do not go together as elsewhere', [name, int(number)])
    ids[name] = int(number)
    return name


def _box(row: Row) -> list[float]:
    box = row.numbers(BOX)
    if box is None:
        raise Broken('a finding without a box', row.get('class_name'))
    if max(map(abs, box)) > FAR:
        raise Broken('box (xyxy) far beyond any film', box)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise Broken('box (xyxy) without positive width and height', box)
    return box


def _annotations(image: dict, drawn: list[tuple], *, fusion: str, iou: float) -> Iterable[dict]:
    boxes, labels, readers, lines = (list(values) for values in zip(*drawn))
    fused = fuse_readers(np.array(boxes), np.array(labels), readers, readers=len(image['readers']), fusion=fusion,
                         iou=iou)
    kept = {i for members in fused.members for i in members}
    image['rows'] += [line for i, line in enumerate(lines) if i not in kept]
    for (x1, y1, x2, y2), label, members in zip(fused.boxes.tolist(), fused.labels.tolist(), fused.members):
        rows = [lines[i] for i in members]
        yield dict(image_id=image['id'], category_id=label, bbox=[x1, y1, x2 - x1, y2 - y1], rows=rows,
                   readers=sorted({readers[i] for i in members}), where=f'row {" + ".join(map(str, rows))}')
