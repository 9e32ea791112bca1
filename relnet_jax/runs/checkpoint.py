"""Checkpoints that need nothing else to be read: parameters, optimiser, config and class table, written at once.

WORKDIR/checkpoints/STEP/ holds the items `params`, `ema` (where the run keeps an average), `optimizer` (its state and
the step), `config` and `classes` (JSON; the latter also holds the class graph, if the model has one), `films` (JSON:
how the training films look as a whole, where that is known), `metrics` (JSON: those of an evaluation at this step, and
the training loss) and `about` (JSON: the version, the data, and what a run needs to go on as if it had not stopped),
sealed by a manifest of their checksums. Orbax writes under a temporary name and renames at the end, so that a killed
run leaves whole checkpoints or none.
"""
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

from relnet_jax import __version__, files, processes
from relnet_jax import config as config_lib
from relnet_jax.data.source import CLASS_TABLE
from relnet_jax.errors import UserError
from relnet_jax.runs import manifest, rotation
from relnet_jax.runs.state import TrainState
from relnet_jax.runs.step_folder import FOLDER, CheckpointError, find, items, read_json, read_tree, sealed, steps
from relnet_jax.trees import not_finite, path_name

GRAPH = 'graph'     # in the class table of a model that reasons over classes
REMOVED = 'removed'     # folder beside the steps that old ones go to
SYSTEM_ERROR = re.compile(r"os_error_code='(\d+)'")      # in what TensorStore says of a failure


# ---- writing ----
@contextmanager
def make_manager(workdir: str | Path, *, keep: int, best: str) -> Iterator[ocp.CheckpointManager]:
    """Asynchronous writer of WORKDIR/checkpoints, which keeps what `rotation.policy` says. At the end the last save is
    finished. What a killed run left half written is removed. Raises CheckpointError where a save failed."""
    folder = Path(workdir).absolute() / FOLDER

    def seal() -> None:     # called when a step's items are written, before any older step is removed
        for step in folder.iterdir():
            if (step / manifest.ABOUT).is_dir() and not sealed(step):
                manifest.seal(step)

    # best_fn makes Orbax store the metrics and read them again after a restart; the policy decides what is kept.
    options = ocp.CheckpointManagerOptions(
        preservation_policy=rotation.policy(keep, best), best_fn=lambda metrics: rotation.score(metrics, best),
        cleanup_tmp_directories=True, todelete_subdir=REMOVED,
        async_options=ocp.AsyncOptions(post_finalization_callback=seal))
    with _failure_told(folder):
        _remove_old_steps(folder)
        manager = ocp.CheckpointManager(folder, options=options)
    try:
        yield manager
    finally:
        with _failure_told(folder):
            manager.close()
            _remove_old_steps(folder)


def _remove_old_steps(folder: Path) -> None:
    """Deletes the steps that were moved aside in one go, so that none is half there under its name when a run is killed
    meanwhile. Not while a step is saved."""
    if processes.is_first():
        shutil.rmtree(folder / REMOVED, ignore_errors=True)


@contextmanager
def _failure_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if processes.lost(error):
            raise
        number = SYSTEM_ERROR.search(str(error))
        cause = os.strerror(int(number[1])) if number else ' '.join(str(error).split())[:200]
        whole = f'the last one is step {done[-1]}' if (done := steps(folder.parent)) else 'there is none yet'
        raise CheckpointError(f"no checkpoint could be written to '{folder}': {cause}; {whole}") from error


def check_written(manager: ocp.CheckpointManager) -> None:
    """Raises CheckpointError if the last save has ended and failed; does not wait for one that goes on."""
    if not manager.is_saving_in_progress():
        with _failure_told(Path(manager.directory)):
            manager.wait_until_finished()
            _remove_old_steps(Path(manager.directory))


def save(manager: ocp.CheckpointManager, state: TrainState, *, config: ConfigDict, class_table: dict,
         metrics: dict[str, float] | None = None, loss: float | None = None, data: dict | None = None,
         films: dict | None = None, window: Sequence[dict[str, float]] = ()) -> None:
    """Begins to write `state` under its step; returns once the arrays are copied off the devices.

    `class_table` holds `classes`, `category_ids`, `parts` and, if the model has one, `graph` (see data/graph.py);
    `metrics` are those of an evaluation at this step, and config.train.best among them decides which step is the best;
    undefined ones (NaN) are stored as null. loss: mean of the training loss since the step saved before, see
    `rotation`. data: see `fingerprint`. films: what `data.familiarity` measured, if anything. window: the steps since
    the last log line, see `training.window`. A step that is already there is left as it is. Raises CheckpointError
    where the save before this one failed.
    """
    step = int(jax.device_get(state.step))
    if step in manager.all_steps():
        return
    if metrics is not None and config.train.best not in metrics:
        logging.warning("config.train.best: the evaluation gives no '%s', so no step is kept as the best; it gives %s",
                        config.train.best, ', '.join(metrics))
    parts = _model_items(state.params, config, class_table, data=data, window=list(window))
    parts['optimizer'] = ocp.args.PyTreeSave(dict(step=state.step, seed=state.seed, state=state.opt_state))
    if state.ema is not None:
        parts['ema'] = ocp.args.PyTreeSave(state.ema)
    if films is not None:
        parts['films'] = ocp.args.JsonSave(films)
    with _failure_told(Path(manager.directory)):
        manager.wait_until_finished()
        _remove_old_steps(Path(manager.directory))
        if loss is not None:
            last = manager.latest_step()
            before = {} if last is None else manager.metrics(last) or {}
            metrics = (metrics or {}) | rotation.loss_metrics(loss, before)
        metrics = files.nulls({name: float(value) for name, value in (metrics or {}).items()})
        free, size = shutil.disk_usage(manager.directory).free, state_bytes(state)
        if free < size:     # asked first, since Orbax fails with hundreds of lines
            raise OSError(f'it takes {size / 1e6:.1f} MB, and the disk has {free / 1e6:.1f} MB left')
        manager.save(step, args=ocp.args.Composite(**parts), metrics=metrics)


def state_bytes(state: TrainState) -> int:
    """Of a state (arrays or shapes), on a disk at most."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def _model_items(params: Any, config: ConfigDict, class_table: dict, **about) -> dict:
    """What a detector is rebuilt from."""
    return dict(params=ocp.args.PyTreeSave(params), config=ocp.args.JsonSave(json.loads(config_lib.to_json(config))),
                classes=ocp.args.JsonSave({k: list(v) for k, v in class_table.items() if k in (*CLASS_TABLE, GRAPH)}),
                about=ocp.args.JsonSave(dict(version=__version__, **about)))


def save_model(workdir: str | Path, params: Any, *, config: ConfigDict, class_table: dict) -> None:
    """Writes WORKDIR/checkpoints/0 with what evaluation, prediction and `init_from` need; no run goes on from it."""
    with make_manager(workdir, keep=1, best='') as manager, _failure_told(Path(manager.directory)):
        manager.save(0, args=ocp.args.Composite(**_model_items(params, config, class_table)))


# ---- what a detector is rebuilt from ----
def read_config(ckpt: str | Path) -> ConfigDict:
    """The locked config that the checkpoint was trained with; a key that its version did not have yet is as in
    configs/base.py. `ckpt` as for `find`. Raises CheckpointError for one that breaks `rules`."""
    folder = find(ckpt)
    try:
        config, added = config_lib.from_earlier(read_json(folder, 'config'))
    except UserError as error:
        raise CheckpointError(f"'{folder}': {error}") from error
    if added:
        logging.info('%s is of an earlier version; as in configs/base.py are %s', folder, ', '.join(added))
    return config


def read_class_table(ckpt: str | Path) -> dict:
    """`classes` (names in label order), `category_ids` (the data set's own) and `parts` (names), all tuples; `graph`,
    K rows of K floats with the background first, if the model has one. Raises CheckpointError for anything else."""
    folder = find(ckpt)
    stored = read_json(folder, 'classes')

    def texts(v):
        return isinstance(v, list) and all(isinstance(name, str) and name for name in v) and len({*v}) == len(v)

    def numbers(v, kind):
        return isinstance(v, list) and all(isinstance(x, kind) and not isinstance(x, bool) and math.isfinite(x)
                                           for x in v)
    rows = stored.get(GRAPH, [])
    side = len(stored.get('classes') or ()) + 1
    wrong = [name for name, holds in {
        'classes': texts(stored.get('classes')) and stored.get('classes'),
        'category_ids': numbers(stored.get('category_ids'), int) and len(stored['category_ids']) == side - 1,
        'parts': texts(stored.get('parts')),
        GRAPH: GRAPH not in stored or isinstance(rows, list) and len(rows) == side
        and all(numbers(row, (int, float)) and len(row) == side for row in rows)}.items() if not holds]
    if wrong:
        raise CheckpointError(f"'{folder}': no class table: {', '.join(wrong)} not as expected (different names, a "
                              'number for each class, a square graph)')
    table = {k: tuple(v) for k, v in stored.items() if k in (*CLASS_TABLE, GRAPH)}
    return table | {GRAPH: tuple(map(tuple, table[GRAPH]))} if GRAPH in table else table


def read_films(ckpt: str | Path) -> dict | None:
    """How the training films look as a whole, for `data.familiarity.distance`; None where it is not known."""
    folder = find(ckpt)
    return read_json(folder, 'films') if 'films' in items(folder) else None


def load_params(ckpt: str | Path, template: Any = None) -> Any:
    """Parameters as numpy arrays, the averaged ones where the run kept an average. `ckpt` as for `find`.

    With a `template` (arrays or shapes) the tree is checked first: CheckpointError lists paths and shapes that differ.
    Raises CheckpointError also for parameters that are damaged or not finite.
    """
    folder = find(ckpt)
    item = 'ema' if _has_average(folder) else 'params'
    params = read_tree(folder, item)
    if template is not None:
        _check_fit(params, template, folder / item)
    if bad := not_finite(params):
        raise CheckpointError(f"'{folder / item}': parameters that are not finite, nothing can be detected with them: "
                              f'{"; ".join(bad[:3])}' + (f'; and {len(bad) - 3} more' if len(bad) > 3 else ''))
    _warn_of_no_checksums(folder)
    logging.info('loaded %s of step %s from %s', 'averaged parameters' if item == 'ema' else 'parameters', folder.name,
                 folder.parent.parent)
    return params


def _has_average(folder: Path) -> bool:
    """Raises CheckpointError where the run kept an average that is gone."""
    there = items(folder)
    if 'ema' not in there and 'optimizer' in there and not sealed(folder) and read_config(folder).train.ema:
        raise CheckpointError(f"'{folder}' is damaged: ema is missing, the average that config.train.ema asks for")
    return 'ema' in there


def _warn_of_no_checksums(folder: Path) -> None:
    if not sealed(folder):
        logging.warning('%s is of a version without checksums: damage to it would not be noticed', folder)


# ---- going on with a run ----
# Keys that change neither the parameters nor what they are trained on.
HARMLESS = ('name', 'data.threads', 'data.prefetch', 'data.cache', 'train.log_every', 'train.eval_every',
            'train.checkpoint_every', 'train.keep', 'train.best', 'train.parallel', 'train.accumulate',
            'model.remat', 'train.allow_changed_data')


def config_changes(stored: ConfigDict, now: ConfigDict) -> list[str]:
    """Lines 'train.learning_rate: 0.02 -> 0.01' for every key that differs and may change how a run goes on."""
    before, after = config_lib.flat(stored), config_lib.flat(config_lib.from_json(config_lib.to_json(now)))
    return [f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key) and key not in HARMLESS and not key.startswith('test.')]


def read_about(ckpt: str | Path) -> dict:
    """`version`, `data` and `window` as given to `save`; {} of a checkpoint of before manifests."""
    folder = find(ckpt)
    return read_json(folder, manifest.ABOUT) if sealed(folder) else {}


def _flat(tree: Any) -> dict[str, tuple]:
    return {path_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _check_fit(found: Any, wanted: Any, where: Path) -> None:
    """Raises CheckpointError that lists the first parameters whose paths or shapes differ."""
    found, wanted = _flat(found), _flat(wanted)
    wrong = [f'{k}: expected {wanted.get(k, "nothing")}, got {found.get(k, "nothing")}'
             for k in sorted(found.keys() | wanted.keys()) if found.get(k) != wanted.get(k)]
    if wrong:
        raise CheckpointError(f"'{where}' does not fit the model, {len(wrong)} parameters differ:\n  "
                              + '\n  '.join(wrong[:8]) + ('\n  ...' if len(wrong) > 8 else ''))


def restore_latest(workdir: str | Path, template: TrainState) -> TrainState | None:
    """The state of the latest step under `workdir` as numpy arrays, bit for bit as saved; None where there is none yet.

    `template` (`state.abstract_state`) gives the tree; CheckpointError where the stored parameters do not fit it. A run
    that turns the average on goes on from the stored parameters as the average; one that turns it off drops it.
    """
    if not steps(workdir):
        return None
    folder = find(workdir)
    if 'optimizer' not in items(folder):
        raise CheckpointError(
            f"'{folder}' holds a model without an optimiser's state: give it as config.train.init_from, "
            'and train in another folder'
        )
    params = read_tree(folder, 'params')
    _check_fit(params, template.params, folder / 'params')
    try:
        optimizer = read_tree(folder, 'optimizer', dict(step=template.step, seed=template.seed,
                                                        state=template.opt_state))
    except (ValueError, KeyError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"the optimiser state in '{folder}' does not fit config.train (optimizer, freeze, "
            'clip_norm, bias_lr_factor, lr_factors and weight_decay shape it); keep them, or start anew '
            f'with config.train.init_from: {str(error)[:300]}'
        ) from error
    ema = None
    if template.ema is not None:
        ema = read_tree(folder, 'ema') if _has_average(folder) else jax.tree.map(np.copy, params)
    _warn_of_no_checksums(folder)
    return TrainState(optimizer['step'], optimizer['seed'], params, optimizer['state'], ema)
