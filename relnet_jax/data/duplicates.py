"""Images that cannot be read, that show nothing, that are there twice, or that training and validation share."""
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from relnet_jax.data.grey import is_blank
from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.source import Source
from relnet_jax.progress import Bar

PATIENT_KEYS = ('patient_id', 'patientid', 'PatientID', 'patientId', 'patient')


class Look(NamedTuple):
    """What was seen of an image when it was loaded."""
    problem: str = ''       # why it cannot be
    blank: bool = False     # of one grey level
    content: bytes = b''    # hash of its pixels: that of another file, too, if only its packing differs
    parts: tuple[str, ...] = ()     # names of those that are annotated


def look_at_images(source: Source, threads: int) -> list[Look]:
    """Loads every image; none of a source whose images are made, not read, which gives no looks at all."""
    def look(index: int) -> Look:
        try:
            example = source.load(index)
        except UnreadableImage as e:
            return Look(problem=str(e))
        pixels = np.ascontiguousarray(example.image)
        content = hashlib.sha1(pixels.data, usedforsecurity=False).digest() + bytes(str(pixels.shape), 'ascii')
        parts = tuple(n for n, there in zip(source.parts, example.part_valid) if there)
        return Look(blank=is_blank(pixels), content=content, parts=parts)

    looks = []
    if source.counts:
        with (ThreadPoolExecutor(max(threads, 1)) as pool,
              Bar(f'{source.name}, reading', total=len(source), unit='img') as bar):
            for found in pool.map(look, range(len(source))):
                looks.append(found)
                bar.advance()
    return looks


def called(record: dict) -> str:
    """An image by its id and, where that is another, its file."""
    name = record.get('file_name', record['id'])
    return str(record['id']) if name == record['id'] else f'{record["id"]} ({name})'


def unreadable_images(source: Source, looks: Sequence[Look]) -> list[str]:
    """One line for each image that cannot be loaded."""
    return [f'image {record["id"]}: {look.problem}' for record, look in zip(source.records, looks) if look.problem]


def blank_images(source: Source, looks: Sequence[Look]) -> list[str]:
    """One line for each image of one grey level, which shows nothing."""
    return [f'image {called(record)}' for record, look in zip(source.records, looks) if look.blank]


def repeated_images(source: Source, looks: Sequence[Look]) -> list[str]:
    """One line for each image with the pixels of an earlier one."""
    first, lines = {}, []
    for record, look in zip(source.records, looks):
        if look.content and (other := first.setdefault(look.content, record)) is not record:
            lines.append(f'image {called(record)}: same content as image {called(other)}')
    return lines


def shared_images(train: Source, val: Source, train_looks: Sequence[Look], val_looks: Sequence[Look]) -> list[str]:
    """One line for each validation image whose file or pixels a training image has too, or whose file name in the data
    set: with its folders, for patients' folders may all hold a '1.png'."""
    by_path, by_name, by_content = {}, {}, {}
    for i, record in enumerate(train.records):
        if (path := train.image_path(i)) is not None:
            by_path[path.resolve()] = record
        if 'file_name' in record:
            by_name[record['file_name']] = record
    for record, look in zip(train.records, train_looks):
        if look.content:
            by_content.setdefault(look.content, record)
    contents = [look.content for look in val_looks] or [b''] * len(val)
    lines = []
    for i, (record, content) in enumerate(zip(val.records, contents)):
        path = val.image_path(i)
        for what, other in (('file', by_path.get(path and path.resolve())), ('content', by_content.get(content)),
                            ('file name', by_name.get(record.get('file_name')))):
            if other is not None:
                lines.append(f'validation image {called(record)}: same {what} as training image {called(other)}')
                break
    return lines


def shared_patients(train: Source, val: Source, key: str) -> list[str]:
    """One line for each patient with images in both sets, by `key` of the records, or else the first of PATIENT_KEYS
    that some have in both; records without it are passed over."""
    for own in (key, *PATIENT_KEYS):
        here, there = defaultdict(list), defaultdict(list)
        for records, images in ((train.records, here), (val.records, there)):
            for record in records:
                if own != 'id' and record.get(own) not in (None, ''):
                    images[str(record[own])].append(called(record))
        if here and there:
            return [f'{own} {patient}: {len(there[patient])} images in validation (such as {there[patient][0]}), '
                    f'{len(here[patient])} in training (such as {here[patient][0]})' for patient in there
                    if patient in here]
    return []


def parts_found(source: Source, looks: Sequence[Look]) -> dict[str, int]:
    """Part name -> number of images in which it is annotated; empty without looks."""
    counts = Counter(name for look in looks for name in look.parts)
    return {name: counts[name] for name in source.parts} if looks else {}
