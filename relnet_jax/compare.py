"""Compare two result files on the same images: python -m relnet_jax.compare A/detections.json B/detections.json

Installed, the command is relnet-compare. Prints every headline metric of A and of B, and B - A with its 95 % interval
by a paired bootstrap: both are measured on the same resamples of patients, or of images where --annotations names no
patients. --annotations is the COCO file that both were made for; without it the ground_truth.json that evaluation
writes beside the first. --out=FILE.json writes the numbers of all metrics as well.
"""
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging
from absl.flags import FlagValues
from rich import box
from rich.console import Console
from rich.table import Table

from relnet_jax import cli, files
from relnet_jax.errors import UserError
from relnet_jax.evaluation import bootstrap, measures
from relnet_jax.evaluation.matching import CONVENTIONS
from relnet_jax.evaluation.report import GROUND_TRUTH, HEADLINE


def read_json(path: Path, kind: type, expected: str) -> Any:
    """Raises UserError for a file that is not JSON or holds another kind of value."""
    try:
        value = files.read_json(path)
    except ValueError as error:
        raise UserError(f'{path}: not JSON: {error}') from error
    if not isinstance(value, kind):
        raise UserError(f'{path}: expected {expected}')
    return value


def read_truth(path: Path) -> dict:
    """A COCO dict. Raises UserError, naming the record, for what cannot be compared with."""
    truth = read_json(path, dict, 'a COCO file, a dict of images, annotations and categories')
    for key, needed in (('images', ('id',)), ('categories', ('id', 'name')),
                        ('annotations', ('image_id', 'category_id', 'bbox'))):
        _check(path, truth.get(key), needed, key)
        if not truth[key]:
            raise UserError(f'{path}: has no {key}')
    _known(path, truth['annotations'], truth, 'annotations')
    return truth


def read_results(path: Path, truth: dict) -> list:
    """COCO result records on the images and classes of `truth`. Raises UserError, naming the record."""
    results = read_json(path, list, 'COCO results, a list of detections')
    _check(path, results, ('image_id', 'category_id', 'bbox', 'score'), 'results')
    _known(path, results, truth, 'results')
    for i, r in enumerate(results):
        mask = r.get('segmentation')
        if 'segmentation' in r and not (isinstance(mask, dict) and mask.keys() >= {'size', 'counts'}):
            raise UserError(f'{path}: results[{i}]: expected run lengths, a dict with size and counts, as segmentation')
    return results


def _check(path: Path, records: Any, needed: tuple, what: str) -> None:
    if not isinstance(records, list):
        raise UserError(f'{path}: expected a list of {what}')
    for i, record in enumerate(records):
        if not isinstance(record, dict) or any(key not in record for key in needed):
            raise UserError(f'{path}: {what}[{i}]: expected a dict with {", ".join(needed)}')
        numbers = [*record['bbox'], record.get('score', 0)] if isinstance(record.get('bbox'), list) else []
        if 'bbox' in needed and (len(numbers) != 5 or not all(isinstance(v, (int, float)) for v in numbers)):
            raise UserError(f'{path}: {what}[{i}]: expected four numbers as bbox and one as score')


def _known(path: Path, records: list, truth: dict, what: str) -> None:
    for key, name in (('image_id', 'images'), ('category_id', 'categories')):
        known = {record['id'] for record in truth[name]}
        for i, record in enumerate(records):
            if record[key] not in known:
                raise UserError(f"{path}: {what}[{i}]: {key} {record[key]!r} is none of the {len(known)} {name} of "
                                'the annotations')


def compare(truth: dict, a: list, b: list, *, by: str = '', resamples: int = bootstrap.RESAMPLES, seed: int = 0,
            convention: str = 'pixel_inclusive') -> dict:
    """metric -> dict(a, b, difference, low, high): b - a with its 95 % interval over paired resamples; NaN where
    undefined. Masks are compared if all records have them. Arguments as those of `report.evaluate`."""
    group, _ = bootstrap.patients(truth['images'], by)
    once = np.ones((1, len(truth['images'])))
    if not all('segmentation' in r for r in (*a, *b)):
        a, b = ([{k: v for k, v in r.items() if k != 'segmentation'} for r in results] for results in (a, b))
    found = []
    for results in (a, b):
        _, measure = measures.everything(truth, results, convention=convention)
        found.append((bootstrap.means(measure(once)), bootstrap.draws(measure, group, count=resamples, seed=seed)))
    (measured_a, drawn_a), (measured_b, drawn_b) = found
    table = {}
    for name, value in measured_a.items():
        difference = measured_b[name] - value
        low, high = bootstrap.interval(drawn_b[name] - drawn_a[name], difference[0])
        table[name] = dict(a=float(value[0]), b=float(measured_b[name][0]), difference=float(difference[0]), low=low,
                           high=high)
    return table


def print_table(table: dict, *, console: Console | None = None) -> None:
    """The headline metrics in per cent; a difference whose interval leaves out 0 is marked."""
    def text(value: float, form: str) -> str:
        return '-' if math.isnan(value) else format(100 * value, form)
    shown = Table('metric', box=box.SIMPLE_HEAD)
    for column in ('A', 'B', 'B - A', '95 % interval', ''):
        shown.add_column(column, justify='right')
    for name in HEADLINE:
        if name in table:
            row = table[name]
            between = f"{text(row['low'], '+.1f')} to {text(row['high'], '+.1f')}"
            shown.add_row(name, text(row['a'], '.1f'), text(row['b'], '.1f'), text(row['difference'], '+.1f'), between,
                          '*' if row['low'] > 0 or row['high'] < 0 else '')
    (console or Console()).print(shown)


def define(values: FlagValues) -> None:
    cli.define_path(values, 'annotations', '', 'COCO file that both were made for; without it ground_truth.json beside '
                    'the first')
    flags.DEFINE_string('by', '', 'key of the image records that names the patient; without it the usual names',
                        flag_values=values)
    flags.DEFINE_integer('resamples', bootstrap.RESAMPLES, 'how often patients are drawn', lower_bound=1,
                         flag_values=values)
    flags.DEFINE_integer('seed', 0, 'of the draws', lower_bound=0, flag_values=values)
    flags.DEFINE_enum('voc_boxes', 'pixel_inclusive', sorted(CONVENTIONS), 'widths of VOC-style AP: x2 - x1 (+ 1)',
                      flag_values=values)
    cli.define_path(values, 'out', '', 'JSON file to write', kind='file')


def command(call: cli.Call) -> None:
    f = call.flags
    paths = [Path(word).expanduser() for word in call.words]
    path = Path(f.annotations) if f.annotations else paths[0].with_name(GROUND_TRUTH)
    if not f.annotations and not path.exists():
        raise UserError(f'--annotations: expected the COCO file, as there is no {path}')
    truth = read_truth(path)
    if f.by and any(f.by not in image for image in truth['images']):
        raise UserError(f"--by={f.by}: an image of {path} has no such key; its first has "
                        f"{', '.join(truth['images'][0])}")
    a, b = (read_results(p, truth) for p in paths)
    table = compare(truth, a, b, by=f.by, resamples=f.resamples, seed=f.seed, convention=f.voc_boxes)
    drawn = bootstrap.patients(truth['images'], f.by)[1]
    about = dict(a=str(paths[0]), b=str(paths[1]), annotations=str(path), images=len(truth['images']),
                 resamples=f.resamples, of=drawn, seed=f.seed, voc_convention=f.voc_boxes)
    print(f"A {paths[0]}\nB {paths[1]}\non {len(truth['images'])} images of {path}, {f.resamples} resamples of "
          f'{drawn}, per cent')
    print_table(table)
    if f.out:
        files.write_json(f.out, dict(about=about, metrics=table))
        logging.info('written: %s', f.out)


def main(argv: list[str] | None = None) -> int:
    return cli.run('compare', __doc__, define, command, argv, words=('A', 'B'), overrides=False)


if __name__ == '__main__':
    sys.exit(main())
