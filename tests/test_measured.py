"""Every number in the tables of the pages about measurements is one of a file in benchmarks/results."""
import json
import re

import pytest

from tests.docs_text import ROOT
from tests.pipe_tables import RESULTS, by_folds, lines, plain, states, table, tables

DEFAULT = json.loads((RESULTS / 'phantom_default.json').read_text())
TRANSCRIBED = json.loads((RESULTS / 'measured.json').read_text())['entries']


def test_numbers_are_compared_in_the_digits_they_have():
    assert states('0.80', 0.8028) and states('1,200', 1200) and states('9.1e-6', 9.12e-6) and states('64 %', 63.6)
    assert not states('0.80', 0.806) and not states('9.1e-6', 9.2e-6) and not states('-0.1', 0.1)
    assert tables('x\n\n| a | **b** |\n|---|:-:|\n| `1` | |\n\n| c |\n|---|\n') == [[['a', 'b'], ['1', '']], [['c']]]


# ---- the phantom's default run ----
def with_interval(value: float, low: float, high: float) -> str:
    return f'{value:.3f} [{low:.3f}, {high:.3f}]'


def default(metric: str) -> str:
    return with_interval(DEFAULT['metrics'][metric], *DEFAULT['metrics']['intervals'][metric])


def test_the_phantom_table_is_that_of_the_default_run():
    rows, = (rows[1:] for rows in tables((ROOT / 'docs/measured.md').read_text()) if rows[1][0] == 'Atelectasis')
    found = {name: values for name, values in DEFAULT['metrics']['per_class'].items() if values['objects']}
    assert rows == [[name, str(v['objects']), *(f'{100 * v[key]:.1f}' for key in (
        'box_AP', 'box_AP50', 'mask_AP', 'mask_AP50'))] for name, v in found.items()]


def test_headline_and_time_are_those_of_the_default_run():
    rows = dict(table('docs/measured.md', 'metric'))
    assert rows == {'box AP': default('box_AP'), 'box AP50': default('box_AP50'), 'mask AP': default('mask_AP'),
                    'mask AP50': default('mask_AP50')}
    minutes, seconds = divmod(DEFAULT['run']['seconds'], 60)
    for page in ('docs/measured.md', 'docs/performance.md'):
        assert f'{minutes} min {seconds} s' in plain(page)
    about = DEFAULT['about']
    assert f"{about['images']} validation images with {about['objects']} objects" in plain('docs/measured.md')
    assert DEFAULT['run']['command'] == about['command'] and about['date'].startswith(DEFAULT['run']['date'])


def test_the_default_run_with_other_seeds_and_processors_is_as_in_its_file():
    again = lines('phantom_default_again.jsonl')
    assert table('docs/measured.md', 'seed') == [
        [str(run['seed']), run['commit'], f"{run['cores']} of {run['machine']}",
         *(with_interval(**run['metrics'][key]) for key in ('box_AP50', 'mask_AP50'))] for run in again]
    found = sorted(run['metrics']['box_AP50']['value'] for run in again)
    assert f'box AP50 from {found[0]:.3f} to {found[-1]:.3f}' in plain('README.md')


def test_results_in_the_readme_are_those_of_the_files():
    """By row; an empty first cell continues the row above. A value with an interval is there with that interval."""
    section = (ROOT / 'README.md').read_text().partition('## Results')[2].partition('\n## ')[0]
    rows, name = {}, ''
    for row in tables(section)[0][1:]:
        name = row[0] or name
        rows[name] = f'{rows.get(name, "")} {" ".join(row)}'
    sources = {
        'phantom': [dict(value=DEFAULT['metrics'][k], low=low, high=high)
                    for k, (low, high) in DEFAULT['metrics']['intervals'].items()],
        'JSRT': [*by_folds('jsrt_structures', 'anatomy').values(),
                 *by_folds('jsrt_nodules', 'base').values()],
        '65 mixed': by_folds('cxr_findings', 'ours').values(),
        '': [dict(value=float(number) / scale) for entry in TRANSCRIBED for row in entry['table'] for cell in row[1:]
             for number in re.findall(r'\d+\.\d+', cell) for scale in (1, 100)]}
    phantom = ' '.join(text for name, text in rows.items() if name.startswith('phantom'))
    for metric in ('box_AP50', 'mask_AP50'):
        assert f"{DEFAULT['metrics'][metric]:.3f}" in phantom
    for name, text in rows.items():
        known = next(values for key, values in sources.items() if name.startswith(key))
        stated = re.findall(r'(?<![\d.])(\d\.\d{2,})(?: \[(\d\.\d+), (\d\.\d+)\])?', text)
        assert stated, name
        for value, low, high in stated:
            assert any(states(value, k['value']) and (not low or states(low, k['low']) and states(high, k['high']))
                       for k in known if not low or 'low' in k), (name, value, low, high)


# ---- runs whose own result files were not kept ----
@pytest.mark.parametrize('entry', TRANSCRIBED, ids=lambda entry: entry['about'][:40])
def test_a_table_without_a_result_file_is_as_it_was_transcribed(entry):
    assert entry['command'] and entry['date'] and entry['machine']
    head, *rows = ([re.sub(r'\*\*|`', '', cell) for cell in row] for row in entry['table'])
    assert [head, *rows] in tables((ROOT / entry['page']).read_text())
    commands = [entry['command']] if isinstance(entry['command'], str) else entry['command']
    for command in (c.partition(';')[0].partition(' and all')[0] for c in commands):
        page = plain(entry['page']).replace('\\ ', '')
        assert all(word in page for word in command.split()), command


def test_the_measured_page_holds_no_other_table():
    expected = 3 + sum(entry['page'] == 'docs/measured.md' for entry in TRANSCRIBED)
    assert len(tables((ROOT / 'docs/measured.md').read_text())) == expected


# ---- beside torchvision ----
def detector_run(row: list[str], **wanted) -> dict:
    """The last record that is so, of the date in the row."""
    return [r for r in lines('detector.jsonl') if not r['parts'] and r['date'] == row[1]
            and all(r.get(key, False) == value for key, value in wanted.items())][-1]


def test_the_table_beside_torchvision_is_that_of_the_benchmark():
    rows, run = table('docs/performance.md', 'work', 'measured'), None
    assert len(rows) == 8
    for row in rows:
        if row[0] == 'its peak memory':
            key = 'peak_gib'
        else:
            kind, key = row[0].split(',')[0], 'wall'
            size = int(found[1]) if (found := re.search(r'(\d+) px', row[0])) else 512
            objects = int(found[1]) if (found := re.search(r'(\d+) objects', row[0])) else 3
            run = detector_run(row, kind={'inference': 'inference', 'training step': 'train'}[kind], size=size,
                               objects=objects, remat='remat' in row[0])
        theirs, ours = (run[side]['times']['whole'][key] for side in ('torchvision', 'ours'))
        assert states(row[2], theirs) and states(row[3], ours) and states(row[4], ours / theirs), row


def test_the_table_of_parts_is_that_of_the_benchmark():
    record, = (r for r in lines('detector.jsonl') if r['parts'])
    ours, theirs, gflop = record['ours']['times'], record['torchvision']['times'], record['gflop']
    product = [gflop['matrix product, forward'] / side['matrix product, forward']['cpu'] for side in (theirs, ours)]
    names = {'RPN head on whole maps': 'RPN head', 'RoIAlign, 7 cells': 'RoIAlign 7',
             'RoIAlign, 14 cells': 'RoIAlign 14'}
    rows = table('docs/performance.md', 'part')
    assert len(rows) == 8
    for name, *cells in rows:
        part = names.get(name, name)
        for which, (a, b, ratio) in (('forward', cells[:3]), ('both', cells[3:6])):
            if a or which == 'forward':
                pair = [side[f'{part}, {which}']['cpu'] for side in (theirs, ours)]
                assert states(a, pair[0]) and states(b, pair[1]) and states(ratio, pair[1] / pair[0]), (name, which)
        if cells[6].endswith('%'):
            rate = gflop[f'{part}, forward'] / ours[f'{part}, forward']['cpu']
            assert states(cells[6], 100 * rate / product[1]), (name, 100 * rate / product[1])
    assert f"(MKL) reached {product[0]:.0f} GFLOP per processor second, XLA's {product[1]:.0f}" in plain(
        'docs/performance.md')


def test_what_sizes_cost_is_that_of_the_curves():
    series = {}
    for r in lines('scaling.jsonl'):
        series.setdefault(r['series'], []).append(r)
    page, (large,), boxes, remat = (plain('docs/performance.md'), *(series[k] for k in ('large', 'boxes', 'remat')))
    assert f"takes {large['cpu_s']:.1f} processor seconds and {large['peak_gib']:.1f} GiB at the peak" in page
    few, many = boxes[0], boxes[-1]
    assert (few['job']['proposals'], many['job']['proposals']) == (250, 4000)
    assert (f"cost {many['cpu_s'] - few['cpu_s']:.1f} processor seconds, and the program asks for "
            f"{many['program_gib'] - few['program_gib']:.2f} GiB more") in page
    for without, with_remat, words in zip(remat[::2], remat[1::2], ('more processor time', 'more (')):
        assert (without['job']['remat'], with_remat['job']['remat']) == (False, True)
        size, more = without['job']['size'], 100 * (with_remat['cpu_s'] / without['cpu_s'] - 1)
        assert (f"from {without['peak_gib']:.2f} to {with_remat['peak_gib']:.2f} GiB at {size} px, with {more:.0f} % "
                f'{words}') in page


# ---- parity ----
def test_parity_side_by_side_is_that_of_the_benchmark():
    cases, seen = {r['case']: r for r in lines('parity.jsonl')}, set()
    for row in table('docs/parity.md', 'what', 'equal to'):
        case = next((word for word in reversed(re.split(r'[ ,]+', row[3])) if word in cases), None)
        if case is None:        # held by tests, or told by the export
            assert 'pytest' in row[3] or row[3] in ('the same', 'the export itself'), row
            continue
        seen.add(case)
        stated = dict(re.findall(r'(box|score|mask) ([\d.e-]+)', row[2]))
        assert stated or (row[2] == 'none' and not any(cases[case][k] for k in ('box', 'score', 'mask')))
        assert all(states(value, cases[case][key]) for key, value in stated.items()), row
    for row in table('docs/parity.md', 'case', 'with a partner'):
        case = re.search(r'\((\w+)\)$', row[0])[1]
        seen.add(case)
        assert row[1:] == [str(cases[case]['matched']), str(cases[case]['over_90'])]
    for case, row in zip(('bfloat16', 'checkpoint'), table('docs/parity.md', 'detector'), strict=True):
        seen.add(case)
        assert row[1:4] == [str(cases[case][key]) for key in ('expected', 'matched', 'over_90')]
        assert states(row[4], cases[case]['score'])
    assert seen == set(cases)


# ---- other pages ----
def test_reading_speeds_are_those_of_the_benchmark():
    head, row = next(rows for rows in tables((ROOT / 'docs/images.md').read_text()) if rows[0][0] == 'JPEG')
    formats = {'JPEG': 'jpeg', 'PNG': 'png', 'PNG, 16 bits': 'png_16', 'DICOM': 'dicom', 'RLE': 'dicom_rle',
               'JPEG lossless': 'dicom_jpeg_lossless', 'JPEG-LS': 'dicom_jpeg_ls',
               'JPEG 2000 lossless': 'dicom_jpeg_2000'}
    speeds = {r['format']: r['per_s'] for r in lines('pipeline.jsonl') if r['masks'] == 'polygons'}
    assert set(formats.values()) == set(speeds)
    for name, cell in zip(head, row, strict=True):
        assert states(cell, speeds[formats[name]]), name


def test_prediction_s_memory_and_time_are_those_of_the_benchmark():
    rows = table('docs/predict.md', 'films', 'overlays')
    assert len(rows) == len(lines('predict_memory.jsonl'))
    for row in rows:
        count = int(row[0].replace(', compiling anew', '').replace(',', ''))
        runs = [r for r in lines('predict_memory.jsonl') if (r['films'], r['overlays']) == (count, row[1] == 'yes')]
        run = runs[0 if 'anew' in row[0] else -1]
        assert all(states(cell, run[key]) for cell, key in zip(row[2:], ('peak_mib', 'seconds', 'written_mb'))), row


def test_evaluation_s_time_is_that_of_the_benchmark():
    first, page = lines('evaluation.jsonl')
    text = plain('docs/metrics.md').partition('## Speed')[2].partition(' ## ')[0]
    for seconds in (first['seconds'][k] for k in ('metrics', 'metrics_with_intervals', 'report')):
        assert f'{seconds:.1f} s' in text or f'{seconds + 0.05:.1f} s' in text, seconds
    assert f"{page['seconds']['page']:.1f} s" in text and f"{page['page_bytes'] / 1e6:.2f} MB" in text


def test_every_result_file_is_cited_by_a_page():
    said = ' '.join(path.read_text() for path in [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')])
    by_command = {'pipeline.jsonl': 'benchmarks.pipeline', 'predict_memory.jsonl': 'benchmarks.predict_memory',
                  'evaluation.jsonl': 'benchmarks.evaluation'}      # which appends to the file of its name
    found = [path for path in RESULTS.rglob('*') if path.suffix == '.jsonl'] + list(RESULTS.glob('*.json'))
    assert len(found) == 12
    for path in found:
        assert path.name in said or by_command.get(path.name, path.name) in said, path.name


@pytest.mark.parametrize('page', ['measured', 'performance', 'jsrt', 'findings', 'parity'])
def test_pages_about_measurements_name_files_that_are_there(page):
    text = (ROOT / 'docs' / f'{page}.md').read_text()
    for path in re.findall(r'benchmarks/results/[\w/.]*\w', text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r'\]\(([\w./]+\.\w+)', text):
        assert (ROOT / 'docs' / path).exists(), path
