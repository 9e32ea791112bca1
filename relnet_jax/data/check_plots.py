"""Pictures of a data set: class counts, box sizes beside the anchors, co-occurrence, a sheet of images with boxes."""
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from ml_collections import ConfigDict

from relnet_jax import files
from relnet_jax.data.anchor_fit import COVERED, best_anchor_iou
from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.statistics import Contents, anchors_of, class_statistics, together
from relnet_jax.visualize import PHANTOM_CAPTION, color, draw_detections, write_image

SHEET, COLUMNS = 12, 4  # images on the sheet
TILE, GAP = 480, 3      # pixels
MOST_CLASSES = 40       # in a picture; of more, those with the most objects


def write_plots(held: Contents, config: ConfigDict, folder: Path) -> None:
    """Writes class_counts.png, box_sizes.png, together.png and images.png into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    caption = PHANTOM_CAPTION if config.data.format == 'phantom' else ''
    for name, figure in (('class_counts', class_counts(held, config)), ('box_sizes', box_sizes(held, config)),
                         ('together', occurring_together(held))):
        figure.suptitle(held.source.name + (f'\n{caption}' if caption else ''), fontsize=9)
        with files.replacing(folder / f'{name}.png') as scratch:
            figure.savefig(scratch, dpi=130)
    write_image(folder / 'images.png', contact_sheet(held, caption))


def _most_frequent(held: Contents) -> list[str]:
    """Names of the classes that a picture has room for."""
    return sorted(held.annotations, key=lambda name: -len(held.annotations[name]))[:MOST_CLASSES]


def class_counts(held: Contents, config: ConfigDict) -> Figure:
    """Objects per class, the part with masks darker."""
    statistics = class_statistics(held, config)
    names = _most_frequent(held)
    shown = [statistics[name] for name in names]
    figure = Figure(figsize=(7, 1.2 + 0.24 * max(len(names), 3)), layout='constrained')
    axes = figure.subplots()
    axes.barh(names, [s['instances'] for s in shown], color='#9ecae1', label='objects')
    axes.barh(names, [s['masks'] for s in shown], color='#3182bd', label='with a mask')
    for i, s in enumerate(shown):
        axes.text(s['instances'], i, f' {s["instances"]} in {s["images"]} images', va='center', fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.25, y=0.02)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, loc='lower right')
    return figure


def box_sizes(held: Contents, config: ConfigDict) -> Figure:
    """Width and height of every box on the canvas, by class, with the anchors; boxes that none covers are ringed."""
    figure = Figure(figsize=(8, 6), layout='constrained')
    axes = figure.subplots()
    anchors, labels = anchors_of(config), {name: i for i, name in enumerate(held.source.classes, start=1)}
    bare = np.zeros((0, 2))
    for name in _most_frequent(held):
        boxes = held.boxes[name]
        if len(boxes):
            sides = boxes[:, 2:] - boxes[:, :2]
            bare = np.concatenate([bare, sides[best_anchor_iou(boxes, **anchors) < COVERED]])
            axes.scatter(*sides.T, s=8, alpha=0.6, lw=0, color=np.array(color(labels[name])) / 255,
                         label=f'{name} ({len(sides)})')
    axes.scatter(*bare.T, s=28, facecolors='none', edgecolors='#d62728', lw=0.7, label=f'no anchor of IoU >= {COVERED}')
    sizes = np.concatenate([np.atleast_1d(size) for size in anchors['sizes']])
    for ratio in anchors['ratios']:     # height / width
        axes.scatter(sizes / np.sqrt(ratio), sizes * np.sqrt(ratio), marker='+', s=60, lw=1.2, color='black',
                     label='anchors' if ratio == anchors['ratios'][0] else None)
    axes.set(xscale='log', yscale='log', xlabel='width on the canvas, pixels', ylabel='height on the canvas, pixels')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=2, numticks=20))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        axis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    figure.legend(fontsize=6, loc='outside right upper')
    return figure


def occurring_together(held: Contents) -> Figure:
    """Of the images with the class of a row, the share that also hold the class of a column."""
    most = set(_most_frequent(held))
    chosen = [i for i, name in enumerate(held.annotations) if name in most]
    counts, names = together(held)[np.ix_(chosen, chosen)], [held.source.classes[i] for i in chosen]
    share = counts / np.maximum(np.diag(counts), 1)[:, None]
    figure = Figure(figsize=(2.5 + 0.33 * max(len(names), 4), 2 + 0.3 * max(len(names), 4)), layout='constrained')
    axes = figure.subplots()
    picture = axes.imshow(100 * share, vmin=0, vmax=100, cmap='Blues')
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), [f'{name} ({counts[i, i]})' for i, name in enumerate(names)], fontsize=7)
    for i, j in np.ndindex(share.shape):
        if i != j and counts[i, j]:
            axes.text(j, i, f'{100 * share[i, j]:.0f}', ha='center', va='center', fontsize=5,
                      color='white' if share[i, j] > 0.6 else 'black')
    bar = figure.colorbar(picture, ax=axes, shrink=0.6)
    bar.set_label("% of the row's images that hold the column's class", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def contact_sheet(held: Contents, caption: str) -> np.ndarray:
    """uint8 [h, w, 3]: images with their boxes, chosen so that many classes are there."""
    source, by_image = held.source, {}
    for name, rows in held.annotations.items():
        for annotation in rows:
            by_image.setdefault(annotation['image_id'], set()).add(name)
    order, seen = [], set()
    positions = {image_id: i for i, image_id in enumerate(source.image_ids)}
    for image_id in sorted(by_image, key=lambda i: -len(by_image[i])):
        if by_image[image_id] - seen:
            order.append(positions[image_id])
            seen |= by_image[image_id]
    chosen = set(order)
    order += [i for i in range(len(source)) if i not in chosen]
    tiles = []
    for i in order:
        try:
            example = source.load(i)
        except UnreadableImage:
            continue
        tile = draw_detections(example.image, example.boxes, example.labels, None, None, source.classes,
                               longer_side=(TILE, TILE))[:TILE, :TILE]
        top, left = (TILE - tile.shape[0]) // 2, (TILE - tile.shape[1]) // 2
        square = np.full((TILE, TILE, 3), 32, np.uint8)
        square[top:top + tile.shape[0], left:left + tile.shape[1]] = tile
        tiles.append(np.pad(square, ((GAP, GAP), (GAP, GAP), (0, 0))))
        if len(tiles) == SHEET:
            break
    columns = min(COLUMNS, max(len(tiles), 1))
    tiles += [np.zeros((TILE + 2 * GAP, TILE + 2 * GAP, 3), np.uint8)] * (-len(tiles) % columns or (not tiles))
    sheet = np.concatenate([np.concatenate(tiles[i:i + columns], axis=1) for i in range(0, len(tiles), columns)])
    return draw_detections(sheet, np.zeros((0, 4)), [], None, None, (), title=source.name, caption=caption,
                           longer_side=(1, max(sheet.shape[:2])))
