"""What a run is trained and measured on, in a few checksums, so that a run that goes on notices other data."""
import hashlib
import json
from pathlib import Path

from ml_collections import ConfigDict

from relnet_jax import rules
from relnet_jax.data.source import Source

FILES = ('data.train.annotations', 'data.val.annotations', 'data.meta', 'data.parts_file', 'data.dicom_overrides')
SPLITS = {'train': 'training images', 'val': 'validation images'}


def fingerprint(config: ConfigDict, train: Source, val: Source) -> dict:
    """What `changes` compares, as JSON has it: `files`, config key -> checksum of contents, wherever the file lies;
    `train` and `val`, the images that are left after split and subset, in their order; `phantom`, its parameters.

    Pictures are not read: one that changed under its name is not noticed.
    """
    paths = {key: rules.value_of(config, key) for key in FILES}
    return dict(files={key: _contents(Path(path)) for key, path in paths.items() if path},
                phantom=config.data.phantom.to_dict() if config.data.format == 'phantom' else {},
                **{split: _images(source) for split, source in (('train', train), ('val', val))})


def _images(source: Source) -> dict:
    names = [[record['id'], record.get('file_name', '')] for record in source.records]
    return dict(count=len(names), checksum=hashlib.blake2b(json.dumps(names).encode(), digest_size=16).hexdigest())


def _contents(path: Path) -> str:
    """Of a file its contents; of a folder (TFDS) the names and sizes of the files in it."""
    if path.is_dir():
        listing = [[p.relative_to(path).as_posix(), p.stat().st_size] for p in sorted(path.rglob('*')) if p.is_file()]
        return hashlib.blake2b(json.dumps(listing).encode(), digest_size=16).hexdigest()
    if not path.is_file():      # data.parts_file = 'none'
        return str(path)
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def changes(before: dict, now: dict) -> list[str]:
    """A line for everything that differs between two fingerprints, [] where nothing does."""
    found = [f'config.{key} ' + ('has other contents' if key in before['files'] and key in now['files'] else
                                 'was not there' if key in now['files'] else 'is gone')
             for key in FILES if before['files'].get(key) != now['files'].get(key)]
    found += [f'config.data.phantom.{key} is {now["phantom"].get(key)}, was {value}'
              for key, value in before['phantom'].items() if now['phantom'].get(key) != value]
    for split, words in SPLITS.items():
        if before[split] != now[split]:
            same = before[split]['count'] == now[split]['count']
            found.append(f'{now[split]["count"]} {words}, ' + ('others, or in another order' if same else
                                                               f'were {before[split]["count"]}'))
    return found
