"""COCO instances JSON."""
import json
from pathlib import Path

from ml_collections import ConfigDict

from relnet_jax.data.issues import Issue
from relnet_jax.errors import UserError


def read(path: Path, folder: Path, data: ConfigDict) -> tuple[dict, list[Issue]]:
    """A reader as `formats` describes it: the document is the file as it is."""
    return read_document(path), []


def read_document(path: Path) -> dict:
    """The file's dict, which has lists under `images`, `annotations` and `categories`.

    Raises FileNotFoundError without the file and ValueError if it is no COCO instances file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file '{path}'")
    try:
        document = json.loads(path.read_bytes())
    except ValueError as e:
        raise UserError(f'{path}: not valid JSON: {e}') from e
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise UserError(f"{path}: not a COCO instances file, expected a list under '{key}'")
    return document
