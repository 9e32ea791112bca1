"""Numbers of a run as they come: metrics.jsonl, TensorBoard event files, and the progress lines on the screen."""
import datetime
import errno
import json
import os
import shutil
from pathlib import Path

from relnet_jax import files
from relnet_jax.runs.event_file import EventFile

METRICS_FILE = 'metrics.jsonl'
ROOM = 1_000_000        # bytes
THREE_LOSSES = ('loss_cls', 'loss_bbox', 'loss_mask')    # in the lab's order; those of relations follow on a line


def read(workdir: str | Path, *, until: int | None = None) -> list[tuple[str, dict]]:
    """(line as it stands, what it says) of WORKDIR/metrics.jsonl up to the step `until`; [] without the file. What is
    no line of ours is left out: a killed run may have left the last one unfinished."""
    path, found = Path(workdir) / METRICS_FILE, []
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
            if until is None or values['step'] <= until:
                found.append((line, values))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return found


def logged(workdir: str | Path, step: int, split: str) -> bool:
    """Whether there is a line of the split for this step."""
    return any(values['step'] == step and values.get('split') == split for _, values in read(workdir, until=step))


class MetricWriter:
    """Appends one line per `write` to WORKDIR/metrics.jsonl, and the same numbers to WORKDIR/tensorboard.

    A run that goes on from `step` first forgets what was written after it, so that no step is there twice.
    """

    def __init__(self, workdir: str | Path, *, step: int = 0):
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        files.write_text(workdir / METRICS_FILE, ''.join(line + '\n' for line, _ in read(workdir, until=step)))
        self._path = workdir / METRICS_FILE
        self._lines = open(self._path, 'a', encoding='utf-8')
        self._events = EventFile(workdir / 'tensorboard', step=step)

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """`split` is 'train' or 'val'; NaN and infinity become null in the JSON and are no point in TensorBoard."""
        values = files.nulls({name: float(value) for name, value in values.items()})
        try:
            if shutil.disk_usage(self._path.parent).free < ROOM:    # before half a line is written
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._lines.write(json.dumps({'step': step, 'split': split, **values}) + '\n')
            self._lines.flush()
            self._events.write(step, {f'{split}/{name}': v for name, v in values.items() if v is not None})
        except OSError as error:
            error.filename = str(self._path)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self._lines.close()
        self._events.close()


def progress_lines(values: dict[str, float], *, run: str, config_name: str, step: int, steps: int) -> str:
    """The state of a run as the lab's log prints it, plus the RPN losses per level and the speed.

    `values`: the step's metrics with `seconds_per_step`, `images_per_second` and `data_wait` (share of the time) added.
    """
    def row(names):
        return ', '.join(f'{name}: {values[name]:.6f}' for name in names if name in values)

    eta = datetime.timedelta(seconds=round((steps - step) * values['seconds_per_step']))
    rows = [f"loss: {values['loss']:.6f}, lr: {values['lr']:.6f}, time: {values['seconds_per_step']:.6f}, eta: {eta}",
            row(['accuracy_cls']),
            row(THREE_LOSSES),
            row(name for name in values if name.startswith('loss_') and name not in THREE_LOSSES),
            row(['rpn_cls', 'rpn_bbox']),
            row(name for name in values if name.startswith('rpn_cls_')),
            row(name for name in values if name.startswith('rpn_bbox_')),
            f"{values['images_per_second']:.2f} img/s, waiting for data: {100 * values['data_wait']:.0f} %, "
            f"grad_norm: {values['grad_norm']:.4f}"]
    return f'[{run}][{config_name}][Step {step} / {steps}]' + ''.join(f'\n        {r}' for r in rows if r)
