"""What the log of a training run says in words: its data, its model, how long it takes, and at the end what to open."""
import datetime
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from relnet_jax import files
from relnet_jax.data.issues import listed
from relnet_jax.data.source import Source
from relnet_jax.training import optimizer

USAGE = 'docs/usage.md'
HEADLINE = {'box_AP50': 'box AP50', 'mask_AP50': 'mask AP50'}
UNITS = (('day', 86_400), ('hour', 3600), ('minute', 60), ('second', 1))


def data_lines(train: Source, val: Source) -> list[str]:
    """How many images to train and to measure on, and what there is to find in them. Objects are counted where
    annotations were read; to count those of the phantom, every image would have to be drawn, which takes seconds."""
    def told(source: Source, to: str) -> str:
        objects = f' with {source.object_count} objects' if source.counts else ''
        return f'{len(source)} images{objects} to {to} ({source.name})'
    measured = told(val, 'measure on') if len(val) else 'none to measure on'
    parts = [f'{len(train.parts)} anatomical parts: {listed(train.parts)}'] * bool(train.parts)
    return [f'data: {told(train, "train on")}, {measured}',
            '; '.join([f'{len(train.classes)} classes to find: {listed(train.classes)}', *parts])]


def model_lines(config: ConfigDict, params: Any) -> list[str]:
    """What is trained, and its size; the learning rate with its scaling. params: arrays or their shapes."""
    m, t = config.model, config.train
    sizes = [p.size for p in jax.tree.leaves(params)]
    moves = jax.tree.leaves(optimizer.trainable(params, config))
    parameters, trained = sum(sizes), sum(size for size, move in zip(sizes, moves) if move)
    heads = 'boxes and masks' if m.mask_head else 'boxes alone'
    relations = f'relations {", ".join(m.relations)}' if m.relations else 'no relations'
    moving = 'all' if trained == parameters else f'{trained / 1e6:.2f} M'
    return [f'model: backbone {m.backbone}, neck {m.neck}, {heads}, {relations}; {parameters / 1e6:.2f} M parameters, '
            f'{moving} of them trained',
            f'learning rate {optimizer.base_learning_rate(config):g} = {t.learning_rate:g} x batch size '
            f'{t.batch_size} / {t.base_batch_size}']


def step_line(values: Mapping[str, float], *, step: int, steps: int) -> str:
    """`runs.metrics.progress_lines` in one line, for a terminal."""
    terms = [f'{word} {values[name]:.3f}' for name, word in
             (('loss_cls', 'classes'), ('loss_bbox', 'boxes'), ('loss_mask', 'masks')) if name in values]
    left = datetime.timedelta(seconds=round((steps - step) * values['seconds_per_step']))
    return (f"step {step} of {steps}: loss {values['loss']:.3f} ({', '.join(terms)}), "
            f"{values['images_per_second']:.1f} images/s, {left} left")


def time_line(seconds_per_step: float, *, left: int, now: datetime.datetime) -> str:
    """How long the `left` steps will take, told once the first ones are timed."""
    seconds = left * seconds_per_step
    end = now + datetime.timedelta(seconds=seconds)
    when = end.strftime('%H:%M' if end.date() == now.date() else '%Y-%m-%d %H:%M')
    return (f'a step takes {seconds_per_step:.2g} s, so the {left} steps left take about {in_words(seconds)}, until '
            f'{when}; evaluation comes on top')


def in_words(seconds: float) -> str:
    """'3 minutes', '1.5 hours', '40 seconds': two digits of the largest unit that fits."""
    name, size = next((unit for unit in UNITS if seconds >= unit[1]), UNITS[-1])
    count = seconds / size
    text = f'{count:.0f}' if count >= 9.5 or size <= 60 else f'{count:.1f}'.removesuffix('.0')
    return f'{text} {name}' + 's' * (text != '1')


def ending(workdir: Path) -> list[str]:
    """The last lines of a finished run: what was found, where everything is, what to open and to try next."""
    run, evaluation = shlex.quote(shown(workdir)), workdir / 'eval'
    written = f'written to {shown(workdir)}: checkpoints, metrics.jsonl, tensorboard'
    predict = f'python -m relnet_jax.predict --ckpt={run} --images=FILM --out=found'
    if not (evaluation / 'metrics.json').exists():
        return [written, f'no validation images, so nothing was measured; try next: {predict} (more in {USAGE})']
    measured = files.read_json(evaluation / 'metrics.json')
    return [found_line(measured['about'], measured['metrics']),
            f'{written}, and in {shown(evaluation)} the report, detections.json and, film by film, truth beside '
            'prediction in overlays',
            f'to measure it again, with other settings: python -m relnet_jax.eval --ckpt={run}',
            f'open {shown(evaluation / "report.html")}; try next: {predict}, or your own data ({USAGE})']


def found_line(about: Mapping, metrics: Mapping) -> str:
    """The headline numbers of a metrics.json, in per cent, with intervals where it has them."""
    def told(name: str) -> str:
        low, high = (metrics.get('intervals') or {}).get(name) or (None, None)
        between = '' if _undefined(low) else f' (95 % interval {100 * low:.1f} to {100 * high:.1f})'
        value = 'not defined' if _undefined(metrics[name]) else f'{100 * metrics[name]:.1f}'
        return f'{HEADLINE[name]} {value}{between}'
    synthetic = ', all synthetic' if about['synthetic'] else ''
    return (f"found in {about['images']} validation images with {about['objects']} objects{synthetic}: "
            + ', '.join(told(name) for name in HEADLINE if name in metrics))


def _undefined(value: float | None) -> bool:
    return value is None or math.isnan(value)


def shown(path: Path) -> str:
    """The path from the working directory if it lies in there."""
    folder = Path.cwd()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
