"""COCO instances JSON, and its relatives without annotations: image lists, as test sets come."""
from pathlib import Path

from ml_collections import ConfigDict

from relnet_jax.data.formats import json_file
from relnet_jax.data.issues import Issue
from relnet_jax.errors import UserError


def read(path: Path, folder: Path, data: ConfigDict) -> tuple[dict, list[Issue]]:
    """A reader as `formats` describes it: the document is the file as it is."""
    return read_document(path), []


def read_document(path: Path) -> dict:
    """The file's dict, with lists under `images`, `annotations` and `categories`.

    Without `annotations`, as in test sets, there need be no `categories` either, and a list of image records or of file
    names (which are then the ids) will do. Raises FileNotFoundError without the file and UserError for any other.
    """
    if not path.is_file():
        what = 'is a folder, expected a JSON file' if path.is_dir() else 'is not there'
        raise FileNotFoundError(f"annotation file '{path}' {what}")
    try:
        document = json_file.load(path)
    except RecursionError:
        raise UserError(f'{path}: no COCO file, its lists or dicts are nested too deep') from None
    if isinstance(document, list):
        document = dict(images=_image_list(path, document))
    if not isinstance(document, dict):
        raise UserError(f"{path}: not a COCO instances file, expected a list under 'images'")
    for key in ('images', 'annotations', 'categories') if document.get('annotations') else ('images',):
        if not isinstance(document.get(key), list):
            raise UserError(f"{path}: not a COCO instances file, expected a list under '{key}'")
    return document | {key: document.get(key) or [] for key in ('annotations', 'categories')}


def _image_list(path: Path, records: list) -> list:
    """Image records of a file that is a list of them, or of their names."""
    if records and all(isinstance(record, str) for record in records):
        return [dict(id=name, file_name=name) for name in records]
    keys = set().union(*(record for record in records if isinstance(record, dict)))
    if 'syms' in keys:
        raise UserError(f"{path}: not a COCO instances file, expected a list under 'images'; records with 'syms' are "
                        "read with data.format='chestx_det' or 'lab'")
    if {'image_id', 'category_id', 'score'} <= keys:
        raise UserError(f'{path}: a list of results (detections), expected a COCO instances file')
    if not keys & {'file_name', 'coco_url'}:
        raise UserError(f"{path}: not a COCO instances file, expected a list under 'images'")
    return records
