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

import numpy as np

from relnet_jax.types import Example

ASPECT_TOLERANCE = 0.01
INVERSE = {6: 8, 8: 6}      # of the orientations; all others undo themselves

Size = tuple[int, int]      # (height, width)


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


def fits(annotated: Size, stored: Size, orientation: int, exif: str) -> bool:
    """Whether a file of that stored (height, width) and EXIF orientation can be a copy of what was annotated."""
    ways = {'ignore': (1,), 'apply': (orientation,), 'auto': (1, orientation)}[exif]
    return any(same_film(annotated, turned_size(stored, way)) for way in ways)


def orientations(annotated: Sequence[Size], stored: Sequence[Size], tags: Sequence[int], exif: str) -> list[int]:
    """The orientation to `turn` each file by, 1 = as stored: int [n], by the rule above.

    annotated, stored: n (height, width); tags: n EXIF orientations, 1 = none.
    """
    if exif != 'auto':
        return [tag if exif == 'apply' else 1 for tag in tags]
    votes = [_vote(*file) for file in zip(annotated, stored, tags)]
    turn_doubtful = sum(votes) >= 0
    return [tag if vote > 0 or vote == 0 and turn_doubtful else 1 for tag, vote in zip(tags, votes)]


def _vote(annotated: Size, stored: Size, tag: int) -> int:
    """1: only the displayed picture fits the annotations, -1: only the stored one, 0: no telling."""
    if tag == 1:
        return 0
    turned = turned_size(stored, tag)
    if turned == tuple(stored):
        return 0
    if tuple(annotated) in (turned, tuple(stored)):
        return 1 if tuple(annotated) == turned else -1
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


def notes(names: Sequence[str], annotated: Sequence[Size], stored: Sequence[Size], tags: Sequence[int],
          turns: Sequence[int], exif: str) -> tuple[str, ...]:
    """What was turned and scaled in a data set of n files, at most one line each."""
    lines = []
    tagged = [i for i, tag in enumerate(tags) if tag != 1]
    if tagged:
        turned = sum(turns[i] != 1 for i in tagged)
        first = tagged[0]
        lines.append(f'{len(tagged)} of {len(tags)} files carry an EXIF orientation (first: {names[first]}, '
                     f'{tags[first]}): {turned} turned as it says, {len(tagged) - turned} left as stored '
                     f'(data.exif={exif})')
    copies = [i for i in range(len(names)) if turned_size(stored[i], turns[i]) != tuple(annotated[i])]
    if copies:
        (height, width), (h, w) = annotated[copies[0]], turned_size(stored[copies[0]], turns[copies[0]])
        lines.append(f'{len(copies)} of {len(names)} files are resized copies of the annotated films (first: '
                     f'{names[copies[0]]}, {w} x {h} of {width} x {height} pixels): boxes and masks are scaled to them, '
                     f'results are in the annotations\' pixels')
    return tuple(lines)
