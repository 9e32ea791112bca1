"""Detect in image files: python -m relnet_jax.predict --ckpt=RUN --images=FILE_OR_FOLDER[,MORE] --out=DIR [--score=0.5]

Installed, the command is relnet-predict. --images may be given several times; a name with a comma in it is taken as it
is if it exists. Writes to DIR, film by film, predictions.jsonl and an overlay PNG, and at the end predictions.json
(COCO) and findings.csv, a row for each finding; docs/predict.md describes them. The same command again resumes where
the first one was stopped. A file that cannot be read is reported and skipped, and the exit code is then 1. The config
is the checkpoint's own; any key can be overridden, such as --config.test.boxes=256. --dicom_sr and --dicom_seg add
documents for an archive to DIR/dicom (docs/export.md).
"""
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging
from absl.flags import FlagValues

from relnet_jax import cli
from relnet_jax import config as config_lib
from relnet_jax.data import archive
from relnet_jax.detector import predictions
from relnet_jax.detector.detector import SCORE, Detector
from relnet_jax.detector.inputs import categories, find_images, image_source, name_outputs
from relnet_jax.detector.outputs import film_line
from relnet_jax.errors import UserError
from relnet_jax.evaluation.submissions import SUBMISSIONS, check_form, write_submission
from relnet_jax.progress import Bar
from relnet_jax.runs import checkpoint, memory
from relnet_jax.visualize import write_image


def predict(detector: Detector, found: list, out: Path, *, score: float | None = None, overlays: bool = True,
            documents: Sequence[str] = (), submission: str = '') -> tuple[list[Path], list[str]]:
    """Detects in the files of `find_images` and writes the folder `out`, as `detector.predictions` says, resuming from
    what it holds.

    `score` as for Detector; documents: kinds among 'sr' and 'seg'. With `submission`, a form in SUBMISSIONS, also
    submission.csv. Returns the files written and what went wrong, one line for each film.
    """
    settings = predictions.settings_of(detector, detector.lowest(score), overlays=overlays, documents=documents)
    with predictions.begun(out, settings) as (done, file):
        left = [pair for pair in found if pair[0].absolute() not in done]
        names = name_outputs(left, filter(None, done.values()))
        if done:
            logging.info('%s: resuming, %d of %d films are done', out, len(found) - len(left), len(found))
        films = detector.stream([path for path, _ in left], score=score, batch_size=detector.batch_size(len(found)))
        problems, turned, unfamiliar = [], 0, 0
        with Bar('films', total=len(found), unit='img', done=len(found) - len(left)) as bar:
            for name, film in zip(names, films, strict=True):
                bar.advance()
                if film.problem:
                    problems.append(film.problem)
                    continue
                if overlays:
                    write_image(out / name, film.picture())
                line = film_line(film, detector.category_ids)
                line |= dict(path=str(Path(film.file).absolute()), overlay=name if overlays else None)
                if documents:
                    line |= write_documents(line, out, documents, detector, settings['score'])
                predictions.append(file, line)
                turned += film.about['orientation'] != 1
                unfamiliar += bool(film.unfamiliar)
        written = [out / predictions.LINES, *predictions.finish(out, categories(detector.class_table))]
        if submission:
            written.append(out / 'submission.csv')
            write_films(written[-1], submission, detector, out)
    if turned:
        logging.info('%d of %d files carry an EXIF orientation: %s (data.exif=%s)', turned, len(left),
                     'left as stored' if detector.config.data.exif == 'ignore' else 'turned as it says',
                     detector.config.data.exif)
    logging.info('%d of %d films are done, %d of them now; of these %d are unlike those of the training%s',
                 len(found) - len(problems), len(found), len(left) - len(problems), unfamiliar,
                 f'; a picture of each is in {out}' if overlays else '')
    return written, problems + [line['no_document'] for line in predictions.lines(out) if line.get('no_document')]


def write_documents(line: dict, out: Path, kinds: Sequence[str], detector: Detector, score: float | dict) -> dict:
    """DICOM documents of a film, as further fields of its line: `documents`, their names, or why there is none."""
    origin = archive.Origin(checkpoint=detector.name, synthetic=detector.synthetic, score_threshold=score)
    names = dict(zip(detector.category_ids, detector.names))
    try:
        if 'SOPInstanceUID' not in line:
            raise UserError(f'{line["file_name"]}: no DICOM file, so no DICOM document is made of it')
        findings = archive.findings(line['findings'], names)
        paths = _writer().write(line['path'], out / 'dicom', findings, origin, kinds=kinds)
        return dict(documents=[path.name for path in paths])
    except UserError as error:
        return dict(documents=[], no_document=str(error))


def _writer():
    """`data.archive.documents`, loaded only where it is wanted: it takes a second and an extra package."""
    try:
        from relnet_jax.data.archive import documents
    except ImportError as e:
        raise UserError(f"DICOM documents: {e.name} is missing: pip install 'relnet_jax[dicom]'") from e
    return documents


def write_films(path: Path, form: str, detector: Detector, out: Path) -> None:
    """Writes all films in `out` as a submission of that form."""
    films = [dict(id=i, file_name=line['file_name']) for i, line in enumerate(predictions.lines(out), 1)]
    results = [dict(image_id=i, category_id=finding['category_id'], bbox=finding['bbox'], score=finding['score'])
               for i, line in enumerate(predictions.lines(out), 1) for finding in line['findings']]
    source = image_source([], detector.class_table, detector.config, {})
    write_submission(path, form, results, dataclasses.replace(source, records=films))


def define(values: FlagValues) -> None:
    cli.define_path(values, 'ckpt', None, 'run folder, its checkpoints folder, one step folder, or RUN/best')
    flags.DEFINE_multi_string('images', None, 'image files and folders, separated by commas; may be repeated',
                              flag_values=values)
    cli.define_path(values, 'out', None, 'folder to write to', kind='folder')
    flags.DEFINE_string('score', '', 'leave out detections weaker than this; without it those weaker than the '
                        f'operating points of the checkpoint (eval.py --calibrate), or than {SCORE} where it has none',
                        flag_values=values)
    flags.DEFINE_bool('overlays', True, 'a picture of each film with what was found', flag_values=values)
    for kind, what in (('sr', 'structured report'), ('seg', 'segmentation')):
        flags.DEFINE_bool(f'dicom_{kind}', False, f'for each film, itself DICOM, a DICOM {what} of the same study in '
                          'DIR/dicom: for research, not for clinical use', flag_values=values)
    flags.DEFINE_enum('submission', '', ['', *SUBMISSIONS], "write submission.csv too, in a competition's form",
                      flag_values=values)


def score_of(text: str) -> float | None:
    """'0.3' -> 0.3, '' -> None. Raises UserError."""
    try:
        score = float(text) if text else None
    except ValueError:
        score = -1.0
    if score is not None and not 0 <= score <= 1:
        raise UserError(f'--score={text}: expected a number from 0 to 1')
    return score


def command(call: cli.Call) -> int:
    f, out, score = call.flags, Path(call.flags.out), score_of(call.flags.score)
    found, problems = find_images(cli.paths(f.images), out)
    if not found:
        raise UserError(f'--images: {"; ".join(problems)}')
    config = config_lib.with_overrides(checkpoint.read_config(f.ckpt), call.overrides)
    check_form(f.submission, checkpoint.read_class_table(f.ckpt)['classes'])
    documents = tuple(kind for kind in ('sr', 'seg') if f[f'dicom_{kind}'].value)
    if 'seg' in documents and not config.model.mask_head:
        raise UserError('--dicom_seg: this detector predicts no masks')
    if documents:
        _writer()
    with memory.told(memory.detection_remedies(config)):
        detector = Detector.load(f.ckpt, config=config)
        written, skipped = predict(detector, found, out, score=score, overlays=f.overlays, documents=documents,
                                   submission=f.submission)
    for problem in [*problems, *skipped]:
        print(f'skipped: {problem}', file=sys.stderr)
    print(*written, sep='\n')
    return cli.UNFINISHED if problems or skipped else cli.DONE


def main(argv: list[str] | None = None) -> int:
    return cli.run('predict', __doc__, define, command, argv)


if __name__ == '__main__':
    sys.exit(main())
