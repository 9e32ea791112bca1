"""Image files that cannot be read, that are there twice, or that training and validation share."""
import functools
import hashlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.source import Source
from relnet_jax.progress import Bar

PATIENT_KEYS = ('patient_id', 'patientid', 'PatientID', 'patientId')


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def unreadable_images(source: Source, threads: int) -> list[str]:
    """One line for each image file that cannot be loaded. Decodes every file; images that are made, not
    read, are passed over."""
    def problem(index: int) -> str | None:
        try:
            source.load(index)
        except UnreadableImage as e:
            return f'image {source.records[index]["id"]}: {e}'

    files = range(len(source)) if source.counts else ()
    lines = []
    with (ThreadPoolExecutor(max(threads, 1)) as pool,
          Bar(f'{source.name}, reading' if files else '', total=len(files), unit='img') as bar):
        for line in pool.map(problem, files):
            lines += [line] if line else []
            bar.advance()
    return lines


def repeated_images(source: Source) -> list[str]:
    """One line for each image whose file has the content (SHA-1) of an earlier one's."""
    by_size, lines = defaultdict(list), []
    for i in range(len(source)):
        path = source.image_path(i)
        if path is not None and path.is_file():
            by_size[path.stat().st_size].append((source.records[i], path))
    for same_size in by_size.values():
        first = {}
        for record, path in same_size if len(same_size) > 1 else ():
            other = first.setdefault(_digest(path), record)
            if other is not record:
                lines.append(f'image {record["id"]} ({record["file_name"]}): same content as image {other["id"]} '
                             f'({other["file_name"]})')
    return lines


def shared_images(train: Source, val: Source) -> list[str]:
    """One line for each validation image whose file or content (SHA-1) a training image has too, or whose file name in
    the data set: with its folders, for patients' folders may all hold a '1.png'."""
    by_path, by_name, by_size = {}, {}, defaultdict(list)
    for i in range(len(train)):
        path, image_id = train.image_path(i), train.records[i]['id']
        if path is not None:
            by_path[path.resolve()] = by_name[train.records[i]['file_name']] = image_id
            by_size[path.stat().st_size].append((path, image_id))
    digest = functools.cache(_digest)
    lines = []
    for i in range(len(val)):
        path, own = val.image_path(i), val.records[i]
        if path is None:
            continue
        same = [image_id for other, image_id in by_size[path.stat().st_size] if digest(other) == digest(path)]
        if path.resolve() in by_path:
            what = f'same file as training image {by_path[path.resolve()]}'
        elif same:
            what = f'same content as training image {same[0]}'
        elif own['file_name'] in by_name:
            what = f'same file name as training image {by_name[own["file_name"]]}'
        else:
            continue
        lines.append(f'validation image {own["id"]} ({own["file_name"]}): {what}')
    return lines


def shared_patients(train: Source, val: Source, key: str) -> list[str]:
    """One line for each patient with images in both sets: records that say `key`, or else one of PATIENT_KEYS."""
    keys = [k for k in (key, *PATIENT_KEYS) if k != 'id' and all(k in r for r in (*train.records, *val.records))]
    if not keys:
        return []
    images = defaultdict(list)
    for record in train.records:
        images[record[keys[0]]].append(record['id'])
    lines = {}
    for record in val.records:
        if record[keys[0]] in images:
            lines.setdefault(record[keys[0]], f"{keys[0]} {record[keys[0]]}: validation image {record['id']}, training "
                             f'image {images[record[keys[0]]][0]}')
    return list(lines.values())
