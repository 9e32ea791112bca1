"""Result files -> rows with means and paired differences -> Markdown, CSV and JSON."""
import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from relnet_jax import files
from relnet_jax.ablation.results import METRICS, run_config
from relnet_jax.ablation.statistics import Interval, interval, paired_difference

TITLES = {'box_AP50': 'box AP50', 'mask_AP50': 'mask AP50', 'voc_AP_0.50': 'VOC AP at 0.50',
          'voc_AP_0.01': 'VOC AP at 0.01', 'box_AP': 'box AP'}
CONTROLS = ('original', 'ten', 'base', 'no_relation', 'base_cascade')   # what others of the same neck are compared with
OF_RELATIONS = ('model.relation', 'model.fusion', 'model.boxes_from', 'model.scores_from', 'model.parts',
                'model.anatomy_head')
LAB_NOTE = ('The lab\'s columns are copied from its own log, measured on its private films with its own evaluation: '
            'compare them with each other, not with ours.')
HOW_TO_READ = ('In per cent: the mean over seeds ± half of its 95 % t interval. Differences are of box AP50, paired by '
               'seed; bold: the interval excludes 0. Intervals are not corrected for the number of runs.')
AT_BOXES = '`original@16` is `original` at 16 test boxes.'      # of a control tested at more than its own number
SYNTHETIC = '**Phantom: synthetic images. These numbers say nothing about patients.**'


class LabRun(NamedTuple):
    """What is known of a run before it has run."""
    description: str
    section: str        # of the lab's log, 'A' to 'F'; '' for runs it does not have
    map50: str = ''     # the lab's figures as logged, per cent; '' where it logged none
    map1: str = ''


class Row(NamedTuple):
    """One run of a table. Metrics in 0..1."""
    run: str
    text: LabRun
    control: str                # the run it is compared with; '' for controls and where there is none
    control_boxes: int          # the number of test boxes at which the control is taken; 0 = its own
    seeds: tuple[int, ...]
    means: dict                 # metric -> Interval
    differences: dict           # metric -> Interval of run - control, by seed; empty without a control
    classes: dict               # class -> Interval of its box AP50
    boxes: dict                 # number of test boxes -> Interval of box AP50, ascending; the run's own number included
    values: dict                # metric -> {seed: value or None}

    @property
    def compared_with(self) -> str:
        """'original', 'original@16' where it is taken at 16 test boxes, '' without a control."""
        return f'{self.control}@{self.control_boxes}' if self.control_boxes else self.control


def make_rows(results: list[dict], texts: dict, *, controls: tuple[str, ...] = CONTROLS) -> list[Row]:
    """Rows in the order of `texts` (run -> LabRun), runs it does not know last. `results`: as of `results.read_all`.

    What a run is compared with say `control_of` and `control_boxes_of`.
    """
    groups = {}
    for result in results:
        groups.setdefault(result['run'], {})[result['seed']] = result
    order = [run for run in texts if run in groups] + [run for run in groups if run not in texts]
    configs = {run: run_config(next(iter(found.values()))) for run, found in groups.items()}
    values = {run: {m: {seed: r['metrics'].get(m) for seed, r in groups[run].items()} for m in METRICS}
              for run in order}
    rows = []
    for run in order:
        found = list(groups[run].values())
        control = control_of(run, configs, controls)
        control_boxes = control_boxes_of(run, control, configs, groups)
        others = {seed: r['boxes'][str(control_boxes)] if control_boxes else r['metrics']
                  for seed, r in groups.get(control, {}).items()}
        counts = sorted({int(n) for r in found for n in r['boxes']})
        rows.append(Row(
            run=run, text=texts.get(run, LabRun('', '')), control=control, control_boxes=control_boxes,
            seeds=tuple(groups[run]), means={m: interval(values[run][m].values()) for m in METRICS},
            differences={m: paired_difference(values[run][m], {seed: others[seed].get(m) for seed in others})
                         for m in METRICS} if control else {},
            classes={name: interval(r['per_class_AP50'].get(name) for r in found)
                     for name in found[0]['per_class_AP50']},
            boxes={n: interval(r['boxes'].get(str(n), {}).get('box_AP50') for r in found) for n in counts},
            values=values[run]))
    return rows


def control_of(run: str, configs: dict[str, dict], controls: Sequence[str]) -> str:
    """What `run` is compared with, '' if there is none: of the controls of its neck that begin as it does, from scratch
    or from a plain run, the one whose config differs from its own in the fewest keys beside those of relations; of
    equal ones the first. A control is compared with the first one of its neck.

    configs: run -> flat config of every run that has results.
    """
    def of_its_neck(others: Sequence[str]) -> list[str]:
        return [c for c in others if c in configs and configs[c]['model.neck'] == configs[run]['model.neck']]

    if run in controls:
        return next(iter(of_its_neck(controls[:list(controls).index(run)])), '')

    def is_tuned(name: str) -> bool:
        return any(phase.get('plain') for phase in configs[name]['train.phases'])

    def distance(other: str) -> int:
        a, b = configs[run], configs[other]
        return sum(a.get(key) != b.get(key) for key in a.keys() | b.keys() if not key.startswith(OF_RELATIONS))

    alike = [c for c in of_its_neck(controls) if is_tuned(c) == is_tuned(run)]
    return min(alike, key=distance, default='')


def control_boxes_of(run: str, control: str, configs: dict[str, dict], groups: dict[str, dict[int, dict]]) -> int:
    """The number of test boxes of `run` if its control has another one and was tested at that of `run` too, with all
    of its seeds; else 0. `groups`: run -> seed -> result."""
    own = configs[run]['test.boxes']
    if not control or own == configs[control]['test.boxes']:
        return 0
    return own if all(str(own) in r['boxes'] for r in groups[control].values()) else 0


def stored_texts(table_json: str | Path) -> dict:
    """Run -> LabRun of the runs in a table.json, in its order."""
    rows = files.read_json(table_json)['rows']
    return {row['run']: LabRun(**row['text']) for row in rows}


# ---- numbers as text, in per cent ----
def mean_text(i: Interval) -> str:
    """'41.3 ± 1.2', '41.3' without an interval, '-' without a value."""
    if i.count == 0:
        return '-'
    return f'{100 * i.mean:.1f}' + (f' ± {100 * i.half_width:.1f}' if i.count > 1 else '')


def difference_text(i: Interval) -> str:
    """'**+5.2** [+1.0, +9.4]', bold where the interval excludes 0; '+5.2' without an interval."""
    if i.count == 0:
        return '-'
    mean = f'{100 * i.mean:+.1f}'
    if i.count == 1:
        return mean
    return (f'**{mean}**' if i.excludes_zero else mean) + f' [{100 * i.low:+.1f}, {100 * i.high:+.1f}]'


def pipe_table(header: list[str], rows: list[list[str]], *, left: int = 1) -> str:
    """A Markdown table whose first `left` columns are text and the rest numbers."""
    lines = [header, ['---' if i < left else '---:' for i in range(len(header))], *rows]
    return '\n'.join('| ' + ' | '.join(cell.replace('|', '\\|') for cell in line) + ' |' for line in lines) + '\n'


# ---- what the table was made from ----
def data_text(results: list[dict]) -> str:
    about = results[0]['about']
    return (f"{about['data_set']}, {about['images']} images for validation ({about['images_without_findings']} without "
            f"findings), {about['objects']} objects")


def machine_text(results: list[dict]) -> str:
    return '; '.join(sorted({
        f"{r['machine']['processor']}, {r['machine']['cores']} cores, {r['machine']['devices']}, "
        f"Python {r['machine']['python']}, JAX {r['machine']['jax']}, flax {r['machine']['flax']}" for r in results}))


def dates_text(results: list[dict]) -> str:
    dates = sorted(r['date'] for r in results)
    return dates[0] if dates[0] == dates[-1] else f'{dates[0]} to {dates[-1]}'


def summary(results: list[dict]) -> list[str]:
    """Sentences on data, settings, machine, dates and commands: what the numbers mean."""
    about, p = results[0]['about'], results[0]['about']['post_processing']
    return [
        *[SYNTHETIC] * about['synthetic'],
        f'Data: {data_text(results)}.',
        f"Post-processing: score > {p['score_threshold']:g}, per-class NMS IoU {p['nms_iou']:g}, "
        f"{p['detections_per_image']} detections per image, mask > {p['mask_threshold']:g}, {p['coordinates']}, "
        f"VOC boxes {p['voc_convention']}; test boxes are set by each run's config.",
        f"Overrides for all runs: {' '.join(f'`{o}`' for o in results[0]['overrides']) or 'none'}.",
        f'Machine: {machine_text(results)}.',
        f'Measured: {dates_text(results)}.',
        *(f'Command: `{command}`' for command in sorted({r['command'] for r in results}))]


def how_to_read(rows: Sequence[Row], *, lab: bool) -> str:
    """`lab`: whether the lab's columns stand beside ours."""
    return ' '.join([HOW_TO_READ, *[AT_BOXES] * any(row.control_boxes for row in rows), *[LAB_NOTE] * lab])


def markdown(results: list[dict], texts: dict, *, controls: tuple[str, ...] = CONTROLS) -> str:
    """table.md: the runs, what happens at other numbers of test boxes, and the classes."""
    rows = make_rows(results, texts, controls=controls)
    if not rows:
        return '# Ablations\n\nNo results yet.\n'
    lab = any(r.text.map50 or r.text.map1 for r in rows)
    header = ['run', 'what it is', 'seeds', 'steps', TITLES['box_AP50'], 'difference', 'to',
              *(TITLES[m] for m in METRICS if m != 'box_AP50'), *['lab mAP50', 'lab mAP1'] * lab]
    steps = {r['run']: str(r['steps']) for r in results}
    body = [[f'`{r.run}`', r.text.description, str(len(r.seeds)), steps[r.run], mean_text(r.means['box_AP50']),
             difference_text(r.differences['box_AP50']) if r.differences else '-',
             f'`{r.compared_with}`' * bool(r.control),
             *(mean_text(r.means[m]) for m in METRICS if m != 'box_AP50'),
             *[r.text.map50 or '-', r.text.map1 or '-'] * lab]
            for r in rows]
    parts = ['# Ablations', '\n'.join(f'{line}  ' for line in summary(results)),
             how_to_read(rows, lab=lab),
             pipe_table(header, body, left=2)]
    counts = sorted({n for r in rows for n in r.boxes}, reverse=True)
    if len(counts) > 1:
        swept = [[f'`{r.run}`', *(mean_text(r.boxes.get(n, interval([]))) for n in counts)] for r in rows]
        parts += ['## Box AP50 by number of test boxes', pipe_table(['run', *map(str, counts)], swept)]
    names = list(rows[0].classes)
    classes = [[f'`{r.run}`', *(mean_text(r.classes.get(name, interval([]))) for name in names)] for r in rows]
    parts += ['## Box AP50 by class', pipe_table(['run', *names], classes)]
    return '\n\n'.join(part.rstrip('\n') for part in parts) + '\n'


def csv_text(results: list[dict], texts: dict, *, controls: tuple[str, ...] = CONTROLS) -> str:
    """table.csv: one line per run and metric, per cent, empty where undefined."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['run', 'section', 'metric', 'seeds', 'mean', 'low', 'high', 'control', 'difference',
                     'difference_low', 'difference_high', 'lab_mAP50', 'lab_mAP1'])
    for row in make_rows(results, texts, controls=controls):
        for metric in METRICS:
            mean, difference = row.means[metric], row.differences.get(metric, interval([]))
            writer.writerow([row.run, row.text.section, metric, mean.count, *map(_percent, mean[:3]),
                             row.compared_with, *map(_percent, difference[:3]), row.text.map50, row.text.map1])
    return out.getvalue()


def _percent(value: float) -> str:
    return '' if math.isnan(value) else f'{100 * value:.4f}'


def json_text(results: list[dict], texts: dict, *, controls: tuple[str, ...] = CONTROLS) -> str:
    """table.json: everything of the rows in 0..1, undefined numbers null, and the values by seed."""
    def plain(value):
        if isinstance(value, (Interval, LabRun)):
            return value._asdict()
        return {str(k): plain(v) for k, v in value.items()} if isinstance(value, dict) else value
    rows = [{k: plain(v) for k, v in row._asdict().items()}
            for row in make_rows(results, texts, controls=controls)]
    about = summary(results) if results else []
    return files.to_json(dict(about=about, lab_note=LAB_NOTE, rows=rows), indent=1) + '\n'
