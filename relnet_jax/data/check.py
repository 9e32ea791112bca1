"""What a data set holds and what is wrong with it, before any training.

    python -m relnet_jax.data.check --config=configs/coco.py --config.data.train.annotations=... [more overrides]

Installed, the command is relnet-check. Prints the issues found at opening by kind, unreadable and repeated images, what
training and validation share (files, content, names, patients), classes that only one of them has, and per class:
instances, images, masks, crowds, size on the canvas, and the share of boxes that no anchor overlaps with IoU >= 0.5,
for which the RPN has only its fall-back match, with sizes that would cover more. --plot=DIR draws it, --json=FILE
writes it (- is the standard output). Exit code 0; 1 with --strict if anything was found; 2 if data cannot be opened.
"""
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from absl.flags import FlagValues
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from relnet_jax import cli, files
from relnet_jax.data.anchor_fit import suggest_sizes, uncovered
from relnet_jax.data.check_plots import write_plots
from relnet_jax.data.coco_source import counted
from relnet_jax.data.duplicates import repeated_images, shared_images, shared_patients, unreadable_images
from relnet_jax.data.issues import summary
from relnet_jax.data.pipeline import open_sources
from relnet_jax.data.source import Source
from relnet_jax.data.statistics import (
    anchors_of,
    canvas_boxes,
    class_differences,
    class_statistics,
    images_without_objects,
)


def findings(train: Source, val: Source, config: ConfigDict) -> dict[str, list[str]]:
    """By title what is wrong, one line each; empty lists where nothing is."""
    issues = list(dict.fromkeys(train.issues + val.issues))
    return {
        'issues': summary(issues),
        'unreadable images': [f'{source.name}: {line}' for source in (train, val)
                              for line in unreadable_images(source, config.data.threads)],
        'repeated images': [f'{source.name}: {line}' for source in (train, val) for line in repeated_images(source)],
        'images in both training and validation': shared_images(train, val),
        'patients in both training and validation': shared_patients(train, val, config.data.split.by),
        'classes in one of them alone': class_differences(train, val, config)}


def report(config: ConfigDict) -> dict:
    """Everything there is to know about the data of a config, as JSON values; `sources` holds them opened."""
    train, val = open_sources(config)
    boxes = np.concatenate(list(canvas_boxes(train, config)[1].values()) or [np.zeros((0, 4))])
    anchors = anchors_of(config)
    better, share = suggest_sizes(boxes, **anchors)
    return dict(
        sources=(train, val),
        sets=[dict(name=s.name, images=len(s), without_objects=images_without_objects(s), counts=dict(s.counts),
                   classes=class_statistics(s, config)) for s in (train, val)],
        notes=list(dict.fromkeys(train.notes + val.notes)), findings=findings(train, val, config),
        issues=len(dict.fromkeys(train.issues + val.issues)),
        anchors=dict(canvas=list(anchors['canvas']), sizes=list(anchors['sizes']),
                     uncovered=uncovered(boxes, **anchors), better_sizes=list(better), better_uncovered=share))


def _table(about: dict) -> Table:
    table = Table(title=f'{about["name"]}: {about["images"]} images, {about["without_objects"]} without objects')
    table.add_column('class')
    for column in ('instances', 'images', 'masks', 'crowds', 'side on canvas', 'no anchor'):
        table.add_column(column, justify='right')
    for name, s in about['classes'].items():
        table.add_row(name, str(s['instances']), str(s['images']), str(s['masks']), str(s['crowds']),
                      f'{s["side"]:.0f} px', f'{s["no_anchor"]:.1%}')
    return table


def _print_lines(console: Console, title: str, lines: Sequence[str], *, count: int | None = None) -> None:
    """The title with the `count` of what the lines tell (default: one each), and the lines."""
    count = len(lines) if count is None else count
    console.print(f'{title}: {count or "none"}', style='bold' if count else None)
    for line in lines:
        console.print(f'  {line}', markup=False, highlight=False, soft_wrap=True)


def print_report(found: dict, console: Console) -> None:
    """`found` as of `report`."""
    for about in found['sets']:
        console.print(_table(about))
    a = found['anchors']
    console.print(f'canvas {tuple(a["canvas"])}, anchor sizes {tuple(a["sizes"])}: {a["uncovered"]:.1%} of the boxes '
                  'have no anchor of IoU >= 0.5', highlight=False, soft_wrap=True)
    if a['better_uncovered'] < a['uncovered']:
        console.print(f'  model.anchor_sizes={tuple(a["better_sizes"])} would leave {a["better_uncovered"]:.1%}',
                      highlight=False, soft_wrap=True)
    _print_lines(console, 'notes', found['notes'])
    for counts in dict.fromkeys(counted(about['counts']) for about in found['sets'] if about['counts']):
        console.print(counts, markup=False, highlight=False, soft_wrap=True)
    for title, lines in found['findings'].items():
        _print_lines(console, title, lines, count=found['issues'] if title == 'issues' else None)


def define(values: FlagValues) -> None:
    cli.define_config(values, 'phantom')
    flags.DEFINE_bool('strict', False, 'exit with 1 if anything was found', flag_values=values)
    cli.define_path(values, 'plot', '', 'folder for pictures: class counts, box sizes, co-occurrence, images',
                    kind='folder')
    cli.define_path(values, 'json', '', 'file to write everything to; - is the standard output')


def command(call: cli.Call) -> int:
    config = cli.config_of(call)
    found = report(config)
    print_report(found, Console(stderr=call.flags.json == '-'))
    sources = found.pop('sources')
    if call.flags.json == '-':
        print(files.to_json(found, indent=1))
    elif call.flags.json:
        files.write_json(call.flags.json, found)
    if call.flags.plot:
        write_plots(sources[0], config, Path(call.flags.plot))
    return cli.UNFINISHED if call.flags.strict and any(found['findings'].values()) else cli.DONE


def main(argv: list[str] | None = None) -> int:
    return cli.run('check', __doc__, define, command, argv)


if __name__ == '__main__':
    sys.exit(main())
