"""Checkpoints that need nothing else to be read: parameters, optimiser, config and class table, written at once.

WORKDIR/checkpoints/STEP/ holds the items `params`, `ema` (where the run keeps an average), `optimizer` (its state and
the step), `config` and `classes` (JSON; the latter also holds the class graph, if the model has one), `films` (JSON:
how the training films look as a whole, where that is known) and `metrics` (JSON, empty where the step was not
evaluated). Orbax writes under a temporary name and renames at the end, so that a killed run leaves whole checkpoints or
none; a folder with a plain number for a name is complete.
"""
import difflib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import preservation_policy

from relnet_jax import config as config_lib
from relnet_jax import files
from relnet_jax.data.source import CLASS_TABLE
from relnet_jax.errors import UserError
from relnet_jax.runs.state import TrainState
from relnet_jax.trees import path_name

FOLDER = 'checkpoints'
GRAPH = 'graph'     # in the class table of a model that reasons over classes


class CheckpointError(UserError):
    """A checkpoint is missing, incomplete, or does not fit what it is to be loaded into."""


def make_manager(workdir: str | Path, *, keep: int, best: str) -> ocp.CheckpointManager:
    """Asynchronous writer of WORKDIR/checkpoints, which keeps the last `keep` steps and the one with the highest metric
    `best`. Use it in a `with`, or call `close`, so that the last save is finished. What a killed run left half
    written is removed."""
    def score(metrics):
        value = metrics.get(best)
        return -np.inf if value is None else value

    policy = preservation_policy.AnyPreservationPolicy(
        [preservation_policy.LatestN(keep), preservation_policy.BestN(n=1, get_metric_fn=score)])
    # best_fn makes Orbax store the metrics and read them again after a restart; the policy decides what is kept.
    options = ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=score, cleanup_tmp_directories=True)
    return ocp.CheckpointManager(Path(workdir).absolute() / FOLDER, options=options)


def save(manager: ocp.CheckpointManager, state: TrainState, *, config: ConfigDict, class_table: dict,
         metrics: dict[str, float] | None = None, films: dict | None = None) -> None:
    """Begins to write `state` under its step; returns once the arrays are copied off the devices.

    `class_table` holds `classes`, `category_ids`, `parts` and, if the model has one, `graph` (see data/graph.py);
    `metrics` are those of an evaluation at this step, and config.train.best among them decides which step is the best;
    undefined ones (NaN) are stored as null. `films` is what `data.familiarity` measured, if anything. A step that is
    already there is left as it is.
    """
    step = int(jax.device_get(state.step))
    if step in manager.all_steps():
        return
    if metrics is not None and config.train.best not in metrics:
        logging.warning("config.train.best: the evaluation gives no '%s', so no step is kept as the best; it gives %s",
                        config.train.best, ', '.join(metrics))
    items = _model_items(state.params, config, class_table)
    items['optimizer'] = ocp.args.PyTreeSave(dict(step=state.step, seed=state.seed, state=state.opt_state))
    if state.ema is not None:
        items['ema'] = ocp.args.PyTreeSave(state.ema)
    if films is not None:
        items['films'] = ocp.args.JsonSave(films)
    metrics = files.nulls({name: float(value) for name, value in (metrics or {}).items()})
    manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)


def _model_items(params: Any, config: ConfigDict, class_table: dict) -> dict:
    """What a detector is rebuilt from."""
    return dict(params=ocp.args.PyTreeSave(params), config=ocp.args.JsonSave(json.loads(config_lib.to_json(config))),
                classes=ocp.args.JsonSave({k: list(v) for k, v in class_table.items() if k in (*CLASS_TABLE, GRAPH)}))


def save_model(workdir: str | Path, params: Any, *, config: ConfigDict, class_table: dict) -> None:
    """Writes WORKDIR/checkpoints/0 with what evaluation, prediction and `init_from` need; no run goes on from it."""
    with ocp.CheckpointManager(Path(workdir).absolute() / FOLDER) as manager:
        manager.save(0, args=ocp.args.Composite(**_model_items(params, config, class_table)))


def steps(workdir: str | Path) -> list[int]:
    """Steps with a finished checkpoint under WORKDIR/checkpoints, ascending."""
    folder = Path(workdir) / FOLDER
    return sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdigit()) if folder.is_dir() else []


def find(ckpt: str | Path) -> Path:
    """The step folder that `ckpt` means: a step folder itself; or the latest step of a workdir or of its checkpoints
    folder; or, with `best` as the last part of the path, the step whose stored config.train.best is highest.

    Raises CheckpointError where nothing is found, saying what is there instead.
    """
    path = Path(ckpt).expanduser().absolute()
    if path.name == 'best' and not path.exists():
        return _best(path.parent)
    if not path.is_dir():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob('*/')], 1)
        hint = f", did you mean '{path.parent / near[0]}'?" if near else ''
        raise CheckpointError(f"no checkpoint folder '{path}'{hint}")
    if path.name.isdigit() and not (path / FOLDER).exists():
        missing = [k for k in ('params', 'config', 'classes') if not (path / k).is_dir()]
        if missing:
            raise CheckpointError(f"'{path}' is not a complete checkpoint: {', '.join(missing)} missing")
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
        folder = find(workdir / FOLDER / str(step))
        scored = (folder / 'metrics').is_dir()      # not what `save_model` wrote
        value = _read_json(folder, 'metrics').get(read_config(folder).train.best) if scored else None
        if value is not None:
            scores[folder] = value
    if not scores:
        raise CheckpointError(f"no step in '{path}' was evaluated, so none is the best")
    return max(scores, key=scores.get)


def _read_json(step_folder: Path, item: str) -> dict:
    filename = 'metrics' if item == 'metrics' else None     # as the CheckpointManager names it; None: Orbax's default
    return ocp.JsonCheckpointHandler(filename=filename).restore(step_folder / item)


def read_config(ckpt: str | Path) -> ConfigDict:
    """The locked config that the checkpoint was trained with. `ckpt` as for `find`."""
    return config_lib.from_json(json.dumps(_read_json(find(ckpt), 'config')))


def read_class_table(ckpt: str | Path) -> dict:
    """`classes` (names in label order), `category_ids` (the data set's own) and `parts` (names), all tuples; `graph`,
    K rows of K floats with the background first, if the model has one."""
    table = {k: tuple(v) for k, v in _read_json(find(ckpt), 'classes').items()}
    return table | {GRAPH: tuple(map(tuple, table[GRAPH]))} if GRAPH in table else table


def read_films(ckpt: str | Path) -> dict | None:
    """How the training films look as a whole, for `data.familiarity.distance`; None where it is not known."""
    folder = find(ckpt)
    return _read_json(folder, 'films') if (folder / 'films').is_dir() else None


# Keys that change neither the parameters nor what they are trained on.
HARMLESS = ('name', 'data.threads', 'data.prefetch', 'data.cache', 'train.log_every', 'train.eval_every',
            'train.checkpoint_every', 'train.keep', 'train.best', 'train.parallel', 'train.accumulate')


def config_changes(stored: ConfigDict, now: ConfigDict) -> list[str]:
    """Lines 'train.learning_rate: 0.02 -> 0.01' for every key that differs and may change how a run goes on."""
    before, after = config_lib.flat(stored), config_lib.flat(config_lib.from_json(config_lib.to_json(now)))
    return [f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key) and key not in HARMLESS and not key.startswith('test.')]


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


def _restore(folder: Path, template: Any = None) -> Any:
    """Item `folder` as numpy arrays; with a template also in its tree type (named tuples of optax)."""
    reader = ocp.PyTreeCheckpointHandler()
    if template is None:
        template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), reader.metadata(folder).tree,
                                is_leaf=lambda node: hasattr(node, 'dtype'))
    as_numpy = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), template)
    return reader.restore(folder, args=ocp.args.PyTreeRestore(item=template, restore_args=as_numpy))


def load_params(ckpt: str | Path, template: Any = None) -> Any:
    """Parameters as numpy arrays, the averaged ones where the run kept an average. `ckpt` as for `find`.

    With a `template` (arrays or shapes) the tree is checked first: CheckpointError lists paths and shapes that differ.
    """
    folder = find(ckpt)
    item = 'ema' if (folder / 'ema').is_dir() else 'params'
    params = _restore(folder / item)
    if template is not None:
        _check_fit(params, template, folder / item)
    logging.info('loaded %s of step %s from %s', 'averaged parameters' if item == 'ema' else 'parameters', folder.name,
                 folder.parent.parent)
    return params


def restore_latest(workdir: str | Path, template: TrainState) -> TrainState | None:
    """The state of the latest step under `workdir` as numpy arrays, bit for bit as saved; None where there is none yet.

    `template` (`state.abstract_state`) gives the tree; CheckpointError where the stored parameters do not fit it. A run
    that turns the average on goes on from the stored parameters as the average; one that turns it off drops it.
    """
    if not steps(workdir):
        return None
    folder = find(workdir)
    if not (folder / 'optimizer').is_dir():
        raise CheckpointError(
            f"'{folder}' holds a model without an optimiser's state: give it as config.train.init_from, "
            'and train in another folder'
        )
    params = _restore(folder / 'params')
    _check_fit(params, template.params, folder / 'params')
    try:
        optimizer = _restore(
            folder / 'optimizer', dict(step=template.step, seed=template.seed, state=template.opt_state)
        )
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"the optimiser state in '{folder}' does not fit config.train (optimizer, freeze, "
            'clip_norm, bias_lr_factor, lr_factors and weight_decay shape it); keep them, or start anew '
            f'with config.train.init_from: {str(error)[:300]}'
        ) from error
    ema = None
    if template.ema is not None:
        ema = _restore(folder / 'ema') if (folder / 'ema').is_dir() else jax.tree.map(np.copy, params)
    return TrainState(optimizer['step'], optimizer['seed'], params, optimizer['state'], ema)
