"""RSNA Pneumonia Detection Challenge labels: `patientId, x, y, width, height, Target`, a row for each opacity.

A patient is a film. Target 0 means none, and such a row has no box. All films of the challenge are 1024 x 1024 pixels,
and so are the boxes' coordinates. `stage_2_detailed_class_info.csv` (`patientId, class`) can be given as data.meta; its
class then stands in the image's record. Shih et al., Radiology: Artificial Intelligence 2019.
"""
from pathlib import Path

from relnet_jax.data.formats.rows import contradictions, issue, numbers, read_rows

CLASS = 'Lung Opacity'
SIDE = 1024     # pixels
BOX = ('x', 'y', 'width', 'height')


def read_rsna(path: str | Path) -> tuple[dict, list[str]]:
    """(COCO document, issues): images by `stem` (the patient's id); `rows` of an annotation is its line, of an image
    those that say there is nothing. Raises as `rows.read_rows`."""
    rows, issues = read_rows(path, ('patientid', *BOX, 'target'))
    images, annotations = {}, []
    for row in rows:
        patient, target = row.get('patientid'), row.get('target')
        try:
            box = numbers(row, BOX)
            if not patient:
                raise ValueError('no patientId')
            if target not in ('0', '1', '0.0', '1.0'):
                raise ValueError(f'Target {target[:40]!r} is neither 0 nor 1')
            if (target[0] == '1') != (box is not None):
                raise ValueError(f'Target {target} {"with" if box else "without"} a box')
            if box and min(box[2:]) <= 0:
                raise ValueError(f'box {box} (x, y, width, height) has no positive width and height')
        except ValueError as e:
            issues.append(issue(path, row.line, f'{e}: dropped'))
            continue
        image = images.setdefault(patient, dict(id=patient, stem=patient, width=SIDE, height=SIDE, rows=[]))
        if box:
            annotations.append(dict(id=len(annotations) + 1, image_id=patient, category_id=1, bbox=box,
                                    rows=[row.line]))
        else:
            image['rows'].append(row.line)
    issues += contradictions(path, images, annotations)
    return dict(images=list(images.values()), annotations=annotations, categories=[dict(id=1, name=CLASS)]), issues
