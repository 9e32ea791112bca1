"""The records of a document in COCO form: which images and annotations can be used, and why others cannot.

Broken records go by the rules of the functions here and of `annotations`; each is one `Issue`, and the counts add up.
"""
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from relnet_jax.data import fit
from relnet_jax.data.annotations import Reading, fit_annotation, read_annotation
from relnet_jax.data.image_files import BY_STEM, Found, image_finder, nearest_name
from relnet_jax.data.images import UnreadableImage, read_header
from relnet_jax.data.issues import Issue, by_kind, shown, too_many
from relnet_jax.data.read_options import ReadOptions
from relnet_jax.data.values import id_key, whole
from relnet_jax.errors import UserError

QUOTES = '\'"'
MOST_PIXELS = 2 ** 31       # of an image record: the mask library counts pixels in 32 bits


class Images(NamedTuple):
    """The image records that can be used, in order; the annotations of the others are passed over."""
    records: list[dict]             # copies, with `width` and `height`
    paths: list[Path]
    headers: list[fit.Header | None]    # of the files; None: unreadable, as it will be said when one is loaded
    by_key: dict[Hashable, dict | None] # id, as `key` reads it -> the record, None for an image that is left out
    key: Callable[[Any], Hashable]      # see `values.id_key`
    dropped: int


def use_images(file: Path, folder: Path, images: list, *, max_images: int, max_lost: float, allow_outside: bool,
               options: ReadOptions, issues: list[Issue], find: Callable[[str], Found] | None = None) -> Images:
    """The first `max_images` (0 = all) usable image records; what is wrong with others joins `issues`.

    Raises UserError if more than the share `max_lost` of the records looked at have no file, or one that does not fit
    (`data.fit`), or if none can be used.
    """
    valid = [image for image in images if isinstance(image, dict)]
    key = id_key(image.get('id') for image in valid)
    find = find or image_finder(folder, (name for image in valid if (name := _file_name(image))),
                                allow_outside=allow_outside)
    used, by_key, owners, lost, looked_at = [], {}, {}, [], 0
    for i, image in enumerate(images):
        if max_images and len(used) == max_images:
            break
        looked_at += 1
        where = where_of(file, image, f'images[{i}]')
        number = key(image.get('id')) if isinstance(image, dict) else None
        if number is None or number in by_key:
            issues.append(Issue(where, 'expected an id', 'image dropped', shown(image)) if number is None else
                          Issue(where, 'id is there twice', 'second image dropped'))
            continue
        record, path, header, problems = _use_image(image, find, options, where)
        by_key[number] = record
        if record is None:
            lost += problems
            continue
        issues += problems
        if path in owners:
            issues.append(Issue(where, 'file is also that of another image', 'both kept',
                                f'{shown(record["file_name"])}, id {shown(owners[path])}'))
        owners.setdefault(path, record['id'])
        used.append((record, path, header))
    issues += lost
    _check_lost(file, folder, lost, looked_at, max_lost)
    if not used:
        raise UserError(f'{file}: none of its {len(images)} images can be used'
                        + (f'; first: {issues[0]}' if issues else ''))
    for image in images[looked_at:]:
        if isinstance(image, dict):
            by_key.setdefault(key(image.get('id')), None)
    records, paths, headers = (list(column) for column in zip(*used))
    return Images(records, paths, headers, by_key, key, looked_at - len(used))


def _use_image(image: dict, find: Callable[[str], Found], options: ReadOptions,
               where: str) -> tuple[dict | None, Path | None, fit.Header | None, list[Issue]]:
    """(record with `width` and `height`, its file, the header of it, issues); without a record the one issue says why.
    """
    name, size = _file_name(image), _size(image)
    if name is None:
        return None, None, None, [Issue(where, 'expected a file_name', 'image dropped', shown(image))]
    path, remark = find(name)
    header, issue = (_header(path, size, options, where) if path else
                     (None, Issue(where, f'file {remark}', 'image dropped', shown(name))))
    if issue:
        return None, path, None, [issue]
    issues = []
    if remark and (remark != BY_STEM or name != image['id']):   # a file called by its id has no extension to say
        issues.append(Issue(where, 'no file of this name', f'found {remark}', f'{shown(name)} -> {path.name}'))
    if size is None:
        size = fit.turned_size(header[:2], 1 if options.exif == 'ignore' else header.orientation)
        if image.get('width') is not None or image.get('height') is not None:
            issues.append(Issue(where, 'width and height are not two whole numbers', 'read from the file',
                                f'{shown(image.get("width"))}, {shown(image.get("height"))}'))
    own = image['id'] if isinstance(image['id'], str) else whole(image['id'])
    return image | dict(id=own, file_name=name, height=size[0], width=size[1]), path, header, issues


def _check_lost(file: Path, folder: Path, lost: list[Issue], count: int, share: float) -> None:
    """Raises UserError, with the commonest reason, if more than this share of `count` image records cannot be used."""
    if not lost or not too_many(len(lost), count, share):
        return
    (problem, _), same = next(iter(by_kind(lost).items()))
    nearest = ''
    if problem.startswith('file not found'):
        near = nearest_name(folder, same[0].found.strip(QUOTES))
        nearest = f', nearest there: {near or "no file at all"}'
    raise UserError(f'{file}: {len(lost)} of {count} image files cannot be used, more than data.max_unreadable = '
                    f"{share} allows; looked in '{folder}'; most often ({len(same)}): {problem}; such as "
                    f'{same[0].found}{nearest}')


def _header(path: Path, size: fit.Size | None, options: ReadOptions,
            where: str) -> tuple[fit.Header | None, Issue | None]:
    """(what the file says of its pixels, None if it is unreadable; why its record cannot be used) for annotations that
    refer to (height, width) `size`."""
    try:
        header = read_header(path, options)
    except UnreadableImage as e:
        return None, None if size else Issue(where, 'no width and height, and unreadable', 'image dropped', e.reason)
    if size is None or fit.fits(size, header, options.exif):
        return header, None
    exchanged = fit.fits(size[::-1], header, options.exif)
    problem = ('width and height of the record look exchanged' if exchanged else
               "the file's aspect is another than the annotations'")
    return header, Issue(where, problem, 'image dropped', f'{path.name}, {header.width} x {header.height} pixels, '
                                                         f'annotated at {size[1]} x {size[0]}')


def _file_name(image: Any) -> str | None:
    """`file_name`, or the end of the path of `coco_url`, which LVIS gives instead."""
    if not isinstance(image, dict):
        return None
    name = image.get('file_name')
    if isinstance(name, str) and name.strip():
        return name
    url = image.get('coco_url')
    return '/'.join(urlsplit(url).path.split('/')[-2:]) or None if isinstance(url, str) else None


def _size(image: dict) -> fit.Size | None:
    """(height, width) of a record, None if it does not say both."""
    height, width = whole(image.get('height')), whole(image.get('width'))
    good = height is not None and width is not None and min(height, width) > 0 and height * width < MOST_PIXELS
    return (height, width) if good else None


class Candidate(NamedTuple):
    """An annotation of an image at hand and of a category that is wanted."""
    annotation: dict
    record: dict
    category: int
    reading: Reading
    where: str


def candidates(file: Path, annotations: list, images: Images, *, names: Mapping[int, str], wanted: Collection[int],
               crowds: bool, issues: list[Issue]) -> tuple[list[Candidate], Counter, Counter]:
    """(annotations to be checked, counts, category name -> number of annotations that nobody asked for).

    Counts: `dropped` (each is an issue), `image_left_out` and `not_wanted`.
    """
    found, counts, unwanted = [], Counter(), Counter()

    def drop(*issue):
        issues.append(Issue(*issue))
        counts['dropped'] += 1

    for i, annotation in enumerate(annotations):
        where = where_of(file, annotation, f'annotations[{i}]')
        if not isinstance(annotation, dict):
            drop(where, 'expected a dict', 'dropped', shown(annotation))
            continue
        image_id, category = annotation.get('image_id'), whole(annotation.get('category_id'))
        number = images.key(image_id)
        if number is None or number not in images.by_key:
            drop(where, 'image_id is not in the file', 'dropped', shown(image_id))
            continue
        record = images.by_key[number]
        if record is None:
            counts['image_left_out'] += 1
            continue
        if category not in names:
            drop(where, 'category_id is not in the category table', 'dropped', shown(annotation.get('category_id')))
            continue
        if category not in wanted:
            counts['not_wanted'] += 1
            unwanted[names[category]] += 1
            continue
        for field, raw, own in (('image_id', image_id, record['id']),
                                ('category_id', annotation['category_id'], category)):
            if type(raw) is not type(own):
                issues.append(Issue(where, f'{field} is written in another way than in its table',
                                    'taken for the same', f'{shown(raw)} for {shown(own)}'))
        reading = read_annotation(annotation, where, crowds=crowds)
        found.append(Candidate(annotation, record, category, reading, where))
    return found, counts, unwanted


def fit_objects(found: Sequence[Candidate], *, issues: list[Issue]) -> tuple[dict[Any, list[dict]], Counter]:
    """(image id -> its objects, counts: `used`, `dropped` and `duplicates`) of annotations that are to be checked."""
    objects, counts, seen = {}, Counter(), {}
    for annotation, record, category, reading, where in found:
        o, problems = fit_annotation(annotation, reading, record['width'], record['height'], where=where)
        issues += problems
        if o is None:
            counts['dropped'] += 1
            continue
        o['category_id'] = category
        same = seen.setdefault((record['id'], category, o['crowd'], *o['box']), [])
        if any(o['segmentation'] is None or o['segmentation'] == other for other in same):
            issues.append(Issue(where, 'same image, category, box and mask as an earlier one', 'dropped'))
            counts['duplicates'] += 1
            continue
        same.append(o['segmentation'])
        counts['used'] += 1
        objects.setdefault(record['id'], []).append(o)
    return objects, counts


def check_dropped(file: Path, dropped: int, count: int, max_dropped: float, issues: Sequence[Issue]) -> None:
    """Raises UserError, with the commonest reason, if too many of `count` annotations were dropped."""
    if dropped and too_many(dropped, count, max_dropped):
        (problem, _), same = next(kind for kind in by_kind(issues).items() if kind[0][1] == 'dropped')
        raise UserError(f'{file}: {dropped} of {count} annotations cannot be used, more than data.max_dropped = '
                        f'{max_dropped} allows; most often ({len(same)}): {problem}; such as {same[0]}')


def where_of(file: Path, record: Any, place: str) -> str:
    """How messages call a record: the reader's own `where`, else its place in the list and its id."""
    if not isinstance(record, dict):
        return f'{file.name}: {place}'
    if isinstance(record.get('where'), str):
        return f'{file.name}: {record["where"]}'
    number = record.get('id')
    if number is None:
        return f'{file.name}: {place}'
    return f'{file.name}: {place} id {number if type(number) is int and number < 10 ** 18 else shown(number)}'
