"""Cross-validation: as many trainings as there are folds, each film measured by the one that did not see it."""
import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from relnet_jax import files
from relnet_jax.ablation import results, runner
from relnet_jax.data import pipeline
from relnet_jax.data.formats import has_validation
from relnet_jax.errors import UserError
from relnet_jax.evaluation import report

DONE = 'fold.json'      # in the folder of a finished fold: its flat config, and what `runner.run_once` gave


def folder_of(workdir: str | Path, fold: int) -> Path:
    return Path(workdir) / f'fold_{fold}'


def fold_config(config: ConfigDict, fold: int) -> ConfigDict:
    """`config` with part `fold` of data.split.folds held out; {fold} in train.init_from is its number, for what it
    starts from must not have seen its held-out films either."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.split.hold_out = fold
        config.train.init_from = config.train.init_from.replace('{fold}', str(fold))
    return config.lock()


def check(config: ConfigDict) -> None:
    """Raises UserError for a config whose films folds cannot cover. data.subset may choose what a fold trains on."""
    if has_validation(config.data) or config.data.val.max_images:
        raise UserError('--folds holds out parts of the training images: expected no validation data of their own '
                        '(data.val.annotations, data.val.max_images; the phantom has its own)')


def read_done(folder: Path, config: ConfigDict) -> dict | None:
    """What `runner.run_once` gave for the finished fold in `folder`, None if it is not finished.

    Raises ResultError if it was trained with another config.
    """
    path = folder / DONE
    if not path.exists():
        return None
    found = files.read_json(path)
    if wrong := results.differences(results.flat(config), results.complete(found.pop('settings'))):
        raise results.ResultError(f'{folder} holds a fold of another config; remove it, or choose another folder:\n  '
                                  + '\n  '.join(wrong))
    return found


def run_fold(config: ConfigDict, workdir: str | Path, fold: int) -> dict | None:
    """Trains the fold in WORKDIR/fold_K and returns what `runner.run_once` gave; None if it was stopped. Raises
    ResultError for a folder of another config, and what training raises."""
    own, folder = fold_config(config, fold), folder_of(workdir, fold)
    found = read_done(folder, own)
    if found is None:
        found = runner.run_once(own, folder)
        if found is not None:
            files.write_json(folder / DONE, dict(settings=results.flat(own)) | found)
    return found


def finished(config: ConfigDict, workdir: str | Path) -> list[dict]:
    """What `runner.run_once` gave for the folds that are finished. Raises ResultError as `read_done`."""
    found = (read_done(folder_of(workdir, fold), fold_config(config, fold)) for fold in range(config.data.split.folds))
    return [done for done in found if done is not None]


def gathered(config: ConfigDict, workdir: str | Path) -> dict | None:
    """Pools what all folds say of their held-out films, writes the report of all films to WORKDIR/eval and returns the
    measured part of a result file; None if a fold is not finished.

    `steps` are those of one fold, `seconds` those of all, and `about` and the metrics those of the pooled films.
    Raises ResultError for folds that do not belong together.
    """
    done = finished(config, workdir)
    if len(done) < config.data.split.folds:
        return None
    metrics, about = pool(config, Path(workdir))
    return dict(runner.measured(config, metrics, about), steps=done[0]['steps'], folds=len(done),
                resumed_at_step=max(found['resumed_at_step'] for found in done),
                seconds=round(sum(found['seconds'] for found in done), 1))


def pool(config: ConfigDict, workdir: Path) -> tuple[dict, dict]:
    """(metrics, about) of WORKDIR/eval/metrics.json, which it writes with the rest of the report: the detections of
    every fold in its held-out films, together. Scores of different folds are ranked as they are.

    Raises ResultError unless every film is held out once.
    """
    source = pipeline.open_undivided(config)
    held, found = [], []
    for fold in range(config.data.split.folds):
        truth, detections = report.read_evaluation(folder_of(workdir, fold) / 'eval')
        held += [image['id'] for image in truth['images']]
        found += detections
    if sorted(map(str, held)) != sorted(map(str, source.image_ids)):
        raise results.ResultError(f'{workdir}: its {config.data.split.folds} folds hold out {len(held)} images, '
                                  f'{len(set(held))} different ones, expected each of the {len(source)} of '
                                  f'{source.name} once')
    place = {number: i for i, number in enumerate(source.image_ids)}
    found.sort(key=lambda record: place[record['image_id']])
    source = dataclasses.replace(source, name=f'{source.name}, {config.data.split.folds} folds')
    report.full_report(workdir / 'eval', source, source.ground_truth(), found, config,
                       checkpoint=f'{workdir.name}, each film by the fold that held it out')
    written = files.read_json(workdir / 'eval' / 'metrics.json')
    return written['metrics'], written['about']
