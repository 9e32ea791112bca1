"""Detect in image files: python -m relnet_jax.predict --ckpt=RUN --images=FILE_OR_FOLDER[,MORE] --out=DIR [--score=0.3]

Installed, the command is relnet-predict. --images may be given several times; a name with a comma in it is taken as it
is if it exists. Writes one overlay PNG per image and one COCO-style predictions.json. A file that cannot be read is
reported and skipped, and the exit code is then 1. The config is the checkpoint's own; any key can be overridden, such
as --config.test.boxes=256.
"""
import json
import sys
from pathlib import Path

import numpy as np
from absl import flags, logging
from absl.flags import FlagValues
from pycocotools import mask as coco_mask

from relnet_jax import cli
from relnet_jax import config as config_lib
from relnet_jax.data import fit
from relnet_jax.data.images import SUFFIXES, UnreadableImage, is_image_file, read_header, read_image
from relnet_jax.data.read_options import ReadOptions, read_options
from relnet_jax.data.source import Source
from relnet_jax.detector.run import detect_batches, load_detector
from relnet_jax.errors import UserError
from relnet_jax.evaluation.overlays import draw_results
from relnet_jax.evaluation.submissions import SUBMISSIONS, check_form, write_submission
from relnet_jax.runs import checkpoint, startup
from relnet_jax.types import Example
from relnet_jax.visualize import write_image

PHANTOM_MODEL_CAPTION = 'Trained on PHANTOM images (synthetic): says nothing about a patient'


def list_images(names: list, out: Path) -> tuple:
    """(files, names for their outputs, problems) of files and folders given by name.

    Folders are searched with their subfolders for images, in sorted order, leaving out what lies in `out`, so that a
    second run does not take the first one's overlays for input. An output name is the path below the given folder with
    '__' for '/' and without extension; further words or numbers keep equal ones apart, also where case does not count.
    """
    files, wanted, problems = [], [], []
    for name in names:
        path = Path(name)
        if path.is_dir():
            here = sorted(p for p in path.rglob('*')
                          if not p.resolve().is_relative_to(out.resolve()) and is_image_file(p))
            if not here:
                problems.append(f'{path}: no images ({", ".join(SUFFIXES)}) in this folder')
            files += here
            wanted += [p.relative_to(path) for p in here]
        elif path.exists():
            files.append(path)
            wanted.append(Path(path.name))
        else:
            problems.append(f'{path}: no such file or folder')
    taken, outputs = set(), []
    for file, relative in zip(files, wanted):
        stem = '__'.join(relative.with_suffix('').parts)
        choices = [stem, f'{stem}{relative.suffix.replace(".", "_")}', f'{file.resolve().parent.name}__{stem}']
        choices += [f'{stem}-{n}' for n in range(2, len(files) + 2)]
        choice = next(c for c in choices if c.casefold() not in taken)
        taken.add(choice.casefold())
        outputs.append(f'{choice}.png')
    return files, outputs, problems


def file_source(files: list, class_table: dict, config, *, problems: list) -> Source:
    """Image files as a data source without objects or known parts; image ids count from 1. `class_table` is that of the
    checkpoint.

    What `load` cannot read is added to `problems`.
    """
    def load(index: int) -> Example:
        try:
            image = fit.turn(read_image(files[index], options), turns[index])
        except UnreadableImage as e:
            problems.append(str(e))
            raise
        return Example(
            image=image, image_id=index + 1, index=index, boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int32), crowd=np.zeros(0, bool),
            masks=np.zeros((0, config.data.mask_size, config.data.mask_size), np.uint8), has_mask=np.zeros(0, bool),
            part_boxes=np.zeros((len(parts), 4), np.float32), part_valid=np.zeros(len(parts), bool))

    def nothing_known() -> dict:
        return dict(images=records, annotations=[], categories=categories(class_table))

    parts, options = tuple(class_table['parts']), read_options(config.data)
    headers = [_header(file, options) for file in files]
    records = [dict(id=i + 1, file_name=file.as_posix()) | _displayed_size(header, options.exif)
               for i, (file, header) in enumerate(zip(files, headers))]
    turns, notes = fit.fit_all(records, headers, options.exif)
    for note in notes:
        logging.info('%s', note)
    return Source(name='images', classes=tuple(class_table['classes']), category_ids=tuple(class_table['category_ids']),
                  parts=parts, records=records, load=load, ground_truth=nothing_known,
                  image_path=lambda index: files[index])


def _header(file: Path, options: ReadOptions) -> fit.Header | None:
    try:
        return read_header(file, options)
    except UnreadableImage:     # reported when it is loaded
        return None


def _displayed_size(header: fit.Header | None, exif: str) -> dict:
    """`width` and `height` of a record without annotations, none of an unreadable file."""
    if header is None:
        return {}
    height, width = fit.turned_size(header[:2], 1 if exif == 'ignore' else header.orientation)
    return dict(width=width, height=height)


def categories(class_table: dict) -> list:
    return [dict(id=i, name=name) for i, name in zip(class_table['category_ids'], class_table['classes'])]


def predict(detect_fn, params, class_table: dict, config, files: list, outputs: list, out: Path, *,
            score: float, submission: str = '') -> list:
    """Detect in image `files` and write their overlays, called `outputs`, and predictions.json to the folder `out`.

    `detect_fn` and `params` are those of `load_detector`. Every batch has the same shape, so that the detector compiles
    once. Only detections of at least `score` are written, as a submission.csv of the form `submission` too unless it is
    ''. Returns what went wrong, one line for each file.
    """
    out.mkdir(parents=True, exist_ok=True)
    problems = []
    source = file_source(files, class_table, config, problems=problems)
    caption = PHANTOM_MODEL_CAPTION if config.data.format == 'phantom' else ''
    images, annotations = [], []
    batch_size = min(config.test.batch_size, len(files))
    for batch, results in detect_batches(detect_fn, params, source, config, batch_size=batch_size):
        for index in batch.image_index[batch.image_valid]:
            found = [r for r in results if r['image_id'] == index + 1 and r['score'] >= score]
            image = source.load(index).image
            picture = draw_results(image, found, source.classes, source.category_ids, caption=caption)
            write_image(out / outputs[index], picture)
            height, width = image.shape[:2]
            images.append(dict(source.records[index], width=width, height=height, overlay=outputs[index]))
            for r in found:
                annotations.append(dict(r, id=len(annotations) + 1, area=_area(r), iscrowd=0))
            logging.info('%s: %d found -> %s', files[index], len(found), out / outputs[index])
    predictions = dict(images=images, categories=categories(class_table), annotations=annotations)
    (out / 'predictions.json').write_text(json.dumps(predictions) + '\n')
    if submission:
        write_submission(out / 'submission.csv', submission, annotations, source)
    return problems


def _area(result: dict) -> float:
    """Pixels of the mask, or of the box where there is none, as COCO defines an annotation's area."""
    if 'segmentation' in result:
        return float(coco_mask.area(result['segmentation']))
    return result['bbox'][2] * result['bbox'][3]


def define(values: FlagValues) -> None:
    cli.define_path(values, 'ckpt', None, 'run folder, its checkpoints folder, one step folder, or RUN/best')
    flags.DEFINE_multi_string('images', None, 'image files and folders, separated by commas; may be repeated',
                              flag_values=values)
    cli.define_path(values, 'out', None, 'folder to write to', kind='folder')
    flags.DEFINE_float('score', 0.3, 'leave out detections weaker than this', lower_bound=0, upper_bound=1,
                       flag_values=values)
    flags.DEFINE_enum('submission', '', ['', *SUBMISSIONS], "write submission.csv too, in a competition's form",
                      flag_values=values)


def command(call: cli.Call) -> int:
    f, out = call.flags, Path(call.flags.out)
    files, outputs, problems = list_images(cli.paths(f.images), out)
    if not files:
        raise UserError(f'--images: {"; ".join(problems)}')
    startup.quiet_libraries()
    startup.use_compilation_cache()
    config = config_lib.with_overrides(checkpoint.read_config(f.ckpt), call.overrides)
    class_table = checkpoint.read_class_table(f.ckpt)
    check_form(f.submission, class_table['classes'])
    detect_fn, params = load_detector(f.ckpt, config, class_table)
    if f.score < config.test.score_threshold:
        logging.warning('--score=%g: no detection below config.test.score_threshold = %g is kept', f.score,
                        config.test.score_threshold)
    startup.log_compilation('the detector')
    problems += predict(detect_fn, params, class_table, config, files, outputs, out, score=f.score,
                        submission=f.submission)
    for problem in problems:
        print(f'skipped: {problem}', file=sys.stderr)
    return cli.UNFINISHED if problems else cli.DONE


def main(argv: list[str] | None = None) -> int:
    return cli.run('predict', __doc__, define, command, argv)


if __name__ == '__main__':
    sys.exit(main())
