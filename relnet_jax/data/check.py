"""What a data set holds and what is wrong with it, before any training.

    python -m relnet_jax.data.check --config=configs/coco.py --config.data.train.annotations=... [more overrides]

Installed, the command is relnet-check. Prints the issues found at opening, unreadable images, images that training and
validation share (by file, file name or content), and per class: instances, images, masks, crowds, size on the canvas,
and the share of boxes that no anchor overlaps with IoU >= 0.5, for which the RPN has only its fall-back match.
"""
import hashlib
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from absl.flags import FlagValues
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from relnet_jax import cli
from relnet_jax.data.coco_source import counted
from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.issues import summary
from relnet_jax.data.pipeline import open_sources
from relnet_jax.data.source import Source
from relnet_jax.data.transforms import resized_size
from relnet_jax.ops.anchors import NECK_STRIDES, pyramid_anchors


def best_anchor_iou(boxes: np.ndarray, *, canvas: tuple[int, int], strides: Sequence[int], sizes: Sequence,
                    ratios: Sequence[float]) -> np.ndarray:
    """float32 [n]: the highest IoU of each box [n, 4] (canvas pixels) with any anchor.

    Anchors of one shape differ by their place alone, and overlap falls with the distance of the centres along either
    axis; so only the nearest anchor of each shape has to be looked at, and the result is that of the full IoU matrix.
    """
    best = np.zeros(len(boxes), np.float32)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    centers, area = (boxes[:, :2] + boxes[:, 2:]) / 2, np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for stride, anchors in zip(strides, pyramid_anchors(canvas, strides=strides, sizes=sizes, ratios=ratios)):
        rows, columns = (-(-side // stride) for side in canvas)
        grid = anchors.reshape(rows, columns, -1, 4)
        for shape in grid[0, 0]:
            origin = (shape[:2] + shape[2:]) / 2
            step = np.array([canvas[1] // columns, canvas[0] // rows])
            cell = np.clip(np.rint((centers - origin) / step), 0, [columns - 1, rows - 1])
            anchor = shape + np.tile(cell * step, 2)
            sides = np.minimum(boxes[:, 2:], anchor[:, 2:]) - np.maximum(boxes[:, :2], anchor[:, :2])
            shared = np.prod(np.maximum(sides, 0), axis=1)
            best = np.maximum(best, shared / (area + np.prod(shape[2:] - shape[:2]) - shared))
    return best


def class_statistics(source: Source, config: ConfigDict) -> dict[str, dict]:
    """Per class name: `instances`, `images`, `masks`, `crowds`; and of the boxes that are not crowds, 0 without any:
    `side` (median square root of the area on the canvas, px), `no_anchor` (share with a best anchor IoU below 0.5)."""
    d, m = config.data, config.model
    ratio = {}
    for r in source.records:
        size = resized_size(r['height'], r['width'], scale=d.scale, max_size=d.max_size, canvas=tuple(d.canvas))
        ratio[r['id']] = np.array([size[1] / r['width'], size[0] / r['height']] * 2)
    found = defaultdict(list)
    for annotation in source.ground_truth()['annotations']:
        found[annotation['category_id']].append(annotation)
    statistics = {}
    for name, category in zip(source.classes, source.category_ids):
        rows = found[category]
        single = [a for a in rows if not a['iscrowd']]
        xywh = np.array([a['bbox'] * ratio[a['image_id']] for a in single]).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        iou = best_anchor_iou(boxes, canvas=tuple(d.canvas), sizes=m.anchor_sizes, ratios=m.anchor_ratios,
                              strides=NECK_STRIDES[m.neck])
        statistics[name] = dict(
            instances=len(rows), images=len({a['image_id'] for a in rows}), crowds=len(rows) - len(single),
            masks=sum('segmentation' in a for a in rows),
            side=float(np.median(np.sqrt(xywh[:, 2] * xywh[:, 3]))) if single else 0.0,
            no_anchor=float(np.mean(iou < 0.5)) if single else 0.0)
    return statistics


def images_without_objects(source: Source) -> int:
    return len(source) - len({a['image_id'] for a in source.ground_truth()['annotations']})


def unreadable_images(source: Source, threads: int) -> list[str]:
    """One line for each image file that cannot be loaded. Decodes every file; images without a file are passed over."""
    def problem(index: int) -> str | None:
        try:
            source.load(index)
        except UnreadableImage as e:
            return f'image {source.records[index]["id"]}: {e}'

    files = [i for i in range(len(source)) if source.image_path(i) is not None]
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        return [line for line in pool.map(problem, files) if line]


def shared_images(train: Source, val: Source) -> list[str]:
    """One line for each validation image whose file or content (SHA-1) a training image has too, or whose file name in
    the data set: with its folders, for patients' folders may all hold a '1.png'."""
    by_path, by_name, by_size = {}, {}, defaultdict(list)
    for i in range(len(train)):
        path, image_id = train.image_path(i), train.records[i]['id']
        if path is not None:
            by_path[path.resolve()] = by_name[train.records[i]['file_name']] = image_id
            by_size[path.stat().st_size].append((path, image_id))
    digests = {}

    def digest(path: Path) -> str:
        if path not in digests:
            digests[path] = hashlib.sha1(path.read_bytes()).hexdigest()
        return digests[path]

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


def _table(source: Source, config: ConfigDict) -> Table:
    table = Table(title=f'{source.name}: {len(source)} images, {images_without_objects(source)} without objects')
    table.add_column('class')
    for column in ('instances', 'images', 'masks', 'crowds', 'side on canvas', 'no anchor'):
        table.add_column(column, justify='right')
    for name, s in class_statistics(source, config).items():
        table.add_row(name, str(s['instances']), str(s['images']), str(s['masks']), str(s['crowds']),
                      f'{s["side"]:.0f} px', f'{s["no_anchor"]:.1%}')
    return table


def _print_lines(console: Console, title: str, lines: Sequence[str], *, count: int | None = None):
    """The title with the `count` of what the lines tell (default: one each), and the lines."""
    count = len(lines) if count is None else count
    console.print(f'{title}: {count or "none"}', style='bold' if count else None)
    for line in lines:
        console.print(f'  {line}', markup=False, highlight=False, soft_wrap=True)


def print_report(config: ConfigDict, console: Console):
    """Open the data of a config and print everything there is to know about it."""
    train, val = open_sources(config)
    for source in (train, val):
        console.print(_table(source, config))
    console.print(f'canvas {tuple(config.data.canvas)}, anchor sizes {tuple(config.model.anchor_sizes)}')
    _print_lines(console, 'notes', list(dict.fromkeys(train.notes + val.notes)))
    issues = list(dict.fromkeys(train.issues + val.issues))
    for counts in dict.fromkeys(counted(source.counts) for source in (train, val) if source.counts):
        console.print(counts, markup=False, highlight=False, soft_wrap=True)
    _print_lines(console, 'issues', summary(issues), count=len(issues))
    for source in (train, val):
        _print_lines(console, f'unreadable images, {source.name}', unreadable_images(source, config.data.threads))
    _print_lines(console, 'images in both training and validation', shared_images(train, val))


def define(values: FlagValues) -> None:
    cli.define_config(values, 'phantom')


def command(call: cli.Call) -> None:
    print_report(cli.config_of(call), Console())


def main(argv: list[str] | None = None) -> int:
    return cli.run('check', __doc__, define, command, argv)


if __name__ == '__main__':
    sys.exit(main())
