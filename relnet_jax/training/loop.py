"""A training run from top to bottom. Started again with the same folder it resumes from its last checkpoint."""
import datetime
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from relnet_jax import processes
from relnet_jax.data import familiarity, graph, pipeline
from relnet_jax.data.source import Source
from relnet_jax.detector.devices import on_first, on_own
from relnet_jax.detector.run import detect_source, make_detect
from relnet_jax.evaluation import report
from relnet_jax.evaluation.overlays import overlays
from relnet_jax.interop import load
from relnet_jax.models import mask_rcnn
from relnet_jax.progress import Bar
from relnet_jax.runs import checkpoint, finetune, memory, resume, startup
from relnet_jax.runs import state as train_state
from relnet_jax.runs.fingerprint import fingerprint
from relnet_jax.runs.metrics import MetricWriter, logged, progress_lines
from relnet_jax.runs.state import TrainState
from relnet_jax.runs.step_folder import set_aside_damaged
from relnet_jax.runs.workdir import check_room, held
from relnet_jax.training import optimizer, parallel, phases, story
from relnet_jax.training.phases import Phase
from relnet_jax.training.step import make_train_step
from relnet_jax.training.window import Window

MASK_LOSS_FLOOR = 1e-3      # binary cross-entropy starts at 0.69; this low means a broken mask target, not a good mask


class Running(NamedTuple):
    """A phase and what runs in it."""
    phase: Phase
    tx: optax.GradientTransformation
    step_fn: Callable
    detect_fn: Callable


def train(config: ConfigDict, workdir: str | Path) -> TrainState:
    """Trains as `config` says, in the folder `workdir`, to the end of its last phase; returns the last state.

    Writes checkpoints, metrics.jsonl, tensorboard and, at the end, eval/ (report and overlays). The parameters are a
    function of the config alone, however often the run was killed and started again, and so is metrics.jsonl but for
    its times. After its first step SIGTERM or SIGINT saves and stops.
    Raises window.NonFiniteLoss (no checkpoint of the bad state is written), UserError if another process trains in the
    folder, CheckpointError for a save that failed, memory.OutOfMemory, and what the parts raise.
    """
    workdir = Path(workdir).absolute()
    startup.use_compilation_cache()
    startup.quiet_libraries()
    startup.log_devices()
    mesh = parallel.make_mesh()
    parallel.check_divisible(config.train.batch_size, mesh.size, config.train.accumulate)
    with (held(workdir) if processes.is_first() else nullcontext(), memory.told(memory.training_remedies(config))):
        return train_alone(config, workdir, mesh)


def train_alone(config: ConfigDict, workdir: Path, mesh: Mesh) -> TrainState:
    """`train` in a folder that no other process trains in."""
    t = config.train
    how = parallel.choose(t.parallel)
    first_process = processes.is_first()

    # ---- input ----
    source, val = pipeline.open_sources(config)
    for line in story.data_lines(source, val):
        logging.info('%s', line)
    class_table = {key: getattr(source, key) for key in checkpoint.CLASS_TABLE}
    data = fingerprint(config, source, val)
    adjacency = graph.class_graph(source, config, workdir=workdir if first_process else None)
    if adjacency is not None:
        class_table[checkpoint.GRAPH] = adjacency
    films = processes.from_first(lambda: familiarity.of_source(source, config))

    # ---- model, phases and their optimisers ----
    plan = phases.plan(config)
    phases.log_plan(plan, config)
    steps = plan[-1].last
    model = mask_rcnn.build(config, num_classes=len(source.classes) + 1, adjacency=adjacency)
    shapes = train_state.batch_shapes(config, 1, len(source.parts))
    params_like = train_state.abstract_params(model, shapes)

    def prepare(phase: Phase) -> Running:
        own = mask_rcnn.build(phase.config, num_classes=len(source.classes) + 1, adjacency=adjacency)
        phase = phases.without_idle(phase, params_like, train_state.abstract_params(own, shapes))
        tx = optimizer.make_optimizer(phase.config, params_like)
        body = make_train_step(own, tx, phase.config, begin=phase.begin, axis_name=parallel.AXIS)
        for line in story.model_lines(phase.config, params_like):
            logging.info('%s', line)
        step_fn = parallel.parallel_step(body, mesh, parallel=how)
        return Running(phase, tx, step_fn, make_detect(own, jax.local_devices()))

    # ---- restore: 1. resume this run; 2. else start from another; 3. else from scratch ----
    if first_process:
        set_aside_damaged(workdir)
    startup.meet('checkpoints')
    position = phases.at(plan, max(checkpoint.steps(workdir), default=0))
    now = prepare(plan[position])
    like = train_state.abstract_state(model, now.tx, config, shapes)
    state, since_log = checkpoint.restore_latest(workdir, like), ()
    if state is not None:
        since_log = resume.check(workdir, config, class_table, data)
        state = state._replace(seed=np.uint32(config.seed))
        logging.info('resuming from step %d in %s', state.step, workdir)
    else:
        startup.log_compilation('the initial state')
        state = train_state.init_state(model, now.tx, config, shapes)
        if other := t.plain_from.replace('{seed}', str(config.seed)) or t.init_from:
            strict = t.init_strict and not t.plain_from     # relations are new by nature
            params = jax.device_get(state.params)
            params = (load.start_from_weights(params, other, config, source.classes) if Path(other).is_file() else
                      finetune.start_from_run(params, other, class_table=class_table, strict=strict))
            state = train_state.start(params, now.tx, seed=config.seed, ema=t.ema > 0)
    first_step = int(state.step)
    if first_process and first_step < steps:
        check_room(workdir, checkpoint.state_bytes(like), keep=t.keep)
    state = parallel.replicate(state, mesh)

    # ---- loop ----
    rows = parallel.own_rows(t.batch_size, mesh)
    batches = pipeline.train_batches(source, config, batch_size=t.batch_size, rows=rows, start_step=first_step,
                                     seed=config.seed)
    window, timed = Window(source, batch_size=t.batch_size, since_log=since_log), False
    unevaluated = evaluation_due(first_step, now.phase, config) and not logged(workdir, first_step, 'val')
    with (checkpoint.make_manager(workdir, keep=t.keep, best=t.best) as manager,
          MetricWriter(workdir, step=first_step) if first_process else nullcontext() as writer,
          Bar(workdir.name if first_process else '', total=steps, done=first_step, unit='step', lines=False) as bar,
          ExitStack() as listening):

        def measure(step: int) -> dict[str, float] | None:
            if step == steps:
                bar.close()         # the report is printed below it
            with memory.told(memory.detection_remedies(config)):
                scores = evaluate(now.detect_fn, state, val, config, step=step, workdir=workdir, final=step == steps)
            if first_process and scores and not logged(workdir, step, 'val'):
                writer.write(step, 'val', scores)
            return scores

        if first_step >= steps:
            logging.info('all %d steps were done before; evaluating again', steps)
        if first_step >= steps or unevaluated:      # the evaluation did not come to its end
            measure(first_step)
        for step in range(first_step + 1, steps + 1):
            if step > now.phase.last:
                position += 1
                before, now = now.phase, prepare(plan[position])
                state = jax.device_get(on_first(state))
                state = parallel.replicate(phases.enter(state, before, now.phase, now.tx), mesh)
                window.restart()
            # The step runs on the device while the host reads on and copies the next batch: `train_step` does not wait.
            batch = window.read(batches)
            placed = parallel.place_batch(batch, mesh, parallel=how)
            if step in (first_step + 1, now.phase.first):
                startup.log_compilation('the training step')
                train_step = startup.compile_ahead(now.step_fn, state, placed)
                memory.log_need(train_step, state, now.phase.config)
            with jax.transfer_guard('disallow'):
                state, metrics = train_step(state, placed)
            window.add(step, batch.image_index, metrics)
            if step in (first_step + 1, now.phase.first):
                logging.info('step %d, with compilation: %.1f s', step, window.discard())
            if step == first_step + 1:      # before, a signal may end the process: there is nothing to save
                stop = listening.enter_context(stop_signal())
            bar.advance()

            last, stopping = step == now.phase.last, stop(step)
            evaluating = not stopping and evaluation_due(step, now.phase, config)
            if step % t.log_every == 0 or last:
                values = window.means()
                warn_of_mask_loss(step, values)
                checkpoint.check_written(manager)
                if first_process:
                    writer.write(step, 'train', values)
                    bar.say(progress_lines(values, run=workdir.name, config_name=name_of(config, now.phase), step=step,
                                           steps=steps),
                            line=story.step_line(values, step=step, steps=steps), note=f"loss {values['loss']:.3f}")
                if not timed and first_step + 1 < step < steps:
                    timed = True
                    logging.info('%s', story.time_line(values['seconds_per_step'], left=steps - step,
                                                       now=datetime.datetime.now()))
            if evaluating or last or stopping or step % t.checkpoint_every == 0:
                window.check(state.params)      # what is not finite must not become a checkpoint
                scores = None
                try:
                    if evaluating:
                        scores = measure(step)
                        if now.phase.plain:     # another model's: not to be compared for the best step
                            scores = None
                finally:            # an evaluation that fails costs no training
                    checkpoint.save(manager, state, config=config, class_table=class_table, metrics=scores, data=data,
                                    films=films, loss=window.loss_since_save(), window=window.since_log)
                window.restart()
            if stopping:
                logging.info('stopped at step %d of %d; the same command resumes it', step, steps)
                break
    return state


# ---- pieces of the loop ----
def evaluate(detect_fn: Callable, state: TrainState, val: Source, config: ConfigDict, *, step: int, workdir: Path,
             final: bool) -> dict[str, float] | None:
    """Metrics of `report.evaluate` of all classes together, by the averaged parameters if any; None without images.

    `final` also prints the report and writes WORKDIR/eval. Several processes divide the images among them, and process
    0 measures.
    """
    if not len(val):
        logging.warning('%s has no images: nothing to evaluate', val.name)
        return None
    params = on_own(state.params if state.ema is None else state.ema)
    results = detect_source(detect_fn, params, val, config, progress=f'evaluation at step {step}')

    def measure() -> dict[str, float]:
        truth = val.ground_truth()
        if final:
            metrics = report.full_report(workdir / 'eval', val, truth, results, config,
                                         checkpoint=f'{workdir.name}, step {step}')
            overlays(val, results, workdir / 'eval' / 'overlays', config=config)
        else:
            metrics = report.evaluate(truth, results)
        scores = {k: float(v) for k, v in metrics.items() if k not in ('per_class', 'intervals')}
        if not final:       # the report has them
            logging.info('step %d, %s: %s', step, val.name,
                         ', '.join(f'{k} {scores[k]:.4f}' for k in report.HEADLINE if k in scores))
        return scores
    return processes.from_first(measure)


def evaluation_due(step: int, phase: Phase, config: ConfigDict) -> bool:
    return step > 0 and (step == phase.last or config.train.eval_every > 0 and step % config.train.eval_every == 0)


def name_of(config: ConfigDict, phase: Phase) -> str:
    return f'{config.name}: {phase.name}' if phase.name else config.name


def warn_of_mask_loss(step: int, values: dict[str, float]) -> None:
    """`values`: means over a window, as from `Window.means`."""
    if values.get('mask_rois', 0) > 0 and values['loss_mask'] < MASK_LOSS_FLOOR:
        logging.warning('step %d: the mask loss is %.2g although %.1f RoIs a step have masks; are the masks empty?',
                        step, values['loss_mask'], values['mask_rois'])


@contextmanager
def stop_signal() -> Iterator[Callable[[int], bool]]:
    """Function: whether to stop after this step, since SIGTERM or SIGINT came; at a second SIGINT (with one process
    also a second SIGTERM) KeyboardInterrupt is raised. Signals are left alone outside the main thread.

    Of several processes one signal is enough: JAX notes SIGTERM, which SIGINT is passed on as, tells the others, and
    finds a step that none of them has passed.
    """
    stop, together = threading.Event(), jax.process_count() > 1

    def stops(step: int) -> bool:
        return multihost_utils.reached_preemption_sync_point(step) if together else stop.is_set()

    if threading.current_thread() is not threading.main_thread():
        yield stops
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)[:1 if together else 2]}

    def handle(number, frame):
        if stop.is_set():
            raise KeyboardInterrupt
        logging.warning('%s: saving after %s', signal.Signals(number).name, 'one of the next steps' if together else
                        'this step')
        stop.set()
        if together:
            os.kill(os.getpid(), signal.SIGTERM)

    for number in before:
        signal.signal(number, handle)
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
