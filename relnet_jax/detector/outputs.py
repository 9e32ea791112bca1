"""What was found in films as lines of JSON, as a COCO document and as a table, all made of one form, `film_line`.

`width`, `height` and boxes are pixels of the film as displayed. `unfamiliar` says that the film is unlike those that
the detector was trained on (data/familiarity.py), null where nothing is known of these.
"""
import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from itertools import count

from pycocotools import mask as coco_mask

UIDS = ('StudyInstanceUID', 'SeriesInstanceUID', 'SOPInstanceUID')
FILM = ('file_name', *UIDS, 'width', 'height', 'unfamiliar')
COLUMNS = (*FILM, 'finding', 'score', 'probability', 'x1', 'y1', 'x2', 'y2', 'area')


def film_line(found, category_ids: tuple[int, ...]) -> dict:
    """A `Found` as JSON values: what the film is, and its `findings`, best first, with `category_id`, `name`, `score`,
    `bbox` (x, y, width, height), `area` in pixels of the mask, or of the box where there is none, as COCO has it,
    `probability` where the scores were calibrated, and `segmentation` (RLE) where the detector predicts masks."""
    (height, width), probabilities, findings = found.size, found.probabilities, []
    for i, (x1, y1, x2, y2) in enumerate(found.boxes.astype(float).tolist()):
        box = [x1, y1, x2 - x1, y2 - y1]
        masks = {} if found.segmentations is None else dict(segmentation=found.segmentations[i])
        calibrated = {} if probabilities is None else dict(probability=float(probabilities[i]))
        area = float(coco_mask.area(masks['segmentation'])) if masks else box[2] * box[3]
        findings.append(dict(category_id=category_ids[found.labels[i] - 1], name=found.names[i],
                             score=float(found.scores[i]), bbox=box, area=area) | calibrated | masks)
    distance = None if found.distance is None else round(found.distance, 3)
    uids = {key: found.about[key] for key in UIDS if key in found.about}
    return dict(file_name=found.file, width=width, height=height, **uids, unfamiliar=found.unfamiliar,
                film_distance=distance, findings=findings)


# ---- COCO ----
def coco_image(line: Mapping, image_id: int) -> dict:
    return dict(id=image_id) | {key: value for key, value in line.items() if key not in ('findings', 'path')}


def coco_annotations(line: Mapping, image_id: int, ids: Iterator[int]) -> Iterator[dict]:
    for finding in line['findings']:
        yield dict(id=next(ids), image_id=image_id, iscrowd=0) | {k: v for k, v in finding.items() if k != 'name'}


def coco_document(lines: Iterable[Mapping], categories: list[dict]) -> dict:
    """Ids of images and annotations count from 1 in the order of the lines."""
    lines, ids = list(lines), count(1)
    return dict(images=[coco_image(line, i) for i, line in enumerate(lines, 1)], categories=categories,
                annotations=[a for i, line in enumerate(lines, 1) for a in coco_annotations(line, i, ids)])


# ---- a table ----
def table_rows(line: Mapping) -> Iterator[dict]:
    """A row with the `COLUMNS` for each finding."""
    for finding in line['findings']:
        x, y, w, h = finding['bbox']
        corners = zip(('x1', 'y1', 'x2', 'y2'), (x, y, x + w, y + h))
        yield ({key: line.get(key, '') for key in FILM} | dict(finding=finding['name'], area=f'{finding["area"]:.0f}')
               | {key: f'{finding[key]:.6g}' for key in ('score', 'probability') if key in finding}
               | {key: f'{value:.2f}' for key, value in corners})


def write_table(lines: Iterable[Mapping], file: io.TextIOBase) -> None:
    """The rows of all lines as CSV."""
    table = csv.DictWriter(file, COLUMNS, lineterminator='\n')
    table.writeheader()
    for line in lines:
        table.writerows(table_rows(line))


def table_text(lines: Iterable[Mapping]) -> str:
    text = io.StringIO()
    write_table(lines, text)
    return text.getvalue()
