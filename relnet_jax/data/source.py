"""A `Source` is an opened data set: class table, image records, how to load one `Example`, and the ground truth.

Every format (COCO files, the phantom) gives this one record, and nothing after it knows where an image came from.
"""
import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from relnet_jax.data.issues import Issue
from relnet_jax.errors import UserError
from relnet_jax.types import Example

CLASS_TABLE = ('classes', 'category_ids', 'parts')      # fields of a `Source` that a model is made for


def no_path(index: int) -> Path | None:
    """`image_path` of sources whose images are not files."""
    return None


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened data set. `classes[i]` has label i + 1 and the data set's own id `category_ids[i]`.

    * records: one dict per image with at least `id` (number or text), `width` and `height` (pixels that annotations and
      results refer to; without them those of the image), `file_name` if it is a file, and whatever else the data set
      says about the image (`patientid`, ...).
    * load(i): the `Example` at position i, in the pixels of the file at hand, which may be a resized copy of what was
      annotated (`data.fit`); raises `images.UnreadableImage`. Thread-safe.
    * ground_truth(): dict in COCO format (`images`, `annotations`, `categories`) of the classes to detect, with the
      data set's own category ids, after the checks; without a mask there is no `segmentation`. Made anew by each call.
    * image_path(i): the file of position i, None where there is none.
    * issues: what was found broken when it was opened, with the rule applied. notes: what else a user should know.
    * counts: what became of the records when it was opened: `image_records` are the sum of `images`, `images_dropped`
      and `images_not_wanted`; `annotations` that of `used`, `dropped`, `duplicates`, `image_left_out` and `not_wanted`;
      `objects` of the used ones are of the classes. Empty for data that are made, not read.
    * annotated: False if the data are images alone, which nothing can be measured on.
    * other_ids: category ids of the data set for what is none of `classes`.
    * unwanted: name -> number of annotations of categories that are neither classes nor parts and were left out.
    * memory: where the pipeline keeps decoded and resized examples (`config.data.cache`); None = it keeps nothing.
    """
    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    parts: tuple[str, ...]
    records: list[dict]
    load: Callable[[int], Example]
    ground_truth: Callable[[], dict]
    image_path: Callable[[int], Path | None] = no_path
    issues: tuple[Issue, ...] = ()
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    annotated: bool = True
    other_ids: tuple[int, ...] = ()
    unwanted: Mapping[str, int] = dataclasses.field(default_factory=dict)
    memory: dict | None = None

    def __len__(self) -> int:
        return len(self.records)

    @property
    def image_ids(self) -> list[int | str]:
        """The data set's own image ids in order of position."""
        return [record['id'] for record in self.records]

    @functools.cached_property
    def object_count(self) -> int:
        """Objects of the classes, after the checks. Those of the phantom are drawn to be counted."""
        return len(self.ground_truth()['annotations'])


def subset(source: Source, indices: list[int], *, name: str) -> Source:
    """The images at `indices` as a source of its own: positions are counted anew, everything else stays."""
    indices = list(indices)
    records = [source.records[i] for i in indices]
    kept = {record['id'] for record in records}

    def ground_truth() -> dict:
        truth = source.ground_truth()
        return truth | {'images': [image for image in truth['images'] if image['id'] in kept],
                        'annotations': [a for a in truth['annotations'] if a['image_id'] in kept]}

    return dataclasses.replace(
        source, name=name, records=records, ground_truth=ground_truth, memory=None,
        load=lambda i: source.load(indices[i])._replace(index=i),
        image_path=lambda i: source.image_path(indices[i]))


def select(source: Source, wanted: str) -> Source:
    """The images whose record says `wanted`, 'key=value' (config.data.subset), as a source of its own.

    Raises UserError, naming the keys or values that there are, if a record lacks the key or none has the value.
    """
    key, equals, value = wanted.partition('=')
    if not key or not equals:
        raise UserError(f"data.subset: expected 'key=value', got '{wanted}'")
    lacking = [record for record in source.records if key not in record]
    if lacking:
        raise UserError(f"{source.name}: image {lacking[0]['id']} has no key '{key}', which data.subset = '{wanted}' "
                        f'asks for; it has {sorted(lacking[0])}')
    indices = [i for i, record in enumerate(source.records) if str(record[key]) == value]
    if not indices:
        values = sorted({str(record[key]) for record in source.records})
        raise UserError(f"{source.name}: no image has {key} '{value}' (data.subset); there are {values[:10]}")
    return subset(source, indices, name=f'{source.name}, {wanted}')


def split(source: Source, *, by: str, folds: int, hold_out: int) -> tuple[Source, Source]:
    """(train, validation): the images in `folds` parts of about equal size, of which part `hold_out` is the validation.

    Images with an equal value of the record key `by` (a patient id, say) stay together. The parts depend on these
    values alone: groups are taken by size, equal sizes in the order of their values' CRC-32, each into the emptiest
    part so far. Raises UserError for a key that a record lacks, and for parts that cannot be made.
    """
    if folds < 2 or not 0 <= hold_out < folds:
        raise UserError(f'data.split: expected 2 or more folds and hold_out in 0..folds-1, got {folds} and {hold_out}')
    groups = {}
    for i, record in enumerate(source.records):
        if by not in record:
            raise UserError(
                f"{source.name}: image {record['id']} has no key '{by}' to split by (data.split.by); it has "
                f'{sorted(record)}')
        groups.setdefault(str(record[by]), []).append(i)
    if len(groups) < folds:
        other = f'data.split.folds={len(groups)} or less' if len(groups) > 1 else 'more images'
        raise UserError(f"{source.name}: {len(groups)} different values of '{by}' cannot fill {folds} folds, one of "
                        'which is held out: give a validation file (data.val.annotations, data.val.images), or '
                        f'{other}')
    parts = [[] for _ in range(folds)]
    for value in sorted(groups, key=lambda v: (-len(groups[v]), zlib.crc32(v.encode()), v)):
        min(parts, key=len).extend(groups[value])       # the first of the emptiest
    held = sorted(parts[hold_out])
    rest = sorted(i for k, part in enumerate(parts) if k != hold_out for i in part)
    return (subset(source, rest, name=f'{source.name} (without fold {hold_out} of {folds})'),
            subset(source, held, name=f'{source.name} (fold {hold_out} of {folds})'))


def for_model(source: Source, *, classes: Sequence[str], category_ids: Sequence[int], parts: Sequence[str]) -> Source:
    """The same images for a model that knows `classes` and `parts`, by their names: labels and rows are the model's.

    Objects of other classes are left out. A class that the data lack keeps the model's category id, or gets one that
    the data do not use; a part that they lack is unknown. Raises UserError if the data have annotations, but none of
    the classes.
    """
    if source.classes == tuple(classes) and source.parts == tuple(parts):
        return source
    classes, parts = tuple(classes), tuple(parts)
    ids, missing = dict(zip(source.classes, source.category_ids)), [n for n in classes if n not in source.classes]
    if source.annotated and len(missing) == len(classes):
        raise UserError(f'{source.name}: has none of the classes {", ".join(classes)}')
    if source.annotated and missing:
        logging.warning('%s: without the classes %s: nothing is measured for them', source.name, ', '.join(missing))
    if extra := [name for name in source.classes if name not in classes]:
        logging.warning('%s: objects of %s are left out, the model does not know them', source.name, ', '.join(extra))
    taken = {*source.category_ids, *source.other_ids}
    free = (i for i in itertools.count(1) if i not in taken and i not in category_ids)
    for name, own in zip(classes, category_ids):
        if name not in ids:
            ids[name] = next(free) if own in taken else own
    labels = np.array([0] + [classes.index(n) + 1 if n in classes else 0 for n in source.classes], np.int32)
    rows = [source.parts.index(name) if name in source.parts else -1 for name in parts]

    def load(index: int) -> Example:
        example = source.load(index)
        known = labels[example.labels] > 0
        boxes = np.concatenate([example.part_boxes, np.zeros((1, 4), np.float32)])      # the last: of the unknown
        valid = np.concatenate([example.part_valid, np.zeros(1, bool)])
        return example._replace(
            part_boxes=boxes[rows], part_valid=valid[rows], labels=labels[example.labels][known],
            **{field: getattr(example, field)[known] for field in ('boxes', 'crowd', 'masks', 'has_mask')})

    def ground_truth() -> dict:
        truth = source.ground_truth()
        categories = [dict(id=ids[name], name=name) for name in classes]
        kept = {category['id'] for category in categories}
        return truth | dict(annotations=[a for a in truth['annotations'] if a['category_id'] in kept],
                            categories=categories)

    return dataclasses.replace(source, classes=classes, category_ids=tuple(ids[name] for name in classes), parts=parts,
                               load=load, ground_truth=ground_truth, memory=None if source.memory is None else {})
