"""What a data set holds and what is wrong with it, before any training.

    python -m relnet_jax.data.check --config=configs/coco.py --config.data.train.annotations=... [more overrides]

Installed, the command is relnet-check. Prints per class objects, images, masks, crowds, size on the canvas, and the
share of boxes that no anchor overlaps with IoU >= 0.5, for which the RPN has only its fall-back match, with sizes that
would cover more; the issues found at opening by kind, with the rule applied; unreadable, blank and repeated images (by
their pixels), and what training and validation share: files, content, names, patients, classes. docs/data_checks.md
shows reports and what to make of them.

--plot=DIR draws the training set, --json=FILE writes everything (- is the standard output), --no-images reads the
annotation files alone, for those whose images are elsewhere. Exit code 0; 1 with --strict if anything was found; 2 if
data cannot be opened.
"""
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags, logging
from absl.flags import FlagValues
from ml_collections import ConfigDict
from rich import box
from rich.console import Console
from rich.table import Table

from relnet_jax import cli, files
from relnet_jax.data.anchor_fit import suggest_sizes, uncovered
from relnet_jax.data.check_plots import write_plots
from relnet_jax.data.coco_source import counted
from relnet_jax.data.duplicates import (
    Look,
    blank_images,
    look_at_images,
    parts_found,
    repeated_images,
    shared_images,
    shared_patients,
    unreadable_images,
)
from relnet_jax.data.issues import Issue, by_kind, summary
from relnet_jax.data.pipeline import open_sources
from relnet_jax.data.records import read_records
from relnet_jax.data.statistics import (
    Contents,
    anchors_of,
    class_differences,
    class_statistics,
    contents,
    images_without_objects,
)
from relnet_jax.errors import UserError

WIDTH = 120     # of tables where there is no terminal
ISSUES = 'issues'


def _findings(train: Contents, val: Contents, looks: Sequence[Sequence[Look]], issues: Sequence[Issue],
              by: str) -> dict[str, list[str]]:
    """By title what is wrong, one line each; empty lists where nothing is."""
    pairs = list(zip((train.source, val.source), looks))
    return {
        ISSUES: summary(issues),
        'unreadable images': [f'{s.name}: {line}' for s, seen in pairs for line in unreadable_images(s, seen)],
        'images of one grey level': [f'{s.name}: {line}' for s, seen in pairs for line in blank_images(s, seen)],
        'repeated images': [f'{s.name}: {line}' for s, seen in pairs for line in repeated_images(s, seen)],
        'images in both training and validation': shared_images(train.source, val.source, *looks),
        'patients in both training and validation': shared_patients(train.source, val.source, by),
        'classes in one of them alone': class_differences(train, val)}


def report(config: ConfigDict) -> tuple[dict, Contents]:
    """(everything there is to know about the data of a config, as JSON values; what the training data hold)."""
    held = train, val = [contents(source, config) for source in open_sources(config)]
    looks = [look_at_images(h.source, config.data.threads) for h in held]
    issues = list(dict.fromkeys(train.source.issues + val.source.issues))
    boxes, anchors = np.concatenate([*train.boxes.values(), np.zeros((0, 4))]), anchors_of(config)
    better, share = suggest_sizes(boxes, **anchors)
    return dict(
        sets=[dict(name=h.source.name, images=len(h.source), without_objects=images_without_objects(h),
                   counts=dict(h.source.counts), classes=class_statistics(h, config), parts=parts_found(h.source, seen))
              for h, seen in zip(held, looks)],
        notes=list(dict.fromkeys(train.source.notes + val.source.notes)),
        findings=_findings(train, val, looks, issues, config.data.split.by), issues=_as_json(issues),
        anchors=dict(canvas=list(anchors['canvas']), sizes=list(anchors['sizes']),
                     uncovered=uncovered(boxes, **anchors), better_sizes=list(better),
                     better_uncovered=share)), train


def report_records(config: ConfigDict) -> dict:
    """The same of the annotation files alone."""
    sets = read_records(config)
    issues = [issue for about in sets for issue in about.pop('issues')]
    return dict(sets=sets, findings={ISSUES: summary(issues)}, issues=_as_json(issues))


def _as_json(issues: Sequence[Issue]) -> list[dict]:
    """All of them, those of a kind together."""
    return [issue._asdict() for same in by_kind(issues).values() for issue in same]


def _class_table(sets: Sequence[dict], columns: Sequence[str], measured: Sequence[tuple[str, str, str]] = ()) -> Table:
    """A row for each class: `columns` of every set, then `measured` (key, title, format) of the first alone."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column('class', no_wrap=True)
    for who in ('train', 'val')[:len(sets)]:
        for column in columns:
            table.add_column(f'{who}\n{column}', justify='right')
    for _, title, _ in measured:
        table.add_column(title, justify='right')
    for name in dict.fromkeys(name for about in sets for name in about['classes']):
        rows = [about['classes'].get(name, {}) for about in sets]
        table.add_row(name, *(str(row.get(column, 0)) for row in rows for column in columns),
                      *(form.format(rows[0][key]) if rows[0]['instances'] else '' for key, _, form in measured))
    return table


def _print_lines(console: Console, title: str, lines: Sequence[str], *, count: int | None = None) -> None:
    """The title with the `count` of what the lines tell (default: one each), and the lines."""
    count = len(lines) if count is None else count
    console.print(f'{title}: {count or "none"}', style='bold' if count else None, highlight=False)
    for line in lines:
        _print(console, f'  {line}')


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_report(found: dict, console: Console) -> None:
    """`found` as of `report` or `report_records`."""
    sets = found['sets']
    for about, who in zip(sets, ('train', 'val')):
        rows = about.get('rows')
        _print(console, f'{who}: {about["name"]}: {about["images"]} images, {about["without_objects"]} without objects'
               + (f', {about["annotations"]} annotations' if 'annotations' in about else '')
               + (f', made of {rows} rows of the file' if rows else ''))
    if 'anchors' in found:
        console.print(_class_table(sets, ('instances', 'images', 'masks', 'crowds'), (
            ('side', 'side on\ncanvas', '{:.0f} px'), ('no_anchor', 'no\nanchor', '{:.1%}'))))
        _print_anchors(console, found['anchors'])
    else:
        console.print(_class_table(sets, ('instances', 'images')))
    for part in dict.fromkeys(part for about in sets for part in about.get('parts', ())):
        _print(console, f'part {part}: in ' + ', '.join(f'{about["parts"].get(part, 0)} of {about["images"]} images'
                                                        for about in sets))
    for counts in dict.fromkeys(counted(about['counts']) for about in sets if about.get('counts')):
        _print(console, counts)
    if found.get('notes'):
        _print_lines(console, 'notes', found['notes'])
    for title, lines in found['findings'].items():
        _print_lines(console, title, lines, count=len(found['issues']) if title == ISSUES else None)


def _print_anchors(console: Console, anchors: dict) -> None:
    _print(console, f'canvas {tuple(anchors["canvas"])}, anchor sizes {tuple(anchors["sizes"])}: '
           f'{anchors["uncovered"]:.1%} of the training boxes have no anchor of IoU >= 0.5')
    if anchors['better_uncovered'] < anchors['uncovered']:
        _print(console, f'  model.anchor_sizes={tuple(anchors["better_sizes"])} would leave '
               f'{anchors["better_uncovered"]:.1%}')


def define(values: FlagValues) -> None:
    cli.define_config(values, 'phantom')
    flags.DEFINE_bool('strict', False, 'exit with 1 if anything was found', flag_values=values)
    flags.DEFINE_bool('images', True, 'read every image, or annotation files alone', flag_values=values)
    cli.define_path(values, 'plot', '', 'folder for pictures: class counts, box sizes, co-occurrence, images',
                    kind='folder')
    cli.define_path(values, 'json', '', 'file to write everything to; - is the standard output')


def command(call: cli.Call) -> int:
    config = cli.config_of(call)
    if call.flags.plot and not call.flags.images:
        raise UserError('--plot draws images, which --no-images does not read')
    found, train = report(config) if call.flags.images else (report_records(config), None)
    stdout = call.flags.json != '-'
    print_report(found, Console(stderr=not stdout, width=None if sys.stdout.isatty() else WIDTH))
    if not stdout:
        print(files.to_json(found, indent=1))
    elif call.flags.json:
        files.write_json(call.flags.json, found)
    if train and call.flags.plot:
        write_plots(train, config, Path(call.flags.plot))
    if written := [path for path in (call.flags.json * stdout, call.flags.plot) if path]:
        logging.info('written: %s', ', '.join(written))
    return cli.UNFINISHED if call.flags.strict and any(found['findings'].values()) else cli.DONE


def main(argv: list[str] | None = None) -> int:
    return cli.run('check', __doc__, define, command, argv)


if __name__ == '__main__':
    sys.exit(main())
