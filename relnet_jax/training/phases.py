"""A run in phases: at exact steps of one run, other parameters freeze or other numbers of RoIs are sampled.

    config.train.phases = (dict(name='original', steps=96_000, plain=True),
                           dict(name='retrain', steps=54_999),
                           dict(name='keep', steps=41_000, freeze=('box_head/', 'box_predictor/'), rois=128))

An entry's keys: `name` and `steps`; and where the phase differs from the run, `freeze` (patterns beside those of
config.train.freeze), `rois` (in place of config.train.rois), `lr_factor` (on config.train.learning_rate) and `plain`.

* Plain phases come first and train the detector without relations and cascade: what only those have stays as drawn.
  What follows is a fine-tuning, as if started with `init_from` the plain detector: it begins with the averaged
  parameters if the run keeps an average, with a new optimiser state, and with a learning-rate schedule of its own. With
  config.train.plain_from, a run that has been there before, they are left out ('{seed}' in it stands for config.seed).
* Other phases share one learning-rate schedule, and the optimiser's memory passes from one to the next; that of a
  parameter which freezes is dropped, that of one which thaws starts at zero.

config.train.steps is the length of the run without its plain phases. Where it is not the sum of those phases, all
phases are stretched alike; so does config.scale_schedule, which also scales the warm-up. Every phase keeps at least
one step. A phase is a compilation of its own; steps and random numbers are counted through the whole run.
"""
import difflib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax
from absl import logging
from ml_collections import ConfigDict

from relnet_jax.errors import UserError
from relnet_jax.runs.state import TrainState, start
from relnet_jax.trees import path_name, path_names

KEYS = ('name', 'steps', 'freeze', 'rois', 'lr_factor', 'plain')
LONG_WARMUP = 0.25      # share of a run


class Phase(NamedTuple):
    """Updates `first` to `last` of a run, counted from 1."""
    name: str
    first: int
    last: int
    begin: int          # updates done when the phase's learning-rate schedule began
    plain: bool
    config: ConfigDict  # the run's, changed to what holds in this phase; its train.steps is the schedule's length


def check(entries: Sequence[dict]) -> None:
    """Raises ValueError, naming the entry, unless config.train.phases is as the module's docstring says."""
    names = [entry.get('name') for entry in entries]
    for i, entry in enumerate(entries):
        where = f'config.train.phases[{i}]'
        for key in entry:
            if key not in KEYS:
                near = difflib.get_close_matches(str(key), KEYS, 1)
                raise UserError(f"{where}: no key '{key}'" + (f", did you mean '{near[0]}'?" if near else
                                                               f'; it has {", ".join(KEYS)}'))
        if not names[i] or names.count(names[i]) > 1:
            raise UserError(f'{where}: expected a name of its own, got {names}')
        if not isinstance(entry.get('steps'), int) or entry['steps'] < 1:
            raise UserError(f"{where}: expected steps of 1 or more, got {entry.get('steps')}")
        if entry.get('plain') and i and not entries[i - 1].get('plain'):
            raise UserError(f'{where}: a plain phase comes before all others, got {names}')
    if entries and entries[-1].get('plain'):
        raise UserError(f"config.train.phases: expected a phase after the plain ones, got {names}; a run without "
                         'relations is a config without relations')


def stretched(lengths: Sequence[int], factor: float) -> list[int]:
    """Ends of consecutive parts of these lengths, all times `factor`, at least one step each."""
    ends, exact = [0], 0
    for length in lengths:
        exact += length
        ends.append(max(ends[-1] + 1, round(exact * factor)))
    return ends[1:]


def plan(config: ConfigDict) -> tuple[Phase, ...]:
    """The phases of a run in order, the last one ending with the run. Raises ValueError as `check` does."""
    t = config.train
    if t.steps < 1 or config.scale_schedule <= 0:
        raise UserError('expected config.train.steps of 1 or more and a positive config.scale_schedule, got '
                         f'{t.steps} and {config.scale_schedule}')
    entries = [dict(entry) for entry in t.phases] or [dict(name='', steps=t.steps)]
    if t.phases:
        check(entries)
    plain = [entry for entry in entries if entry.get('plain')]
    main = [entry for entry in entries if not entry.get('plain')]
    if t.plain_from:
        if not plain:
            raise UserError(
                f"config.train.plain_from: '{t.plain_from}' stands for plain phases, but config.train.phases "
                'has none; did you mean config.train.init_from?'
            )
        plain = []
    factor = config.scale_schedule * t.steps / sum(entry['steps'] for entry in main)
    phases, begin = [], 0
    for schedule in (plain, main):
        ends = stretched([entry['steps'] for entry in schedule], factor)
        for entry, before, end in zip(schedule, [0, *ends], ends):
            phases.append(Phase(entry['name'], begin + before + 1, begin + end, begin, bool(entry.get('plain')),
                                _phase_config(config, entry, ends[-1])))
        begin += ends[-1] if ends else 0
    return tuple(phases)


def _phase_config(config: ConfigDict, entry: dict, steps: int) -> ConfigDict:
    c = config.copy_and_resolve_references()
    with c.unlocked():
        if c.train.warmup_steps:
            c.train.warmup_steps = max(1, round(c.train.warmup_steps * c.scale_schedule))
        c.train.steps, c.train.phases, c.scale_schedule = steps, (), 1.0
        c.train.freeze = (*c.train.freeze, *entry.get('freeze', ()))
        c.train.rois = entry.get('rois', c.train.rois)
        c.train.learning_rate *= entry.get('lr_factor', 1.0)
        if entry.get('plain'):
            c.model.relations, c.model.cascade, c.model.anatomy_head = (), (), False
    return c.lock()


def total_steps(config: ConfigDict) -> int:
    """Number of updates of the whole run, plain phases included."""
    return plan(config)[-1].last


def at(phases: Sequence[Phase], step: int) -> int:
    """Position of the phase that makes update `step`; 0 is before the first one, and beyond the end is the last's."""
    return next((i for i, phase in enumerate(phases) if step <= phase.last), len(phases) - 1)


def without_idle(phase: Phase, params: Any, own_params: Any) -> Phase:
    """The phase with every parameter of the run frozen that its own model lacks. Trees of arrays or shapes."""
    own = set(path_names(own_params))
    idle = tuple(re.escape(name) + '$' for name in path_names(params) if name not in own)
    config = phase.config.copy_and_resolve_references()
    with config.unlocked():
        config.train.freeze = (*config.train.freeze, *idle)
    return phase._replace(config=config.lock())


def carry_over(old: Any, new: Any) -> Any:
    """The optimiser state `new` with every leaf that `old` holds too (same path and shape) taken from there."""
    have = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(old)}

    def pick(path, leaf):
        found = have.get(path_name(path))
        return found if found is not None and found.shape == leaf.shape else leaf
    return jax.tree_util.tree_map_with_path(pick, new)


def enter(state: TrainState, before: Phase, after: Phase, tx: optax.GradientTransformation) -> TrainState:
    """The state at the end of phase `before` as phase `after` with its optimiser `tx` goes on from it."""
    if before.begin == after.begin:
        return state._replace(opt_state=carry_over(state.opt_state, tx.init(state.params)))
    params = state.params if state.ema is None else state.ema
    return start(params, tx, seed=state.seed, ema=state.ema is not None)._replace(step=state.step)


def log_plan(phases: Sequence[Phase], config: ConfigDict) -> None:
    """One line for each phase, and how the published schedule was scaled; warns of a warm-up of most of a run."""
    if config.scale_schedule != 1:
        logging.info('config.scale_schedule: every phase, and the warm-up, is %g times as long as published',
                     config.scale_schedule)
    for phase in phases:
        if phase.name:
            logging.info("phase '%s': steps %d to %d%s, %d RoIs%s", phase.name, phase.first, phase.last,
                         ', without relations' if phase.plain else '', phase.config.train.rois,
                         ', frozen: ' + ', '.join(phase.config.train.freeze) if phase.config.train.freeze else '')
    logging.info('to do: %d steps of %d images', phases[-1].last, config.train.batch_size)
    warmup, steps = phases[0].config.train.warmup_steps, phases[0].config.train.steps
    if warmup > LONG_WARMUP * steps:
        logging.warning('the learning rate warms up over %d of %d steps; config.train.steps leaves '
                        'config.train.warmup_steps as it is, config.scale_schedule shortens both', warmup, steps)
