"""The folders WORKDIR/checkpoints/STEP: which there are, whether they are whole, and what is read from them."""
import difflib
import itertools
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from relnet_jax.errors import UserError
from relnet_jax.runs import manifest

FOLDER = 'checkpoints'
ASIDE = 'damaged'                               # where damaged steps go, beside FOLDER
NEEDED = ('params', 'config', 'classes')        # what a detector is rebuilt from
STEP = re.compile('0|[1-9][0-9]*')           # as Orbax has it
NAMED = 3                                       # damaged files that a message names


class CheckpointError(UserError):
    """A checkpoint is missing, incomplete, damaged, or does not fit what it is to be loaded into."""


# ---- which there are ----
def steps(workdir: str | Path) -> list[int]:
    """Steps with a finished checkpoint under WORKDIR/checkpoints, ascending; folders of other names do not count."""
    folder = Path(workdir) / FOLDER
    there = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(p.name) for p in there if STEP.fullmatch(p.name) and p.is_dir())


def find(ckpt: str | Path) -> Path:
    """The step folder that `ckpt` means: a step folder itself; or the latest step of a workdir or of its checkpoints
    folder; or, with `best` as the last part of the path, the step whose stored config.train.best is highest.

    Raises CheckpointError where nothing is found, saying what is there instead, and where a file of the detector is
    missing or has not the size that was written (its contents are compared when it is read).
    """
    path = Path(ckpt).expanduser().absolute()
    if path.name == 'best' and not path.exists():
        return _best(path.parent)
    if not path.is_dir():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob('*/')], 1)
        hint = f", did you mean '{path.parent / near[0]}'?" if near else ''
        raise CheckpointError(f"no checkpoint folder '{path}'{hint}")
    if STEP.fullmatch(path.name) and not (path / FOLDER).exists():
        check(path, 'ema' if 'ema' in items(path) else 'params', 'config', 'classes', contents=False)
        return path
    workdir = path.parent if path.name == FOLDER else path
    finished = steps(workdir)
    if not finished:
        folder = workdir / FOLDER
        there = sorted(p.name for p in (folder if folder.is_dir() else path).iterdir())[:5]
        raise CheckpointError(f"no finished checkpoint in '{path}' (it holds: {', '.join(there) or 'nothing'})")
    return find(workdir / FOLDER / str(finished[-1]))


def _best(path: Path) -> Path:
    workdir = path.parent if path.name == FOLDER else path
    scores = {}
    for step in steps(workdir):
        try:
            folder = find(workdir / FOLDER / str(step))
            scored = 'metrics' in items(folder)     # not what `checkpoint.save_model` wrote
            value = read_json(folder, 'metrics').get(read_json(folder, 'config')['train']['best']) if scored else None
        except CheckpointError as error:
            logging.warning('left out in the search for the best step: %s', error)
            continue
        if value is not None:
            scores[folder] = value
    if not scores:
        raise CheckpointError(f"no step in '{path}' was evaluated, so none is the best")
    return max(scores, key=scores.get)


# ---- whole or not ----
def sealed(folder: Path) -> bool:
    """Whether damage would be noticed: the folder has a manifest."""
    return (folder / manifest.FILE).exists()


def items(folder: Path) -> set[str]:
    """Names of the items of a step folder as it was written; of one of before manifests, as it is."""
    try:
        covered = _covered(folder)
    except manifest.Damaged as error:
        raise _damaged(folder, [str(error)]) from error
    return {path.name for path in folder.iterdir()} if covered is None else {path.split('/')[0] for path in covered}


def damage(folder: Path, *names: str, contents: bool = True) -> list[str]:
    """What is not as it was written in the items `names` (all of them by default), a line for each file; [] for whole
    ones. Of a folder of before manifests no more can be told than what is missing.

    contents: False looks at the sizes of files alone. Raises CheckpointError for a folder of a later version.
    """
    try:
        covered = _covered(folder)
    except manifest.Damaged as error:
        return [str(error)]
    if covered is None:
        return [f'{name} is missing' for name in names or NEEDED if not (folder / name).is_dir()]
    chosen = {path: state for path, state in covered.items() if not names or path.split('/')[0] in names}
    return manifest.damage(folder, chosen, contents=contents)


def check(folder: Path, *names: str, contents: bool = True) -> None:
    """Raises CheckpointError, naming the files and the step to take instead, if `damage` finds any."""
    if wrong := damage(folder, *names, contents=contents):
        raise _damaged(folder, wrong, *names)


def _covered(folder: Path) -> manifest.Covered | None:
    try:
        return manifest.read(folder)
    except manifest.NewerFormat as error:
        raise CheckpointError(str(error)) from error


def _damaged(folder: Path, wrong: list[str], *names: str) -> CheckpointError:
    if not folder.is_dir():
        return CheckpointError(f"'{folder}' is no longer there: a training keeps its last steps and the best one")
    named = '; '.join(wrong[:NAMED]) + (f'; and {len(wrong) - NAMED} more' if len(wrong) > NAMED else '')
    before = [s for s in steps(folder.parent.parent) if s < int(folder.name)] if STEP.fullmatch(folder.name) else []
    whole = next((folder.parent / str(s) for s in reversed(before) if not damage(folder.parent / str(s), *names)), None)
    return CheckpointError(f"'{folder}' is damaged: {named}" + (f"; whole is '{whole}'" if whole else ''))


def set_aside_damaged(workdir: str | Path) -> None:
    """Moves every step that is not what was written to WORKDIR/damaged, and says so, so that the newest whole one is
    the latest. Reads all steps. Raises CheckpointError, and moves nothing, where none is whole."""
    folders = [Path(workdir) / FOLDER / str(step) for step in steps(workdir)]
    wrong = {folder: found for folder in folders if (found := damage(folder))}
    if wrong and len(wrong) == len(folders):
        raise _damaged(folders[-1], wrong[folders[-1]])
    for folder, found in wrong.items():
        aside = Path(workdir) / ASIDE
        aside.mkdir(exist_ok=True)
        names = itertools.chain([folder.name], (f'{folder.name}-{n}' for n in itertools.count(2)))
        target = next(aside / name for name in names if not (aside / name).exists())
        folder.rename(target)
        logging.warning('step %s is damaged and was moved to %s: %s', folder.name, target, '; '.join(found[:NAMED]))


# ---- reading ----
def read_json(folder: Path, item: str) -> dict:
    """Raises CheckpointError, naming the file, unless the item is as it was written."""
    check(folder, item)
    filename = 'metrics' if item == 'metrics' else None     # as the CheckpointManager names it; None: Orbax's default
    try:
        found = ocp.JsonCheckpointHandler(filename=filename).restore(folder / item)
    except Exception as error:      # of before manifests, and damaged
        raise _unreadable(folder / item, error) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"'{folder / item}': expected a JSON object")
    return found


def read_tree(folder: Path, item: str, template: Any = None) -> Any:
    """The item as numpy arrays; with a template also in its tree type (named tuples of optax).

    Raises CheckpointError, naming the file, unless the item is as it was written; with a template ValueError or
    KeyError where it does not fit.
    """
    check(folder, item)
    reader, like = ocp.PyTreeCheckpointHandler(), template
    try:
        if like is None:
            like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
                                reader.metadata(folder / item).tree, is_leaf=lambda node: hasattr(node, 'dtype'))
        as_numpy = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), like)
        return reader.restore(folder / item, args=ocp.args.PyTreeRestore(item=like, restore_args=as_numpy))
    except Exception as error:
        if template is not None and isinstance(error, (ValueError, KeyError)):
            raise
        raise _unreadable(folder / item, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"'{path}' cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
