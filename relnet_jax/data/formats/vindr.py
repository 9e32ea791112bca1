"""VinDr-CXR annotations: one CSV row for each box that a reader drew, or for each reader who found nothing.

Reads the Kaggle and AMIA form (`image_id, class_name, class_id, rad_id, x_min, y_min, x_max, y_max`; class 14 = No
finding) and PhysioNet's (no `class_id`; no `rad_id` in its test set, which the readers agreed on). Boxes are in pixels
of the original DICOM, whose size the file does not say: see `formats.join` for the size table of resized copies.
Nguyen et al., VinDr-CXR, Scientific Data 2022.
"""
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from relnet_jax.data.formats.fusion import fuse_readers
from relnet_jax.data.formats.rows import Row, issue, numbers, read_rows

CLASSES = ('Aortic enlargement', 'Atelectasis', 'Calcification', 'Cardiomegaly', 'Consolidation', 'ILD',
           'Infiltration', 'Lung Opacity', 'Nodule/Mass', 'Other lesion', 'Pleural effusion', 'Pleural thickening',
           'Pneumothorax', 'Pulmonary fibrosis')        # class ids 0..13
NO_FINDING = 'No finding'                               # class id 14
BOX = ('x_min', 'y_min', 'x_max', 'y_max')


def read_vindr(path: str | Path, *, fusion: str = 'none', iou: float = 0.5) -> tuple[dict, list[str]]:
    """(COCO document, issues): images by `stem` (their id), an annotation's `rows` are the lines it was made of.

    fusion: what becomes of the boxes of several readers, see `fusion.fuse_readers`; iou: the overlap above which two
    boxes of a class mean the same finding. `readers` of an image are those who looked at it, of an annotation those who
    drew it; the `rows` of an image are those that say there is nothing, or were outvoted. Raises as `rows.read_rows`.
    """
    rows, issues = read_rows(path, ('image_id', 'class_name', *BOX))
    images, found, ids, seen = {}, {}, {name: i for i, name in enumerate((*CLASSES, NO_FINDING))}, set()
    for row in rows:
        try:
            image, name = row.get('image_id'), _class_name(row, ids)
            if not image:
                raise ValueError('no image_id')
            box = None if name == NO_FINDING else _box(row)
            reader = row.get('rad_id')
            if box and (image, name, reader, *box) in seen:
                raise ValueError(f'same image, class, reader and box {box} as an earlier row')
        except ValueError as e:
            issues.append(issue(path, row.line, f'{e}: dropped'))
            continue
        record = images.setdefault(image, dict(id=image, stem=image, readers=[], rows=[]))
        if reader not in record['readers']:
            record['readers'].append(reader)
        if box is None:
            record['rows'].append(row.line)
        else:
            seen.add((image, name, reader, *box))
            found.setdefault(image, []).append((box, ids[name], reader, row.line))
    annotations = [a for image, drawn in found.items()
                   for a in _annotations(images[image], drawn, fusion=fusion, iou=iou)]
    outvoted = sum(map(len, found.values())) - sum(len(a['rows']) for a in annotations)
    if outvoted:
        issues.append(f"{Path(path).name}: data.fusion 'majority': {outvoted} boxes were drawn by no more than half of "
                      "their image's readers: left out")
    categories = [dict(id=i, name=name) for name, i in ids.items() if name != NO_FINDING]
    return dict(images=list(images.values()), categories=categories,
                annotations=[dict(id=i, **a) for i, a in enumerate(annotations, 1)]), issues


def _class_name(row: Row, ids: dict[str, int]) -> str:
    """The name of a row's class; one that is new joins `ids`, under its own id or the next free one."""
    name = row.get('class_name')
    if name.lower() == NO_FINDING.lower():
        return NO_FINDING
    if not name:
        raise ValueError('no class_name')
    given = numbers(row, ('class_id',)) or [float(ids.get(name, max(ids.values()) + 1))]
    if not given[0].is_integer():
        raise ValueError(f'class_id {given[0]} is no whole number')
    number = int(given[0])
    if ids.get(name, number) != number or name not in ids and number in ids.values():
        other = next((n for n, i in ids.items() if i == number), None)
        raise ValueError(f"class '{name}' with the id {number}, but " + (
            f'elsewhere it has the id {ids[name]}' if name in ids else f"that is the id of '{other}'"))
    ids[name] = number
    return name


def _box(row: Row) -> list[float]:
    box = numbers(row, BOX)
    if box is None:
        raise ValueError(f"class '{row.get('class_name')}' without a box")
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError(f'box {box} (xyxy) has no positive width and height')
    return box


def _annotations(image: dict, drawn: list[tuple], *, fusion: str, iou: float) -> Iterable[dict]:
    boxes, labels, readers, lines = (list(values) for values in zip(*drawn))
    fused = fuse_readers(np.array(boxes), np.array(labels), readers, readers=len(image['readers']), fusion=fusion,
                         iou=iou)
    kept = {i for members in fused.members for i in members}
    image['rows'] += [line for i, line in enumerate(lines) if i not in kept]
    for (x1, y1, x2, y2), label, members in zip(fused.boxes.tolist(), fused.labels.tolist(), fused.members):
        yield dict(image_id=image['id'], category_id=label, bbox=[x1, y1, x2 - x1, y2 - y1],
                   readers=sorted({readers[i] for i in members}), rows=[lines[i] for i in members])
