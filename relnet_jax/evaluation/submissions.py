"""Detections as the CSV files that the Kaggle competitions on chest radiographs take.

Both have a row for each film and all its boxes in one cell, `PredictionString`; they differ in what a box is and in how
a film without any is written.
"""
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from relnet_jax.data.formats import vindr
from relnet_jax.data.source import Source
from relnet_jax.errors import UserError
from relnet_jax.files import write_text

NO_FINDING = '14 1 0 0 1 1'     # VinDr-CXR: class 14, sure of it, in a box of one pixel


def vindr_submission(results: Sequence[dict], films: Mapping, categories: Mapping[int, str]) -> str:
    """VinDr-CXR's and AMIA's form: `image_id,PredictionString`; class, score, x1 y1 x2 y2 of each box, best first.

    results: COCO result records. films: image id -> the competition's name of the film, in the order of the rows.
    categories: category id -> class name; boxes go by the competition's class id of that name.
    """
    def box(r: dict) -> str:
        x, y, w, h = r['bbox']
        label = vindr.CLASSES.index(categories[r['category_id']])
        return f'{label} {r["score"]:.6g} ' + ' '.join(f'{v:.1f}' for v in (x, y, x + w, y + h))
    return _table('image_id', results, films, box, none=NO_FINDING)


def rsna_submission(results: Sequence[dict], films: Mapping, categories: Mapping[int, str]) -> str:
    """RSNA's form: `patientId,PredictionString`; score, x y width height of each box, best first; '' without any.

    Arguments as those of `vindr_submission`; boxes of every category are opacities.
    """
    def box(r: dict) -> str:
        return f'{r["score"]:.6g} ' + ' '.join(f'{v:.1f}' for v in r['bbox'])
    return _table('patientId', results, films, box, none='')


SUBMISSIONS = {'vindr': vindr_submission, 'rsna': rsna_submission}


def _table(column: str, results: Sequence[dict], films: Mapping, box: Callable[[dict], str], *, none: str) -> str:
    boxes = {image_id: [] for image_id in films}
    for r in sorted(results, key=lambda r: -r['score']):
        if r['image_id'] not in boxes:
            raise ValueError(f"a detection in image {r['image_id']!r}, which is none of the {len(films)} films")
        boxes[r['image_id']].append(box(r))
    out = io.StringIO()
    rows = csv.writer(out, lineterminator='\n')
    rows.writerow([column, 'PredictionString'])
    rows.writerows([name, ' '.join(boxes[image_id]) or none] for image_id, name in films.items())
    return out.getvalue()


def check_form(form: str, classes: Sequence[str]) -> None:
    """Raises UserError if a form in SUBMISSIONS has no place for one of these classes."""
    unknown = [name for name in classes if name not in vindr.CLASSES] if form == 'vindr' else []
    if unknown:
        raise UserError(f"--submission={form}: VinDr-CXR has no class {', '.join(map(repr, unknown))}; "
                        f'it has {", ".join(vindr.CLASSES)}')


def write_submission(path: str | Path, form: str, results: Sequence[dict], source: Source) -> None:
    """Writes the detections in `source` as a submission of a `form` in SUBMISSIONS.

    A film is called by its id where that is text, as in the competitions' own files, else by its file without suffix.
    Raises UserError as `check_form`.
    """
    check_form(form, source.classes)
    films = {r['id']: r['id'] if isinstance(r['id'], str) else Path(r.get('file_name', str(r['id']))).stem
             for r in source.records}
    write_text(path, SUBMISSIONS[form](results, films, dict(zip(source.category_ids, source.classes))))
