"""RSNA Pneumonia Detection Challenge labels: `patientId, x, y, width, height, Target`, a row for each opacity.

A patient is a film. Target 0 means none, and such a row has no box. All films of the challenge are 1024 x 1024 pixels,
and so are the boxes' coordinates. `stage_2_detailed_class_info.csv` (`patientId, class`) can be given as data.meta; its
class then stands in the image's record. Shih et al., Radiology: Artificial Intelligence 2019.
"""
from pathlib import Path

from ml_collections import ConfigDict

from relnet_jax.data.formats.broken import Broken
from relnet_jax.data.formats.rows import contradictions, read_rows
from relnet_jax.data.issues import Issue

CLASS = 'Lung Opacity'
SIDE = 1024     # pixels
BOX = ('x', 'y', 'width', 'height')


def read(path: Path, folder: Path, data: ConfigDict) -> tuple[dict, list[Issue]]:
    """A reader as `formats` describes it. `rows` of an annotation is its line, of an image those that say there is
    nothing."""
    rows, issues = read_rows(path, ('patientid', *BOX, 'target'))
    images, annotations = {}, []
    for row in rows:
        patient, target = row.get('patientid'), row.get('target')
        try:
            box = row.numbers(BOX)
            if not patient:
                raise Broken('no patientId')
            if not row.has('target'):       # a list of films alone
                target = '0'
            if target not in ('0', '1', '0.0', '1.0'):
                raise Broken('Target is neither 0 nor 1', target)
            if (target[0] == '1') != (box is not None):
                raise Broken('Target 0 with a box' if box else 'Target 1 without a box', box or '')
            if box and min(box[2:]) <= 0:
                raise Broken('box without positive width and height', box)
        except Broken as e:
            issues.append(e.at(f'{path.name}: {row.where}'))
            continue
        image = images.setdefault(patient, dict(id=patient, file_name=patient, width=SIDE, height=SIDE, rows=[],
                                                where=row.where))
        if box:
            annotations.append(dict(image_id=patient, category_id=1, bbox=box, rows=[row.line], where=row.where))
        else:
            image['rows'].append(row.line)
    issues += contradictions(path, images, annotations)
    return dict(images=list(images.values()), annotations=annotations, categories=[dict(id=1, name=CLASS)]), issues
