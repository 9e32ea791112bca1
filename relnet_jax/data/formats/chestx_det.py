"""ChestX-Det annotations: a JSON list of `file_name`, `syms`, `boxes` (xyxy) and `polygons`, one of each per finding.

3,578 films of NIH ChestX-ray14, 1024 x 1024 pixels, 13 findings. Lian et al., IEEE TMI 2021; the files are at
github.com/Deepwise-AILab/ChestX-Det-Dataset. ChestX-Det10 has the same form without polygons, and 10 of the findings.
"""
from pathlib import Path

from relnet_jax.data.formats.records import box_xywh, flat_polygons, parallel, read_records

CLASSES = ('Atelectasis', 'Calcification', 'Cardiomegaly', 'Consolidation', 'Diffuse Nodule', 'Effusion', 'Emphysema',
           'Fibrosis', 'Fracture', 'Mass', 'Nodule', 'Pleural Thickening', 'Pneumothorax')      # category ids 1..13
SIDE = 1024     # pixels


def read_chestx_det(path: str | Path) -> tuple[dict, list[str]]:
    """(COCO document, issues): an image a record, ids from 1 in the file's order; an annotation has its `record` index.

    A record whose lists do not belong together is dropped, a bad box too, a bad polygon leaves the box without a mask.
    Raises as `records.read_records`.
    """
    images, annotations, issues, ids = [], [], [], {name: i for i, name in enumerate(CLASSES, 1)}
    for index, record, problem in read_records(path):
        where = f'{Path(path).name}: record[{index}]'
        try:
            if record is None:
                raise ValueError(problem)
            keys = ('syms', 'boxes', 'polygons') if record.get('polygons') else ('syms', 'boxes')
            findings = parallel(record, *keys)
        except ValueError as e:
            issues.append(f'{where}: {e}: dropped')
            continue
        images.append(dict(id=index + 1, file_name=record['file_name'], width=SIDE, height=SIDE))
        for i, (name, box, *polygon) in enumerate(findings):
            try:
                if not isinstance(name, str) or not name:
                    raise ValueError(f'{str(name)[:100]} is no name')
                found = dict(bbox=box_xywh(box))
            except ValueError as e:
                issues.append(f'{where} finding {i}: {e}: dropped')
                continue
            try:
                found['segmentation'] = flat_polygons(polygon[0]) if polygon else []
            except ValueError as e:
                issues.append(f'{where} finding {i}: {e}: box kept without mask')
            annotations.append(dict(id=len(annotations) + 1, image_id=index + 1, record=index,
                                    category_id=ids.setdefault(name, len(ids) + 1), **found))
    categories = [dict(id=i, name=name) for name, i in ids.items()]
    return dict(images=images, annotations=annotations, categories=categories), issues
