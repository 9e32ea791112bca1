"""What a detector found in one image."""
import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from relnet_jax.data.rle import decode_mask
from relnet_jax.detector import outputs
from relnet_jax.detector.explain import Explanation, explain
from relnet_jax.detector.inputs import categories
from relnet_jax.files import write_text
from relnet_jax.runs.operating_points import calibrated
from relnet_jax.types import Array
from relnet_jax.visualize import draw_detections

if TYPE_CHECKING:
    from relnet_jax.detector.detector import Detector


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """n findings of an image, best first, in its own pixels; n may be 0."""
    file: str                       # as it was given; '' for an array
    size: tuple[int, int]           # height, width of the image as displayed; 0, 0 where it cannot be read
    boxes: Array                    # float32 [n, 4] xyxy
    scores: Array                   # float32 [n]
    labels: Array                   # int32 [n], from 1 in the order of the detector's `names`
    names: tuple[str, ...]          # of the n classes
    segmentations: tuple[dict, ...] | None      # n COCO RLEs of the whole image; None without a mask head
    distance: float | None          # from the films of the training, 1 = the limit; None where it is not known
    about: Mapping[str, Any]        # of a file: its EXIF `orientation`; of DICOM also the UIDs `outputs.UIDS`
    problem: str                    # why the image cannot be read, '' if it was
    detector: 'Detector' = dataclasses.field(repr=False)
    item: Any = dataclasses.field(repr=False)   # the file or array itself
    parts: Mapping | None = dataclasses.field(repr=False)   # that were given, by name

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        if self.problem:
            return f'Found({self.problem})'
        height, width = self.size
        found = ', '.join(f'{name} {score:.2f}' for name, score in zip(self.names, self.scores)) or 'nothing'
        return f'Found({self.file or "array"}, {width} x {height}: {found}{", unfamiliar" if self.unfamiliar else ""})'

    @property
    def probabilities(self) -> Array | None:
        """float64 [n] calibrated by the temperature of the checkpoint's operating points; None where it has none."""
        points = self.detector.points
        return None if points is None else calibrated(self.scores, points.temperature)

    @property
    def unfamiliar(self) -> bool | None:
        """Whether the image is unlike the films that the detector was trained on; None where it is not known."""
        return None if self.distance is None else self.distance > 1

    @property
    def image(self) -> Array:
        """uint8 [h, w, 3] as displayed, read anew."""
        return self.detector.read(self.item)

    @functools.cached_property
    def masks(self) -> Array | None:
        """bool [n, h, w], made at the first use; None if the detector has no mask head."""
        if self.segmentations is None:
            return None
        return np.array([decode_mask(rle) for rle in self.segmentations], bool).reshape(len(self), *self.size)

    def picture(self) -> Array:
        """uint8 [h', w', 3]: the image with boxes, masks, names and scores."""
        masks = None if self.segmentations is None else map(decode_mask, self.segmentations)
        warning = 'unlike the films of the training' if self.unfamiliar else ''
        caption = '. '.join(filter(None, [warning, self.detector.caption]))
        return draw_detections(self.image, self.boxes, self.labels, self.scores, masks, self.detector.names,
                               title=os.path.basename(self.file), caption=caption)

    def plot(self) -> Image.Image:
        """`picture` in the form that notebooks show and `save` writes."""
        return Image.fromarray(self.picture())

    def explain(self, index: int = 0, *, top: int = 5) -> Explanation:
        """Which classes, parts or regions spoke for finding `index`, the `top` heaviest of each relation; and the `top`
        without which its score changes most.

        Runs the detector once more, and its second pass once for each of these. Raises IndexError without this finding.
        """
        label, score, box = (x[index] for x in (self.labels, self.scores, self.boxes))
        return explain(self.detector.observe(self.item, self.parts), label, score, box, top=top,
                       caption=self.detector.caption)

    def to_coco(self) -> dict:
        """A COCO document of this image, as `to_coco`."""
        return to_coco([self])

    def to_csv(self, path: str | Path | None = None) -> str:
        """A row for each finding, as `to_csv`."""
        return to_csv([self], path)


def lines_of(found: Iterable[Found]) -> Iterable[dict]:
    """`outputs.film_line` of those that could be read."""
    return (outputs.film_line(f, f.detector.category_ids) for f in found if not f.problem)


def to_coco(found: Iterable[Found]) -> dict:
    """A COCO document (`images`, `categories`, `annotations` with scores) of what a detector found in some images;
    without those that could not be read."""
    found = list(found)
    return outputs.coco_document(lines_of(found), categories(found[0].detector.class_table) if found else [])


def to_csv(found: Iterable[Found], path: str | Path | None = None) -> str:
    """A table with `outputs.COLUMNS`, a row for each finding, as text; with `path` also as a file."""
    text = outputs.table_text(lines_of(found))
    if path is not None:
        write_text(path, text)
    return text
