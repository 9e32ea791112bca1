"""Why a finding is there: what the detector's relations weighed for it and what they made of it, as text and picture.

An `Explanation` holds two kinds of answers: the relations' own weights, and how the score changes without their inputs.
"""
import dataclasses
import io
import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from relnet_jax.detector.relation_weights import Evidence, Observation, evidence
from relnet_jax.detector.removal import Change, changes
from relnet_jax.detector.results import to_original
from relnet_jax.types import Array

CAUTION = 'A weight says where a feature came from, not that the result would have been another without it.'
MEANING = 'A change is what the second pass makes of the score when it is run again without this input of a relation.'
SHADES = ('#1f6fb4', '#d55e00', '#2a9d4a', '#8a4fbf', '#a8780b', '#c2337b')
DPI = 120


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """What spoke for one finding; `print` shows it as text, `plot` as a picture. Boxes xyxy in pixels of the image."""
    name: str                       # class of the finding
    score: float
    box: Array                      # float32 [4]
    weights: tuple[Evidence, ...]   # of every relation that weighs
    changes: tuple[Change, ...]     # of every relation of the second pass, by kind of input
    image: Array                    # uint8 [h', w', 3] as the detector saw it
    size: tuple[float, float]       # height, width of the image itself
    caption: str                    # what stands below every picture of the detector's

    def __str__(self) -> str:
        lines = [self.headline]
        for item in self.weights:
            shares = ', '.join(f'{name} {100 * share:.0f} %' for name, share in zip(item.names, item.shares))
            lines.append(f'  {item.title} ({item.relation}): {shares or "nothing"}')
        for item in self.changes:
            told = ', '.join(f'{name} {change:+.3f}' for name, change in zip(item.names, item.changes))
            lines.append(f'  {item.title} ({item.relation}): {told or "none"}')
        notes = [CAUTION] * bool(self.weights) + [MEANING] * bool(self.changes)
        return '\n'.join([*lines, *notes, *filter(None, [self.caption])])

    __repr__ = __str__

    @property
    def headline(self) -> str:
        silent = not (self.weights or self.changes)
        return f'{self.name}, score {self.score:.2f}' + (': no relation with weights' if silent else '')

    def plot(self) -> Image.Image:
        """`figure` as a picture that notebooks show and `save` writes."""
        file = io.BytesIO()
        figure(self).savefig(file, format='png', dpi=DPI)
        return Image.open(file).convert('RGB')


def explain(seen: Observation, label: int, score: float, box: Array, *, top: int, caption: str = '') -> Explanation:
    """Of the finding with this class, score and box xyxy [4] in pixels of the image: the nearest among those `seen`.

    Raises ValueError if nothing of that class was seen.
    """
    found, size = seen.detections, np.float32(seen.image.shape[:2])
    own = np.flatnonzero(found.labels == label)
    if not own.size:
        raise ValueError(f'the detector finds no {seen.classes[label - 1]} in the image now')
    away = np.abs(to_original(found.boxes[own], size, seen.original_size) - box).max(-1)
    detection = int(own[np.lexsort((np.abs(found.scores[own] - score), np.rint(away)))[0]])
    weights = tuple(item if item.boxes is None else item._replace(
        boxes=to_original(item.boxes, size, seen.original_size)) for item in evidence(seen, detection, top=top))
    return Explanation(seen.classes[label - 1], float(score), box, weights, tuple(changes(seen, detection, top=top)),
                       seen.image, tuple(seen.original_size), caption)


# ---- drawing ----
def figure(of: Explanation) -> Figure:
    """The image with the finding in white and, numbered, the parts and regions that were looked at; beside it the
    shares of every relation, and the changes of the score."""
    panels = len(of.weights) + len(of.changes)
    columns = 1 if panels <= 3 else 2
    rows = math.ceil(panels / columns)
    drawn = Figure(figsize=(5.4 + 2.9 * columns * bool(rows), max(5.2, 1.5 * rows)), layout='constrained')
    grid = drawn.add_gridspec(max(rows, 1), 1 + columns * bool(rows), width_ratios=[5.4] + [2.6] * columns * bool(rows))
    picture = drawn.add_subplot(grid[:, 0])
    height, width = of.size
    picture.imshow(of.image, extent=(0, width, height, 0))
    picture.set_axis_off()
    picture.set_title(of.headline)
    shades: dict[str, str] = {}     # of each relation
    for i, item in enumerate(of.weights):
        shade = shades[item.relation] = SHADES[i % len(SHADES)]
        _shares(drawn.add_subplot(grid[i % rows, 1 + i // rows]), item, shade)
        for number, box in enumerate(() if item.boxes is None else item.boxes, 1):
            _outline(picture, box, shade, 1.2)
            picture.text(box[0], box[1], str(number), color='white', fontsize=6, va='bottom',
                         bbox=dict(facecolor=shade, edgecolor='none', pad=0.8))
    for i, item in enumerate(of.changes, len(of.weights)):
        _changes(drawn.add_subplot(grid[i % rows, 1 + i // rows]), item, _shade_of(item.relation, shades))
    if of.caption:
        drawn.supxlabel(of.caption, fontsize=7)
    _outline(picture, of.box, 'black', 3.4)
    _outline(picture, of.box, 'white', 2.0)
    return drawn


def _shares(axes: Axes, item: Evidence, shade: str) -> None:
    """A bar for each share, with its name and value; those with a box are numbered as in the picture."""
    names = [name if item.boxes is None else f'{name}  {i}' for i, name in enumerate(item.names, 1)]
    places, most = range(len(names)), max(item.shares, default=1)
    axes.barh(places, item.shares, color=shade, height=0.72)
    for place, share in zip(places, item.shares):
        axes.text(share + 0.02 * most, place, f'{100 * share:.0f} %', fontsize=7, va='center')
    _dress(axes, names, (0, 1.2 * most), f'{item.title}{"" if names else ": nothing"}', item.relation, shade)


def _changes(axes: Axes, item: Change, shade: str) -> None:
    """A bar for each change, to the left where the score falls, with its name and value."""
    most = max(np.abs(item.changes), default=1)
    axes.barh(range(len(item.names)), item.changes, color=shade, height=0.72, alpha=0.55)
    axes.axvline(0, color='grey', linewidth=0.6)
    for place, change in enumerate(item.changes):
        axes.text(max(change, 0) + 0.03 * most, place, f'{change:+.3f}', fontsize=7, va='center')
    _dress(axes, list(item.names), (-1.1 * most, 1.5 * most), f'{item.title}{"" if item.names else ": none"}',
           item.relation, shade)


def _shade_of(relation: str, shades: dict[str, str]) -> str:
    """The colour of the relation's weights, or of those of a module within it; the next one that is free."""
    own = (shade for path, shade in shades.items() if f'{path}/'.startswith(f'{relation}/'))
    return shades.setdefault(relation, next(own, SHADES[len(shades) % len(SHADES)]))


def _dress(axes: Axes, names: list[str], xlim: tuple[float, float], title: str, relation: str, shade: str) -> None:
    axes.set(yticks=range(len(names)), yticklabels=names, xticks=[], xlim=xlim, ylim=(max(len(names), 3) - 0.4, -0.6))
    axes.tick_params(labelsize=7, length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=8, color=shade, loc='left')
    axes.set_xlabel(relation, fontsize=6, color='grey', loc='left')


def _outline(axes: Axes, box: Array, color: str, width: float) -> None:
    x1, y1, x2, y2 = box
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=width))
