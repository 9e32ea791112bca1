"""TFDS data sets as `data.tfds_export` writes them (array_record files): `data.train.annotations` is their folder."""
import functools
import json
from pathlib import Path
from typing import Any

from relnet_jax.data.formats.tfds_records import FORMAT
from relnet_jax.data.image_files import Found
from relnet_jax.data.images import StoredImage
from relnet_jax.data.issues import Issue
from relnet_jax.errors import UserError

SPLITS = {'train': ('train',), 'val': ('val', 'validation', 'test', 'train')}     # the first that is there


def open_examples(folder: Path, split: str) -> tuple[Any, dict]:
    """(random access to the examples, metadata) of a split. Raises UserError for a folder that is not of this form."""
    import tensorflow_datasets as tfds
    if not folder.is_dir():
        raise FileNotFoundError(f"no TFDS folder '{folder}'")
    inner = folder if (folder / 'dataset_info.json').is_file() else next(
        iter(sorted(path.parent for path in folder.glob('*/dataset_info.json'))), None)
    if inner is None:
        raise UserError(f"{folder}: not a TFDS data set, no dataset_info.json in it or one folder below")
    try:
        builder = tfds.builder_from_directory(str(inner))
        about = dict(builder.info.metadata or {})
    except Exception as e:      # whatever a damaged description makes the library raise
        raise UserError(f'{inner}: TFDS cannot open it ({type(e).__name__}: {str(e)[:200]})') from e
    if about.get('format') != FORMAT:
        names = ', '.join(builder.info.features or {})
        raise UserError(f'{inner}: a TFDS data set of another form ({names}); expected one that '
                        'relnet_jax.data.tfds_export has written')
    name = next((name for name in SPLITS[split] if name in builder.info.splits), None)
    if name is None:
        raise UserError(f"{inner}: no split '{SPLITS[split][0]}', it has {', '.join(builder.info.splits)}")
    return builder.as_data_source(split=name), about


def read(path: Path, folder: Path, data: Any, *, split: str) -> tuple[dict, list[Issue], Any]:
    """(document, issues, finder of the images), as of a reader (see `data.formats`). Reads every example once."""
    examples, about = open_examples(path, split)
    images, annotations, positions = [], [], {}
    for i in range(len(examples)):
        example = examples[i]
        record, name = json.loads(example['record']), example['file_name'].decode()
        images.append(record | dict(file_name=name))
        positions[name] = i
        objects = example['objects']
        for j in range(len(objects['category_id'])):
            annotations.append(json.loads(objects['annotation'][j]) | dict(
                id=len(annotations) + 1, image_id=record['id'], category_id=int(objects['category_id'][j]),
                iscrowd=int(objects['iscrowd'][j])))

    def stored(i: int) -> bytes:
        return bytes(examples[i]['image'])

    def find(name: str) -> Found:
        return Found(StoredImage(name, functools.partial(stored, positions[name])))

    document = dict(images=images, annotations=annotations, categories=list(map(dict, about['categories'])),
                    parts=list(about['parts']))
    return document, [], find
