"""Figures of one run: losses over the steps, precision over recall by class, average precision by class."""
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from relnet_jax.evaluation import ranking
from relnet_jax.evaluation.matching import by_overlap, ranked
from relnet_jax.runs.metrics import METRICS_FILE
from relnet_jax.visualize import color

TERMS = ('loss', 'rpn_')    # how the names of losses begin


def read_metrics(workdir: str | Path, split: str = 'train') -> dict:
    """Name -> (steps int [n], values float [n], NaN where undefined) of WORKDIR/metrics.jsonl; `split`: 'train', 'val'.

    Raises FileNotFoundError without the file.
    """
    lines = [json.loads(line) for line in (Path(workdir) / METRICS_FILE).read_text(encoding='utf-8').splitlines()]
    lines = [line for line in lines if line['split'] == split]
    found = {}
    for name in dict.fromkeys(key for line in lines for key in line):
        if name not in ('step', 'split'):
            points = [(line['step'], line[name]) for line in lines if name in line]
            found[name] = (np.array([step for step, _ in points]),
                           np.array([np.nan if value is None else value for _, value in points], float))
    return found


def loss_figure(workdir: str | Path) -> Figure:
    """The whole loss and its terms over the steps, logarithmic, beside accuracy and learning rate."""
    values = read_metrics(workdir)
    # Of what is reported per pyramid level and as a sum, the sum is enough.
    terms = [name for name in values if name.startswith(TERMS) and not name.rpartition('_')[2][1:].isdigit()]
    figure = Figure(figsize=(10, 3.6), layout='constrained')
    left, middle, right = figure.subplots(1, 3, width_ratios=[2, 1, 1])
    for name in terms:
        left.plot(*values[name], label=name, color='black' if name == 'loss' else None,
                  linewidth=2 if name == 'loss' else 1)
    left.set_yscale('log')
    left.set_title('losses')
    left.legend(fontsize=7, ncols=2)
    for axes, name in ((middle, 'accuracy_cls'), (right, 'lr')):
        if name in values:
            axes.plot(*values[name], color='black')
        axes.set_title(name)
    for axes in (left, middle, right):
        axes.set_xlabel('step')
        axes.grid(alpha=0.3)
    return figure


def precision_recall(ground_truth: dict, results: list, *, iou: float = 0.5,
                     convention: str = 'pixel_inclusive') -> dict:
    """Class -> (recall [n], precision [n], AP), the curve behind `voc.voc_metrics`; without classes without objects.

    `ground_truth` is a COCO dict, `results` are COCO result records; the points follow the falling score.
    """
    once, curves = np.ones((1, len(ground_truth['images']))), {}
    for name, looks in by_overlap(ground_truth, results, convention=convention).items():
        of_class = ranked(looks, iou)
        if of_class.objects.any():
            recall, precision, _ = ranking.precision_recall(of_class)
            curves[name] = recall, precision, float(ranking.average_precision(ranking.counts(of_class, once))[0])
    return curves


def precision_recall_figure(ground_truth: dict, results: list, *, iou: float = 0.5) -> Figure:
    """A curve per class, with the classes' average precision (VOC-style, all points) beside it, per cent."""
    curves = precision_recall(ground_truth, results, iou=iou)
    labels = {c['name']: i for i, c in enumerate(ground_truth['categories'], start=1)}
    figure = Figure(figsize=(10, 4.2), layout='constrained')
    left, right = figure.subplots(1, 2)
    names = sorted(curves, key=lambda name: -curves[name][2])
    for y, name in enumerate(names):
        recall, precision, ap = curves[name]
        shade = np.array(color(labels[name])) / 255 * 0.85      # the pictures' colours, dark enough for white paper
        left.plot(recall, precision, color=shade, label=name)
        right.barh(y, 100 * ap, color=shade)
        right.text(100 * ap + 1, y, f'{100 * ap:.1f}', va='center', fontsize=8)
    left.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02), title=f'IoU >= {iou:g}')
    left.grid(alpha=0.3)
    right.set_yticks(range(len(names)), names, fontsize=8)
    right.invert_yaxis()
    right.set(xlabel='average precision, %', xlim=(0, 110))
    return figure
