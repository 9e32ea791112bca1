"""TFDS data sets of array_record files; `data.train.annotations` is the folder. TensorFlow is not needed.

Two forms are read: that of `data.tfds_export` (see `tfds_records`), and TFDS's own of detection sets, with `image` and
`objects` of `bbox` and `label` (and `is_crowd` and `area`, where they are): these are boxes without masks.
"""
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from relnet_jax.data.formats.tfds_records import FORMAT
from relnet_jax.data.image_files import Found
from relnet_jax.data.images import StoredImage, UnreadableImage, read_header
from relnet_jax.data.read_options import ReadOptions, read_options
from relnet_jax.errors import UserError

SPLITS = {'train': ('train',), 'val': ('val', 'validation')}     # the first that is there


def read(folder: Path, data: ConfigDict, *, split: str) -> tuple[dict, Callable[[str], Found], str]:
    """(document, see `data.formats`; where the image of a file name is; a name for the data) of 'train' or 'val'.

    Every example is read once, but no image decoded. Raises FileNotFoundError without the folder and UserError for one
    that holds no data set of the two forms, or not this split.
    """
    builder, split = _open(folder, split)
    about, columns = dict(builder.info.metadata or {}), dict(builder.info.features or {})
    if about.get('format') == FORMAT:
        about, rows = {key: json.loads(json.dumps(about[key])) for key in ('categories', 'classes', 'parts')}, _own
    else:
        about, rows = _plain_table(folder, columns), _plain
    examples = _Examples(builder, split)
    images, annotations, positions = [], [], {}
    for i, (record, objects) in enumerate(rows(examples, about, read_options(data))):
        images.append(record)
        positions.setdefault(record['file_name'], i)
        annotations += [o | dict(image_id=record['id'], where=f'example {i}, object {j}')
                        for j, o in enumerate(objects)]

    def find(name: str) -> Found:
        return Found(StoredImage(name, lambda: examples[positions[name]]['image']))

    return about | dict(images=images, annotations=annotations), find, examples.name


class _Examples:
    """Random access to the examples of a split, their images as bytes."""

    def __init__(self, builder: Any, split: str):
        import tensorflow_datasets as tfds
        self.name = f'{builder.info.name} {split}'
        try:
            self._source = builder.as_data_source(split=split, decoders={'image': tfds.decode.SkipDecoding()})
        except Exception as e:      # whatever files that are missing or damaged make the library raise
            raise UserError(f'{builder.data_dir}: split {split} cannot be opened ({_cause(e)})') from e

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        try:
            return self._source[i]
        except Exception as e:
            raise UnreadableImage(f'{self.name}: example {i}', f'cannot be read ({_cause(e)})') from e

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.__getitem__, range(len(self)))


def _open(folder: Path, split: str) -> tuple[Any, str]:
    """(builder of the data set in `folder`, or in the one folder below that holds one; its name of the split)."""
    import tensorflow_datasets as tfds
    if not folder.is_dir():
        raise FileNotFoundError(f"no TFDS folder '{folder}'")
    inner = [path.parent for path in folder.glob('**/dataset_info.json')]
    if len(inner) != 1:
        found = f'several, choose one: {", ".join(map(str, sorted(inner)))}' if inner else 'no dataset_info.json in it'
        raise UserError(f'{folder}: expected the folder of one TFDS data set, found {found}')
    try:
        builder = tfds.builder_from_directory(str(inner[0]))
        splits, kind = builder.info.splits, builder.info.file_format
    except Exception as e:      # whatever a damaged description makes the library raise
        raise UserError(f'{inner[0]}: TFDS cannot open it ({_cause(e)})') from e
    if kind is None or kind.value != 'array_record':
        raise UserError(f'{inner[0]}: a TFDS data set of {kind and kind.value} files, which TensorFlow alone reads; '
                        "expected file_format='array_record' (`tfds convert_format` rewrites it)")
    name = next((name for name in SPLITS[split] if name in splits), None)
    if name is None:
        raise UserError(f"{inner[0]}: no split '{' or '.join(SPLITS[split])}', it has {', '.join(splits) or 'none'}")
    return builder, name


def _cause(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'


def _objects(columns: dict[str, list]) -> Iterable[dict[str, Any]]:
    """The rows of a sequence, which TFDS gives by column."""
    return (dict(zip(columns, row)) for row in zip(*columns.values()))


# ---- the form of data.tfds_export ----
def _own(examples: _Examples, about: dict, options: ReadOptions) -> Iterator[tuple[dict, list[dict]]]:
    """(image record, annotations) of each example. A part that is a class too is among the objects already."""
    ids = {category['name']: category['id'] for category in about['categories']}
    for example in examples:
        found = [(about['classes'][o['label']], o) for o in _objects(example['objects'])]
        found += [(name, o) for o in _objects(example['parts']) if (name := about['parts'][o['label']])
                  not in about['classes']]
        yield json.loads(example['record']) | dict(file_name=example['image/filename'].decode()), [
            json.loads(o['annotation']) | dict(category_id=ids[name], iscrowd=int(o.get('is_crowd', 0)))
            for name, o in found]


# ---- TFDS's own form ----
def _plain_table(folder: Path, columns: dict[str, Any]) -> dict:
    """The categories of a detection set, by position. Raises UserError for features of another form."""
    import tensorflow_datasets as tfds
    f = tfds.features
    objects = getattr(columns.get('objects'), 'feature', None)      # of a Sequence
    box, label = (dict(objects).get(key) if isinstance(objects, f.FeaturesDict) else None for key in ('bbox', 'label'))
    if not (isinstance(columns.get('image'), f.Image) and isinstance(label, f.ClassLabel)
            and isinstance(box, f.BBoxFeature) and getattr(box.bbox_format, 'value', None) in (None, 'REL_YXYX')):
        raise UserError(f'{folder}: a TFDS data set of {", ".join(sorted(columns))}; expected one that '
                        'relnet_jax.data.tfds_export wrote, or image (Image) and objects with bbox (BBoxFeature) and '
                        'label (ClassLabel)')
    return dict(categories=[dict(id=i, name=name) for i, name in enumerate(label.names)])


def _plain(examples: _Examples, about: dict, options: ReadOptions) -> Iterator[tuple[dict, list[dict]]]:
    """(image record, annotations) of each example. Boxes are shares of the stored picture, whose header is read."""
    seen = set()
    for i, example in enumerate(examples):
        name = example.get('image/filename', b'').decode() or f'{i:06d}'
        name = f'{i:06d}/{name}' if name in seen else name
        seen.add(name)
        own = example.get('image/id', i)
        record = dict(id=own.decode() if isinstance(own, bytes) else int(own), file_name=name)
        size = None
        try:
            size = read_header(StoredImage(name, lambda image=example['image']: image), options)[:2]
            record |= dict(height=size[0], width=size[1])
        except UnreadableImage:
            pass        # it is reported when the record is checked
        yield record, [dict(category_id=int(o['label']), bbox=_pixels(o['bbox'], size),
                            iscrowd=int(o.get('is_crowd', 0))) | ({'area': float(o['area'])} if 'area' in o else {})
                       for o in _objects(example['objects'])]


def _pixels(box: Any, size: tuple[int, int] | None) -> list[float] | None:
    """[x, y, width, height] in pixels of shares [y1, x1, y2, x2]; None without a size."""
    if size is None:
        return None
    y1, x1, y2, x2 = map(float, box)
    return [x1 * size[1], y1 * size[0], (x2 - x1) * size[1], (y2 - y1) * size[0]]
