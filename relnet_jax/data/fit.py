"""How the copy of a film at hand fits its annotations: which way up it is, and at which scale.

**Scale.** Annotations refer to pixels of a film of `width` x `height`. A file of another size and the same aspect
(within 1 %) is a resized copy: boxes follow the picture when it is loaded, and ground truth and results stay in the
annotations' pixels. Another aspect is another picture.

**Orientation.** EXIF orientations 2 to 8 ask a viewer to turn or mirror the stored pixels. Whether annotations refer to
the stored or to the displayed picture, no file says; `config.data.exif` does:

* 'ignore': to the stored one; 'apply': to the displayed one.
* 'auto': for quarter turns (5 to 8) the annotations' size tells. Where it cannot (2 to 4, square pictures, no size),
  the rest of the data set decides by majority; without a majority the displayed picture counts: browsers and the
  annotation tools in them, Pillow's viewers and Detectron2 turn, so this is what the annotator saw.

The same rule holds for training, evaluation, prediction (where there is no annotation: the displayed picture) and
overlays, and whatever was turned or scaled is said in one line for the data set.
"""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from relnet_jax.types import Example

ASPECT_TOLERANCE = 0.01
INVERSE = {6: 8, 8: 6}      # of the orientations; all others undo themselves

Size = tuple[int, int]      # (height, width)


class Header(NamedTuple):
    """What a file says of its stored pixels."""
    height: int
    width: int
    orientation: int = 1    # EXIF: 1 as stored, 2 to 8 to be turned or mirrored for display


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """The displayed picture of stored pixels [h, w, ...] with an EXIF orientation: [w, h, ...] for 5 to 8."""
    if orientation > 4:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def turned_size(size: Size, orientation: int) -> Size:
    """(height, width) after `turn`."""
    return (size[1], size[0]) if orientation > 4 else (size[0], size[1])


def same_film(size: Size, other: Size) -> bool:
    """Whether one (height, width) may be the other at another scale: aspect within 1 %, or rounded to whole pixels."""
    small, large = sorted((size, other), key=lambda s: s[0] * s[1])
    ratio = max(large[0] / small[0], large[1] / small[1])
    return all(abs(a * ratio - b) <= max(ASPECT_TOLERANCE * b, ratio) for a, b in zip(small, large))


def fits(annotated: Size, header: Header, exif: str) -> bool:
    """Whether a file with that header can be a copy of the picture of (height, width) `annotated`."""
    ways = {'ignore': (1,), 'apply': (header.orientation,), 'auto': (1, header.orientation)}[exif]
    return any(same_film(annotated, turned_size(header[:2], way)) for way in ways)


def fit_all(records: Sequence[dict], headers: Sequence[Header | None], exif: str) -> tuple[list[int], tuple[str, ...]]:
    """(EXIF orientation to `turn` each file by, 1 = as stored; what was turned and scaled, at most one line each).

    records: image records with `width` and `height` (may lack where the header does) and `file_name`; headers: of their
    files, None if unreadable.
    """
    sizes = [(record.get('height'), record.get('width')) for record in records]
    tags = [header.orientation if header else 1 for header in headers]
    votes = [_vote(size, header) if header else 0 for size, header in zip(sizes, headers)]
    if exif != 'auto':
        turns = [tag if exif == 'apply' else 1 for tag in tags]
    else:
        turn_doubtful = sum(votes) >= 0
        turns = [tag if vote > 0 or vote == 0 and turn_doubtful else 1 for tag, vote in zip(tags, votes)]
    notes = []
    tagged = [i for i, tag in enumerate(tags) if tag != 1]
    if tagged:
        turned, first = sum(turns[i] != 1 for i in tagged), tagged[0]
        notes.append(f'{len(tagged)} of {len(tags)} files carry an EXIF orientation (first: '
                     f'{records[first]["file_name"]}, {tags[first]}): {turned} turned as it says, '
                     f'{len(tagged) - turned} left as stored (data.exif={exif})')
    shown = [turned_size(header[:2], turn) if header else size for header, turn, size in zip(headers, turns, sizes)]
    copies = [i for i, (size, seen) in enumerate(zip(sizes, shown)) if size != seen]
    if copies:
        (height, width), (h, w) = sizes[copies[0]], shown[copies[0]]
        notes.append(f'{len(copies)} of {len(records)} files are resized copies of the annotated films (first: '
                     f'{records[copies[0]]["file_name"]}, {w} x {h} of {width} x {height} pixels): boxes and masks are '
                     f"scaled to them, results are in the annotations' pixels")
    return turns, tuple(notes)


def _vote(annotated: Size, header: Header) -> int:
    """1: only the displayed picture fits the annotations, -1: only the stored one, 0: no telling."""
    stored, turned = header[:2], turned_size(header[:2], header.orientation)
    if turned == stored:
        return 0
    if annotated in (turned, stored):
        return 1 if annotated == turned else -1
    return same_film(annotated, turned) - same_film(annotated, stored)


def scaled(example: Example, annotated: Size) -> Example:
    """The example, whose boxes refer to a picture of (height, width) `annotated`, in the pixels of its image.

    Mask crops lie in their boxes and stay as they are. Raises ValueError if the image has another aspect.
    """
    height, width = example.image.shape[:2]
    if (height, width) == tuple(annotated):
        return example
    if not same_film(annotated, (height, width)):
        raise ValueError(f'{width} x {height} pixels, but its annotations refer to {annotated[1]} x {annotated[0]}: '
                         f'no copy of the same film')
    ratio = np.float32([width / annotated[1], height / annotated[0]] * 2)
    return example._replace(boxes=example.boxes * ratio, part_boxes=example.part_boxes * ratio)
