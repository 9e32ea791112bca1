"""Accuracies in docs/relations.md, lab_runs.md and ablation_tables.md are those of the committed result files."""
import re
import shlex

import pytest

from benchmarks.gain_by_cue import ALL, CUES, gains
from relnet_jax import ablate
from relnet_jax.ablation import docs, results, table
from relnet_jax.ablation.statistics import Interval, interval, paired_difference
from relnet_jax.ablation.table import difference_text
from tests import pipe_tables
from tests.docs_text import ROOT
from tests.pipe_tables import RESULTS

FOLDERS = sorted(path.parent for path in RESULTS.glob('*/results'))
INTERVAL = re.compile(r'\[[+-][\d.]+, [+-][\d.]+\]')
# '`four` - `six`', maybe the number of seeds, and '**-3.7** [-5.7, -1.7]'; `six@64` is `six` at 64 test boxes
COMPARED = re.compile(r'`([\w@]+)` - `([\w@]+)`(?: \| (\d+) \||:| =) (\*{0,2}[+-][\d.]+\*{0,2} \[[^]]+\])')


def page(name: str) -> str:
    return (ROOT / 'docs' / name).read_text(encoding='utf-8')


def by_seed(folder: str, run: str, metric: str = 'box_AP50') -> dict[int, float]:
    name, _, boxes = run.partition('@')
    found = {r['seed']: (r['boxes'][boxes] if boxes else r['metrics'])[metric]
             for r in results.read_all(RESULTS / folder) if r['run'] == name}
    assert found, f'{folder} has no result of {run}'
    return found


def difference(folder: str, run: str, control: str) -> Interval:
    return paired_difference(by_seed(folder, run), by_seed(folder, control))


def check_compared(text: str) -> int:
    """Checks every difference of two runs against the folder that is named last before it; returns their number."""
    found = list(COMPARED.finditer(text))
    for match in found:
        run, control, seeds, said = match.groups()
        folder = re.findall(r'`(phantom_\w+)`', text[:match.start()])[-1]
        measured = difference(folder, run, control)
        assert said == difference_text(measured), f'{folder}: {run} - {control}'
        assert seeds is None or int(seeds) == measured.count
    return len(found)


def gain_rows() -> list[list[str]]:
    """The cells of the gain-by-cue table."""
    lines = page('relations.md').splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith('| folder |'))
    cells = [[cell.strip() for cell in line.strip('|').split(' | ')] for line in lines[start + 2:]]
    return cells[:next(i for i, row in enumerate(cells) if len(row) == 1)]


def test_the_gains_by_cue_are_what_the_command_computes():
    shown = {}
    for folder, run, seeds, *said in gain_rows():
        name = re.match(r'`(\w+)`', run)[1]
        shown.setdefault(folder.strip('`'), {})[name] = (int(seeds), *said)
    assert len(shown) >= 4
    for folder, rows in shown.items():
        computed = {run: (row[ALL].count, *(difference_text(row[cue]) for cue in (ALL, *CUES)))
                    for run, row in gains(results.read_all(RESULTS / folder), 'base').items() if row[ALL].count > 1}
        assert rows == computed, folder


def test_every_interval_of_the_relations_page_is_measured():
    text = pipe_tables.plain('docs/relations.md')
    # fpn3_gt_boxes - base, seed by seed
    pairs = {folder: [by_seed(folder, 'fpn3_gt_boxes')[seed] - value for seed, value in by_seed(folder, 'base').items()]
             for folder in ('phantom_fpn_320px', 'phantom_fpn_320px_quarter_rate', 'phantom_fpn_256px')}
    at_320, pooled = pairs['phantom_fpn_320px'], sum(pairs.values(), [])
    seeds = ', '.join(f'{100 * value:+.1f}' for value in at_320[:3])

    def gain(metric: str, without: int | None = None) -> Interval:
        ours, base = (by_seed('phantom_fpn_320px_presence', run, metric) for run in ('ours', 'base'))
        return paired_difference({seed: value for seed, value in ours.items() if seed != without}, base)

    def not_bold(i: Interval) -> str:
        return difference_text(i).replace('*', '')
    said = (f'gain {not_bold(interval(at_320))} in four seeds: {seeds} and {100 * at_320[3]:.1f}.',
            f'The first three seeds alone had given {not_bold(interval(at_320[:3]))}.',
            f'taken as one sample, give {not_bold(interval(pooled))}.',
            f"box AP rises by {not_bold(gain('box_AP')).lstrip('+').replace(' ', ' points ', 1)}.",
            f"The five other seeds alone give {not_bold(gain('box_AP50', without=5))} over `base`.")
    assert len(at_320) == 4 and len(pooled) == 10
    for sentence in said:
        assert sentence in text
    in_gains = sum(len(INTERVAL.findall(' '.join(row))) for row in gain_rows())
    assert len(INTERVAL.findall(text)) == in_gains + check_compared(text) + len(said)


def test_every_interval_of_the_labs_conclusions_is_measured():
    text = page('lab_runs.md')
    count = check_compared(text)
    assert count == len(INTERVAL.findall(text)) >= 15


def test_the_verdicts_on_the_labs_conclusions_follow_from_the_intervals():
    rows = pipe_tables.table('docs/lab_runs.md', "the log's conclusion")
    seen = set()
    for conclusion, verdict, folder, compared, _, _ in rows:
        if not compared:
            assert verdict.startswith('cannot be told: not measured'), conclusion
            continue
        measured = difference(folder, *compared.split(' - '))
        right = 'holds' if measured.low > 0 else 'does not hold' if measured.high < 0 else 'cannot be told'
        assert re.split('[,:]', verdict)[0] == right, compared
        seen.add(right)
    assert len(rows) > 30 and len(seen) == 3


def test_the_page_of_all_runs_is_what_its_command_writes_now():
    path = ROOT / 'docs' / 'ablation_tables.md'
    command, = re.findall(r'```\n(python -m relnet_jax.ablate .*?)```', path.read_text(encoding='utf-8'), re.DOTALL)
    flags = dict(word.removeprefix('--').split('=') for word in shlex.split(command) if '=' in word)
    folders = [ROOT / folder for folder in (flags['out'], *flags['docs_with'].split(','))]
    assert flags['docs'] == 'docs/ablation_tables.md' and '--table_only' in command and len(folders) > 1
    assert all(results.read_all(folder) for folder in folders)
    assert docs.renewed(path, folders, ablate.lab_texts()) == path.read_text(encoding='utf-8')


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_the_tables_of_a_result_folder_are_those_of_its_result_files(folder):
    found = results.read_all(folder)
    family = re.search(r'--config=(\S+)', found[0]['command'])
    texts = ablate.lab_texts(family[1] if family else '')
    for suffix, text in (('md', table.markdown), ('csv', table.csv_text), ('json', table.json_text)):
        assert (folder / f'table.{suffix}').read_text(encoding='utf-8') == text(found, texts), suffix
    assert (folder / 'table.png').is_file()


def test_every_result_folder_is_cited_by_a_page():
    pages = ''.join(path.read_text(encoding='utf-8') for path in (ROOT / 'docs').glob('*.md'))
    assert len(FOLDERS) >= 5 and all(re.search(rf'\b{folder.name}\b', pages) for folder in FOLDERS)
