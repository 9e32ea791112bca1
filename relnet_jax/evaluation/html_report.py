"""report.html: everything that was measured as one page, readable without a network."""
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import jinja2

from relnet_jax import files
from relnet_jax.evaluation.curve_data import ANY_FINDING
from relnet_jax.evaluation.worst_films import Film

TEMPLATE = 'report.html.jinja'
# Columns of the table of classes: key of metrics.json's per_class -> (name, what it is).
CLASS_COLUMNS = {
    'box_AP': ('box AP', 'COCO, boxes, IoU 0.50 to 0.95'), 'box_AP50': ('box AP50', 'COCO, boxes, IoU 0.50'),
    'mask_AP': ('mask AP', 'COCO, masks, IoU 0.50 to 0.95'), 'mask_AP50': ('mask AP50', 'COCO, masks, IoU 0.50'),
    'voc_AP_0.50': ('VOC 0.50', 'VOC, boxes, IoU 0.50'), 'froc_mean': ('FROC', 'mean sensitivity at 1/8 to 8 false '
                                                                       'positives per film'),
    'chestx_det10_recall_0.20': ('recall at 0.2', 'recall at 0.2 false positives per film, ChestX-Det10'),
    'image_AUC': ('AUC', 'films with the class against films without')}
REASONS = {
    'hit': 'overlaps an object of its class by 0.5 or more, as the first', 'missed': 'nothing was said about it',
    'wrong class': 'overlap of 0.5 or more with an object of another class',
    'poor box': 'right class, overlap above 0.1 but below 0.5',
    'duplicate': 'hits an object that a better detection hit',
    'wrong class, poor box': "touches another class's object by less than 0.5",
    'background': 'overlaps nothing by more than 0.1', 'not counted': 'a crowd or a difficult object'}
FROC_START, FROC_END = 1 / 32, 8.0
TENTHS = [(k / 5, f'{20 * k}') for k in range(6)]       # ticks in per cent


def write(path: str | Path, **what) -> Path:
    """`render` as the file `path`, which is returned."""
    with files.replacing(path) as scratch:
        scratch.write_text(render(**what), encoding='utf-8')
    return Path(path)


def render(*, about: dict, metrics: dict, curves: dict, films: tuple[list[Film], list[Film]],
           headline: Mapping[str, str], not_shares: Collection[str]) -> str:
    """The page as text. `about` is that of `report.describe`, `metrics` of `report.evaluate`, `curves` of `curve_data`,
    `films` of `worst_films`; `headline`: metric -> what it is, `not_shares`: those that are not shown in per cent."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=percent, plain=plain)
    objects = {name: values['objects'] for name, values in metrics['per_class'].items()}
    return environment.get_template(TEMPLATE).render(
        about=about, metrics=metrics, curves=curves, films=films, objects=objects, reasons=REASONS, tenths=TENTHS,
        headline=[(name, meaning, name not in not_shares) for name, meaning in headline.items() if name in metrics],
        class_columns={k: v for k, v in CLASS_COLUMNS.items() if k in metrics},
        class_mean={k: metrics[k] for k in CLASS_COLUMNS if k in metrics}, charts=charts(curves, list(objects)),
        histogram=histogram(curves['scores']), confusion=confusion_rows(**curves['confusion']))


def percent(value: float | None) -> str:
    return '–' if value is None or math.isnan(value) else f'{100 * value:.1f}'


def plain(value: float | None) -> str:
    return '–' if value is None or math.isnan(value) else f'{value:.3g}'


def charts(curves: dict, names: Sequence[str]) -> list[dict]:
    """What the template draws: title, axes, and lines of points (x, y) in 0..1, y upwards; `key` is the position of a
    class in `names`, None for what concerns all."""
    def line(name, x, y, *, say, kind='class', dots=()):
        return dict(name=name, key=names.index(name) if name in names else None, points=list(zip(x, y)), say=say,
                    kind=kind, dots=dots)
    pr = [line(name, c['recall'], c['precision'], say=f'AP {percent(c["AP"])}')
          for name, c in curves['precision_recall'].items()]
    rates = curves['froc_mean']
    froc = [line(name, *_froc_line(c['fp_per_film'], c['sensitivity']), say='') for name, c in curves['froc'].items()]
    froc += [line(label, map(_log_rate, rates['fp_per_film']), rates[key], say='', kind=kind) for label, key, kind in (
        ('mean, all films', 'all_films', 'mean'), ('mean, films without findings', 'normal_films', 'second'))
        if rates[key] and not any(map(math.isnan, rates[key]))]
    roc = [line(name, c['false_positive_rate'], c['sensitivity'], say=f'AUC {percent(c["AUC"])}',
                kind='mean' if name == ANY_FINDING else 'class') for name, c in curves['roc'].items()]
    reliability = [_reliability_line(label, curves[key], kind) for label, key, kind in (
        ('as they are', 'reliability', 'mean'), ('calibrated', 'calibrated', 'second')) if curves[key]]
    film_rates = [(_log_rate(2.0 ** k), f'1/{2 ** -k}' if k < 0 else f'{2 ** k}') for k in range(-5, 4)]
    return [
        dict(title='Precision and recall', x='recall, %', y='precision, %', x_ticks=TENTHS, lines=pr, diagonal=False,
             note=f'boxes, IoU {curves["iou"]:g}, by class'),
        dict(title='FROC', x='false positives per film and class', y='sensitivity, %', x_ticks=film_rates, lines=froc,
             diagonal=False, note=f'IoU {curves["iou"]:g}; false positives counted in all films, or in those without '
                                  'findings'),
        dict(title='ROC of films', x='false positive rate, %', y='sensitivity, %', x_ticks=TENTHS, lines=roc,
             diagonal=True, note='a film has the score of its best detection'),
        dict(title='Reliability', x='score', y='right, %', x_ticks=[(k / 5, f'{k / 5:g}') for k in range(6)],
             lines=reliability, diagonal=True, note='areas of dots: detections in the bin')]


def _log_rate(rate: float) -> float:
    return math.log(rate / FROC_START) / math.log(FROC_END / FROC_START)


def _froc_line(rates: Sequence[float], sensitivity: Sequence[float]) -> tuple[list[float], list[float]]:
    """Steps from FROC_START to FROC_END on a logarithmic axis."""
    before = [value for rate, value in zip(rates, sensitivity) if rate <= FROC_START]
    x, y = [0.0], [before[-1] if before else 0.0]
    for rate, value in zip(rates, sensitivity):
        if FROC_START < rate <= FROC_END:
            x += [_log_rate(rate)] * 2
            y += [y[-1], value]
    return x, y


def _reliability_line(label: str, r: dict, kind: str) -> dict:
    bins = [(score, right, count) for score, right, count in zip(r['score'], r['right'], r['count']) if count]
    most = max((count for *_, count in bins), default=1)
    return dict(name=label, key=None, say=f'ECE {percent(r["ECE"])}', kind=kind,
                points=[(score, right) for score, right, _ in bins],
                dots=[(score, right, math.sqrt(count / most), count) for score, right, count in bins])


def histogram(scores: dict) -> dict:
    """Bars (left edge, right edge, height of right ones, of wrong ones, the numbers), heights in 0..1 as the root."""
    most = max([*scores['right'], *scores['wrong'], 1])
    return dict(most=most, bars=[
        (low, high, math.sqrt(right / most), math.sqrt(wrong / most), right, wrong)
        for low, high, right, wrong in zip(scores['edges'], scores['edges'][1:], scores['right'], scores['wrong'])])


def confusion_rows(names: Sequence[str], counts: Sequence[Sequence[int]]) -> list[dict]:
    """By row: name, total, and cells (count, share of the row, whether it is on the diagonal); rows of zeros too."""
    return [dict(name=name, total=sum(row), cells=[(n, n / max(sum(row), 1), i == j) for j, n in enumerate(row)])
            for i, (name, row) in enumerate(zip([*names, 'nothing there'], counts))]
