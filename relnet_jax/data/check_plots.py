"""Pictures of a data set: class counts, box sizes beside the anchors, co-occurrence, a sheet of images with boxes."""
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.source import Source
from relnet_jax.data.statistics import anchors_of, canvas_boxes, class_statistics, together
from relnet_jax.visualize import PHANTOM_CAPTION, color, draw_detections, write_image

SHEET = 12              # images on the sheet, those with the most objects of each class first
TILE = 320              # pixels of a side
MOST_CLASSES = 40       # in a picture; of more, those with the most objects


def write_plots(source: Source, config: ConfigDict, folder: Path) -> None:
    """Writes class_counts.png, box_sizes.png, together.png and images.png into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    synthetic = config.data.format == 'phantom'
    for name, figure in (('class_counts', class_counts(source, config)), ('box_sizes', box_sizes(source, config)),
                         ('together', occurring_together(source))):
        figure.suptitle(source.name + (f'\n{PHANTOM_CAPTION}' if synthetic else ''), fontsize=9)
        figure.savefig(folder / f'{name}.png', dpi=130)
    write_image(folder / 'images.png', contact_sheet(source, PHANTOM_CAPTION if synthetic else ''))


def class_counts(source: Source, config: ConfigDict) -> Figure:
    """Objects per class, the part with masks darker."""
    statistics = sorted(class_statistics(source, config).items(), key=lambda item: -item[1]['instances'])[:MOST_CLASSES]
    names = [name for name, _ in statistics]
    figure = Figure(figsize=(7, 1.2 + 0.24 * max(len(names), 3)), layout='constrained')
    axes = figure.subplots()
    axes.barh(names, [s['instances'] for _, s in statistics], color='#9ecae1', label='objects')
    axes.barh(names, [s['masks'] for _, s in statistics], color='#3182bd', label='with a mask')
    for i, (_, s) in enumerate(statistics):
        axes.text(s['instances'], i, f' {s["instances"]} in {s["images"]} images', va='center', fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, loc='lower right')
    return figure


def box_sizes(source: Source, config: ConfigDict) -> Figure:
    """Width and height of every box on the canvas, by class, with the anchors."""
    _, boxes = canvas_boxes(source, config)
    figure = Figure(figsize=(7, 6), layout='constrained')
    axes = figure.subplots()
    order = sorted(enumerate(zip(source.classes, source.category_ids), start=1), key=lambda c: -len(boxes[c[1][1]]))
    for label, (name, category) in order[:MOST_CLASSES]:
        sides = boxes[category][:, 2:] - boxes[category][:, :2]
        axes.scatter(*sides.T, s=5, alpha=0.5, color=np.array(color(label)) / 255, label=f'{name} ({len(sides)})')
    anchors = anchors_of(config)
    sizes = np.concatenate([np.atleast_1d(size) for size in anchors['sizes']])
    for ratio in anchors['ratios']:     # height / width
        axes.plot(sizes / np.sqrt(ratio), sizes * np.sqrt(ratio), 'k+', ms=9, label='anchors' if ratio == 1 else None)
    axes.set(xscale='log', yscale='log', xlabel='width on the canvas, pixels', ylabel='height on the canvas, pixels')
    axes.legend(fontsize=6, markerscale=2, ncols=2)
    return figure


def occurring_together(source: Source) -> Figure:
    """Of the images with the class of a row, the share that also hold the class of a column."""
    counts = together(source)
    chosen = np.sort(np.argsort(-np.diag(counts), kind='stable')[:MOST_CLASSES]) if len(counts) else []
    counts, names = counts[np.ix_(chosen, chosen)], [source.classes[i] for i in chosen]
    share = counts / np.maximum(np.diag(counts), 1)[:, None]
    figure = Figure(figsize=(2.5 + 0.33 * max(len(names), 4), 2 + 0.3 * max(len(names), 4)), layout='constrained')
    axes = figure.subplots()
    picture = axes.imshow(share, vmin=0, vmax=1, cmap='Blues')
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), [f'{name} ({counts[i, i]})' for i, name in enumerate(names)], fontsize=7)
    for i, j in np.ndindex(share.shape):
        if i != j and counts[i, j]:
            axes.text(j, i, f'{100 * share[i, j]:.0f}', ha='center', va='center', fontsize=5,
                      color='white' if share[i, j] > 0.6 else 'black')
    figure.colorbar(picture, ax=axes, shrink=0.6, label='share of the images of the row')
    return figure


def contact_sheet(source: Source, caption: str) -> np.ndarray:
    """uint8 [h, w, 3]: images with the boxes and masks that training sees, chosen so that many classes are there."""
    by_image = {}
    for annotation in source.ground_truth()['annotations']:
        by_image.setdefault(annotation['image_id'], []).append(annotation['category_id'])
    order, seen = [], set()
    positions = {image_id: i for i, image_id in enumerate(source.image_ids)}
    for image_id in sorted(by_image, key=lambda i: -len(set(by_image[i]))):
        if set(by_image[image_id]) - seen:
            order.append(positions[image_id])
            seen |= set(by_image[image_id])
    order += [i for i in range(len(source)) if i not in order]
    tiles = []
    for i in order:
        try:
            example = source.load(i)
        except UnreadableImage:
            continue
        tile = draw_detections(example.image, example.boxes, example.labels, None, None, source.classes,
                               longer_side=(TILE, TILE))
        canvas = np.zeros((TILE, TILE, 3), np.uint8)
        canvas[:tile.shape[0], :tile.shape[1]] = tile[:TILE, :TILE]
        tiles.append(canvas)
        if len(tiles) == SHEET:
            break
    tiles += [np.zeros((TILE, TILE, 3), np.uint8)] * (-len(tiles) % 4 or (4 if not tiles else 0))
    sheet = np.concatenate([np.concatenate(tiles[i:i + 4], axis=1) for i in range(0, len(tiles), 4)])
    return draw_detections(sheet, np.zeros((0, 4)), [], None, None, (), title=source.name, caption=caption,
                           longer_side=sheet.shape[1::-1] if sheet.shape[1] >= sheet.shape[0] else sheet.shape[:2])
