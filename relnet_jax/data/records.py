"""What annotation files say, without a look at their images: records by class, and the rows that cannot be used.

Boxes are not compared with their images here, for the size of these is often known from their files alone.
"""
from collections import Counter
from pathlib import Path

from ml_collections import ConfigDict

from relnet_jax.data.formats import FORMATS, amend
from relnet_jax.errors import UserError


def read_records(config: ConfigDict) -> list[dict]:
    """For each annotation file of a config, as JSON values: `name`, `images`, `without_objects`, `annotations`,
    `rows` (of the file that stand behind them, None where the format has none), `classes` (name -> `instances`,
    `images`) and `issues` of the reader, a list of `Issue`s.

    Raises UserError for formats without annotation files and without such a file.
    """
    d = config.data
    read = getattr(FORMATS[d.format], 'read', None)
    if read is None:
        raise UserError(f"data.format '{d.format}' has no annotation files that can be read without images")
    if not d.train.annotations:
        raise UserError(f'data.train.annotations is not set: give a {d.format} file')
    found = []
    for split in filter(lambda split: split.annotations, (d.train, d.val)):
        path = Path(split.annotations)
        document, issues = amend(*read(path, Path(split.images or path.parent), d), path, d)
        found.append(_about(path, document) | dict(issues=issues))
    return found


def _about(path: Path, document: dict) -> dict:
    """Records that are no dicts, or without the ids that count here, are left to the checks with images."""
    images, annotations = ([r for r in document[key] if isinstance(r, dict)] for key in ('images', 'annotations'))
    of_category = {str(c.get('id')): [] for c in document['categories'] if isinstance(c, dict)}
    for a in annotations:
        of_category.setdefault(str(a.get('category_id')), []).append(str(a.get('image_id')))
    names = {str(c.get('id')): str(c.get('name')) for c in document['categories'] if isinstance(c, dict)}
    with_objects = {image for of_one in of_category.values() for image in of_one}
    rows = Counter(row for record in (*images, *annotations) for row in record.get('rows', ()))
    return dict(
        name=path.stem, images=len(document['images']), annotations=len(document['annotations']),
        without_objects=sum(str(image.get('id')) not in with_objects for image in images), rows=len(rows) or None,
        classes={names.get(number, f'category {number}'): dict(instances=len(of_one), images=len(set(of_one)))
                 for number, of_one in of_category.items()})
