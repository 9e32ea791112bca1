"""ChestX-Det annotations: a JSON list of `file_name`, `syms`, `boxes` (xyxy) and `polygons`, one of each per finding.

3,578 films of NIH ChestX-ray14, 1024 x 1024 pixels, 13 findings. Lian et al., IEEE TMI 2021; the files are at
github.com/Deepwise-AILab/ChestX-Det-Dataset. ChestX-Det10 has the same form without polygons, and 10 of the findings.
"""
from pathlib import Path

from ml_collections import ConfigDict

from relnet_jax.data.formats.broken import attempt
from relnet_jax.data.formats.records import NO_MASK, a_name, box_xywh, flat_polygons, parallel, read_records
from relnet_jax.data.issues import Issue

CLASSES = ('Atelectasis', 'Calcification', 'Cardiomegaly', 'Consolidation', 'Diffuse Nodule', 'Effusion', 'Emphysema',
           'Fibrosis', 'Fracture', 'Mass', 'Nodule', 'Pleural Thickening', 'Pneumothorax')      # category ids 1..13
SIDE = 1024     # pixels


def read(path: Path, folder: Path, data: ConfigDict) -> tuple[dict, list[Issue]]:
    """A reader as `formats` describes it; image ids are record indices + 1.

    A record whose lists do not belong together is dropped, a bad box too, a bad polygon leaves the box without a mask.
    """
    images, annotations, issues, ids = [], [], [], {name: i for i, name in enumerate(CLASSES, 1)}
    for index, where, record in read_records(path, issues):
        lists = ('boxes', 'syms', 'polygons') if record.get('polygons') else ('boxes', 'syms')
        findings = attempt(issues, f'{path.name}: {where}', parallel, record, *lists)
        if findings is None:
            continue
        images.append(dict(id=index + 1, file_name=record['file_name'], width=SIDE, height=SIDE, where=where))
        for i, (box, name, *polygon) in enumerate(findings):
            place = f'{where}, finding {i}'
            found = attempt(issues, f'{path.name}: {place}', lambda box, name: (box_xywh(box), a_name(name)), box, name)
            if found:
                mask = attempt(issues, f'{path.name}: {place}', flat_polygons, *polygon or [None], rule=NO_MASK)
                annotations.append(dict(image_id=index + 1, category_id=ids.setdefault(found[1], len(ids) + 1),
                                        bbox=found[0], segmentation=mask or [], where=place))
    categories = [dict(id=i, name=name) for name, i in ids.items()]
    return dict(images=images, annotations=annotations, categories=categories), issues
