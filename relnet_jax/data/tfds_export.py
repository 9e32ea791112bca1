"""Write any data set in TFDS form, without TensorFlow: python -m relnet_jax.data.tfds_export --config=... --out=DIR

Installed, the command is relnet-tfds-export. DIR/NAME/1.0.0 gets array_record files with the splits 'train' and 'val'
that a training with this config has; `tfds.builder_from_directory` opens it, and so does `data.format='tfds'` with that
folder as data.train.annotations and data.val.annotations. Image files go in as they are.
"""
import contextlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from absl import flags
from absl.flags import FlagValues

from relnet_jax import cli
from relnet_jax.data.formats.tfds_records import FORMAT, VERSION, features
from relnet_jax.data.pipeline import open_sources
from relnet_jax.data.source import Source
from relnet_jax.errors import UserError
from relnet_jax.progress import Bar


def categories(source: Source) -> list[dict]:
    """Classes in label order, then the parts, which get ids of their own unless they are classes too."""
    table = [dict(id=int(i), name=n) for i, n in zip(source.category_ids, source.classes)]
    free = max((*source.category_ids, *source.other_ids), default=0) + 1
    return table + [dict(id=free + i, name=n) for i, n in enumerate(n for n in source.parts if n not in source.classes)]


def examples(source: Source, table: list[dict], bar: Bar) -> Iterator[tuple[int, dict]]:
    """(position, example in the form of `tfds_records.features`) of every image."""
    ids, found = {row['name']: row['id'] for row in table}, defaultdict(list)
    for annotation in source.ground_truth()['annotations']:
        found[annotation['image_id']].append(annotation)
    for i, record in enumerate(source.records):
        objects = [_object({key: a[key] for key in ('bbox', 'area', 'segmentation') if key in a}, a['category_id'],
                           bool(a['iscrowd'])) for a in found[record['id']]]
        path, example = source.image_path(i), None
        if path is None or source.parts:
            example = source.load(i)
        if source.parts:
            height, width = example.image.shape[:2]
            scale = np.array([record['width'] / width, record['height'] / height] * 2)
            for name, box, valid in zip(source.parts, np.float64(example.part_boxes) * scale, example.part_valid):
                if valid and name not in source.classes:
                    objects.append(_object(dict(bbox=[*box[:2], *(box[2:] - box[:2])]), ids[name], False))
        image = path.read_bytes() if path else cv2.imencode('.png', example.image[..., ::-1])[1].tobytes()
        name = f'{i:06d}_{Path(record["file_name"]).name}' if path else f'{i:06d}.png'
        yield i, dict(image=image, file_name=name, record=json.dumps(record), objects=objects)
        bar.advance()


def _object(annotation: dict, category_id: int, crowd: bool) -> dict:
    return dict(bbox=np.float32(annotation['bbox']), category_id=category_id, iscrowd=crowd,
                annotation=json.dumps(annotation))


def export(sources: dict[str, Source], out: str | Path, *, name: str) -> Path:
    """Writes the data set OUT/NAME/VERSION with a split for each of `sources`; returns the folder.

    TFDS writes under another name and renames at the end. Raises UserError if the folder is there already.
    """
    import tensorflow_datasets as tfds
    name = re.sub(r'\W+', '_', name).strip('_').lower() or 'films'
    name = name if name[0].isalpha() else f'films_{name}'
    folder = Path(out) / name / VERSION
    if folder.exists():
        raise UserError(f"--out: '{folder}' is there already; remove it or choose another folder")
    first = next(iter(sources.values()))
    table = categories(first)
    about = dict(format=FORMAT, categories=table, parts=list(first.parts))
    tfds.disable_progress_bar()
    with Bar(f'{name}, writing', total=sum(map(len, sources.values())), unit='img') as bar:
        class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            """Of this one data set."""
            VERSION = tfds.core.Version(VERSION)
            code_path = None        # no script of a data set, beside which TFDS would look for checksums

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=features(), disable_shuffling=True,
                                             metadata=tfds.core.MetadataDict(about))

            def _split_generators(self, dl_manager):
                return {split: examples(source, table, bar) for split, source in sources.items()}

            def _generate_examples(self):
                raise AssertionError('splits are given by _split_generators')

        Builder.name = name
        with contextlib.redirect_stdout(sys.stderr):
            Builder(data_dir=str(out), file_format='array_record').download_and_prepare()
    return folder


def define(values: FlagValues) -> None:
    cli.define_config(values, 'phantom')
    cli.define_path(values, 'out', None, 'folder to write to', kind='folder')
    flags.DEFINE_string('name', '', "the data set's name; default: that of the config", flag_values=values)
    flags.DEFINE_enum('split', 'both', ['train', 'val', 'both'], 'which images', flag_values=values)


def command(call: cli.Call) -> None:
    f, config = call.flags, cli.config_of(call)
    sources = dict(zip(('train', 'val'), open_sources(config)))
    chosen = {split: source for split, source in sources.items() if f.split in (split, 'both') and len(source)}
    if not chosen:
        raise UserError(f'--split={f.split}: no images')
    folder = export(chosen, f.out, name=f.name or config.name)
    print(f'{sum(map(len, chosen.values()))} images in {folder}: --config.data.format=tfds '
          f'--config.data.train.annotations={folder} --config.data.val.annotations={folder}')


def main(argv: list[str] | None = None) -> int:
    return cli.run('tfds_export', __doc__, define, command, argv)


if __name__ == '__main__':
    sys.exit(main())
