"""Write any data set in TFDS form, without TensorFlow: python -m relnet_jax.data.tfds_export --config=... --out=DIR

Installed, the command is relnet-tfds-export. DIR/NAME/1.0.0 gets array_record files with the splits 'train' and 'val'
that a training with this config has; `tfds.builder_from_directory` opens it, and so does `data.format='tfds'` with that
folder as data.train.annotations and data.val.annotations. Image files go in as they are; an image that cannot be read
does so too, is named, and makes the exit code 1.
"""
import json
import math
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from absl import flags, logging
from absl.flags import FlagValues

from relnet_jax import cli
from relnet_jax.data.formats.tfds_records import FORMAT, VERSION, features
from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.pipeline import open_sources
from relnet_jax.data.source import Source
from relnet_jax.errors import UserError
from relnet_jax.progress import Bar
from relnet_jax.types import Example

SHARD = 1000        # images in a file


def categories(source: Source) -> list[dict]:
    """Classes in label order, then the parts, which get ids of their own unless they are classes too."""
    table = [dict(id=int(i), name=n) for i, n in zip(source.category_ids, source.classes)]
    free = max((*source.category_ids, *source.other_ids), default=0) + 1
    return table + [dict(id=free + i, name=n) for i, n in enumerate(n for n in source.parts if n not in source.classes)]


def examples(source: Source, unreadable: list[str], bar: Bar) -> Iterator[dict]:
    """Each image in the form of `tfds_records.features`; those that cannot be read join `unreadable`."""
    truth, found = source.ground_truth(), defaultdict(list)
    labels = {number: i for i, number in enumerate(source.category_ids)}
    names = {image['id']: image.get('file_name') for image in truth['images']}
    for annotation in truth['annotations']:
        found[annotation['image_id']].append(annotation)
    for i, record in enumerate(source.records):
        path, example = source.image_path(i), None
        try:
            example = source.load(i)
        except UnreadableImage as e:
            if path is None:
                raise
            unreadable.append(str(e))
        size = record.get('height') or example.image.shape[0], record.get('width') or example.image.shape[1]
        objects = [_box(a, labels[a['category_id']], size) | dict(is_crowd=bool(a['iscrowd']))
                   for a in found[record['id']]]
        yield {'image': path.read_bytes() if path else _png(example.image),
               'image/filename': record.get('file_name') or names[record['id']] or f'{record["id"]}.png',
               'record': json.dumps(record), 'objects': objects, 'parts': _parts(example, size) if example else []}
        bar.advance()


def _box(annotation: dict, label: int, size: tuple[int, int]) -> dict:
    """`annotation` has a bbox [x, y, width, height] in an image of (height, width) `size`."""
    x, y, w, h = annotation['bbox']
    share = np.clip([y / size[0], x / size[1], (y + h) / size[0], (x + w) / size[1]], 0, 1)
    kept = {key: annotation[key] for key in ('area', 'segmentation') if key in annotation}
    return dict(bbox=share, label=label, annotation=json.dumps(
        dict(bbox=[x, y, _side(x, w), _side(y, h)]) | kept))


def _side(low: float, side: float) -> float:
    """`side`, or a neighbour of it that comes back as `side` from the corners that it spans from `low` on."""
    near = side, math.nextafter(side, 0), math.nextafter(side, math.inf)
    return next((s for s in near if (low + s) - low == side), side)


def _parts(example: Example, size: tuple[int, int]) -> list[dict]:
    """The parts at hand, from the pixels of the image to those of the annotations, as `fit.scaled` takes them back."""
    height, width = example.image.shape[:2]
    boxes = np.float64(example.part_boxes) / np.float32([width / size[1], height / size[0]] * 2)
    return [_box(dict(bbox=[x1, y1, x2 - x1, y2 - y1]), slot, size)
            for slot, (x1, y1, x2, y2) in enumerate(boxes.tolist()) if example.part_valid[slot]]


def _png(image: np.ndarray) -> bytes:
    grey = (image == image[..., :1]).all()
    return cv2.imencode('.png', image[..., 0] if grey else image[..., ::-1])[1].tobytes()


def export(sources: dict[str, Source], out: str | Path, *, name: str) -> tuple[Path, Sequence[str]]:
    """Writes the data set OUT/NAME/VERSION with a split for each of `sources`, which have one class table.

    Returns (the folder, a line for each image that cannot be read). All is written under another name and renamed at
    the end. Raises UserError if the folder is there already and not empty.
    """
    import tensorflow_datasets as tfds
    name = re.sub(r'\W+', '_', name, flags=re.ASCII).strip('_').lower() or 'films'
    name = name if name[0].isalpha() else f'films_{name}'
    folder = Path(out) / name / VERSION
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--out: '{folder}' is there already; remove it or choose another folder or --name")
    first, unreadable = next(iter(sources.values())), []
    about = dict(format=FORMAT, categories=categories(first), classes=list(first.classes), parts=list(first.parts))
    scratch = folder.with_name(f'{VERSION}.incomplete')
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        info = tfds.core.DatasetInfo(
            builder=tfds.core.dataset_info.DatasetIdentity(
                name=name, version=tfds.core.Version(VERSION), data_dir=str(scratch), module_name=__name__),
            description='; '.join(f'{split}: {source.name}' for split, source in sources.items()),
            features=features(first.classes, first.parts), disable_shuffling=True,
            metadata=tfds.core.MetadataDict(about))
        writer = tfds.core.SequentialWriter(info, max_examples_per_shard=SHARD, file_format='array_record')
        writer.initialize_splits(list(sources))
        with Bar(f'{name}, writing', total=sum(map(len, sources.values())), unit='img') as bar:
            for split, source in sources.items():
                writer.add_examples({split: examples(source, unreadable, bar)})
        writer.close_all()
        if folder.exists():
            folder.rmdir()
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder, unreadable


def define(values: FlagValues) -> None:
    cli.define_config(values, 'phantom')
    cli.define_path(values, 'out', None, 'folder to write to', kind='folder')
    flags.DEFINE_string('name', '', "the data set's name; default: that of the config", flag_values=values)
    flags.DEFINE_enum('split', 'both', ['train', 'val', 'both'], 'which images', flag_values=values)


def command(call: cli.Call) -> int:
    f, config = call.flags, cli.config_of(call)
    sources = dict(zip(('train', 'val'), open_sources(config)))
    chosen = {split: source for split, source in sources.items() if f.split in (split, 'both')}
    folder, unreadable = export(chosen, f.out, name=f.name or config.name)
    for line in unreadable:
        logging.warning('cannot be read, written as it is: %s', line)
    print(f'{sum(map(len, chosen.values()))} images in {folder}: --config.data.format=tfds ' + ' '.join(
        f'--config.data.{split}.annotations={folder}' for split in chosen))
    return cli.UNFINISHED if unreadable else cli.DONE


def main(argv: list[str] | None = None) -> int:
    return cli.run('tfds_export', __doc__, define, command, argv)


if __name__ == '__main__':
    sys.exit(main())
