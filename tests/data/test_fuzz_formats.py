"""Files of the other formats changed at random: every row used or reported, or one clear line; nothing else."""
import copy
import json
import re
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs import base
from relnet_jax.data.formats import FORMATS, rsna, siim, vindr
from relnet_jax.data.formats.rows import read_rows
from relnet_jax.data.issues import summary
from relnet_jax.errors import UserError
from relnet_jax.files import to_json
from tests.data.test_fuzz_coco import ODD, change, places

SIDE = 64
FILMS = [f'film{i}' for i in range(5)]
SQUARE = [[100, 100], [400, 100], [400, 500], [100, 500]]
RECORDS = {
    'chestx_det': [dict(file_name=f'{film}.png', syms=['Mass', 'Nodule'][:i % 3], polygons=[SQUARE, SQUARE][:i % 3],
                        boxes=[[100, 100, 400, 500], [10, 20, 60, 80]][:i % 3]) for i, film in enumerate(FILMS)],
    'lab': [dict(file_name=f'{film}.png', rows=SIDE, cols=SIDE, fold=i, doc_name='yy',
                 syms=[['Mass', 'Nodule'], ['Scar']],
                 boxes=[[10, 10, 40, 50], [1, 2, 6, 8]], polygon=[[[10, 10], [40, 10], [40, 50]], []] if i % 2 else [],
                 parts=['Heart'], part_boxes=[[5, 5, 50, 50]]) for i, film in enumerate(FILMS)]}
TABLES = {
    'vindr': ['image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max',
              *(line for i, f in enumerate(FILMS) for line in (f'{f},Cardiomegaly,3,R{i % 3},1.0,2.0,30.0,40.0',
                                                               f'{f},Cardiomegaly,3,R{i % 2},2.0,2.0,31.5,40.0')),
              'film0,No finding,14,R7,,,,'],
    'rsna': ['patientId,x,y,width,height,Target', *(f'{f},264.0,152.0,213.0,379.0,1' for f in FILMS[:3]),
             *(f'{f},,,,,0' for f in FILMS[3:])],
    'siim': ['ImageId, EncodedPixels', *(f'{f},{1024 * 100 + 7} 20 1004 20 1004 20' for f in FILMS[:3]),
             *(f'{f},-1' for f in FILMS[3:])]}
READERS = {'vindr': vindr, 'rsna': rsna, 'siim': siim}
CELLS = st.one_of(
    st.sampled_from(['', ' ', 'nan', 'inf', '-inf', '1e400', '9' * 400, '1_0', '-1', '0', '2', '1.5', '1e8', '-1e308',
                     'x', 'No finding', 'film0', '\x00', '"', '""', '"a', 'a"b', 'a\nb', '\r', '٣', '5 5 5', '3 0',
                     '1048576 1', '-1 -1', '14', '3', 'ILD', '../film0', '/etc/passwd', 'a' * 5000, '5 ' * 3000]),
    st.integers(-10, 2000).map(str), st.text(max_size=4))


@st.composite
def records(draw, kind):
    document, places_ = copy.deepcopy(RECORDS[kind]), [p for p in places(RECORDS[kind]) if p]
    for _ in range(draw(st.integers(1, 5))):
        path, everywhere = draw(st.sampled_from(places_)), draw(st.booleans())
        action, odd = draw(st.sampled_from(['set', 'set', 'set', 'drop', 'repeat', 'reverse', 'nest'])), draw(ODD)
        for place in ([(i, *path[1:]) for i in range(len(FILMS))] if everywhere and len(path) > 1 else [path]):
            try:
                change(document, place, action, copy.deepcopy(odd))
            except (KeyError, IndexError, TypeError):
                pass        # an earlier change removed that place
    return json.dumps(document).encode()


@st.composite
def tables(draw, kind):
    rows = [line.split(',') for line in TABLES[kind]]
    for _ in range(draw(st.integers(1, 6))):
        row = draw(st.sampled_from(rows)) if rows else []
        action = draw(st.sampled_from(['set', 'set', 'set', 'column', 'drop', 'insert', 'repeat', 'remove', 'move']))
        place, cell = draw(st.integers(0, max(len(row) - 1, 0))), draw(CELLS)
        if action == 'column':
            rows = [[*r[:place], cell, *r[place + 1:]] if i else r for i, r in enumerate(rows)]
        elif action == 'repeat':
            rows.append(list(row))
        elif action == 'move':
            rows.sort(key=lambda r: r[-1:])
        elif action == 'remove' and row:
            rows.remove(row)
        elif row:
            row[place:place + (action != 'insert')] = [] if action == 'drop' else [cell]
    delimiter, newline = draw(st.sampled_from([',', ',', ',', ';', '\t'])), draw(st.sampled_from(['\n', '\r\n', '\r']))
    data = newline.join(delimiter.join(row) for row in rows).encode(draw(st.sampled_from(['utf-8', 'utf-8-sig'])))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):       # bytes flipped or cut
        if data:
            at = draw(st.integers(0, len(data) - 1))
            data = data[:at] + (b'' if draw(st.booleans()) else bytes([draw(st.integers(0, 255))])) + data[at + 1:]
    return data


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('fuzz')
    for film in FILMS:
        cv2.imwrite(str(path / f'{film}.png'), np.full((SIDE, SIDE), 90, np.uint8))
    return path


def assert_rows_are_accounted_for(kind, file, fusion):
    rows, broken = read_rows(file, ())
    document, issues = READERS[kind].read(file, file.parent, SimpleNamespace(fusion=fusion, fusion_iou=0.5))
    used = [line for record in (*document['images'], *document['annotations']) for line in record['rows']]
    found = [re.fullmatch(r'a\.txt: row (\d+)', issue.where) for issue in issues]
    reported = [int(match[1]) for match in found if match]
    assert sorted(used + reported) == sorted([row.line for row in rows] + [int(i.where.split()[-1]) for i in broken])


def try_file(kind, content, folder, fusion='none'):
    """Whether the file opens; what it raises is one short line that names the file."""
    file, start = folder / 'a.txt', time.monotonic()
    file.write_bytes(content)
    data = base.get_config().data.unlock()
    data.update(mask_size=14, fusion=fusion, max_dropped=0.6, max_unreadable=0.6, min_box=20)
    data.train.update(annotations=str(file), images=str(folder))
    try:
        source = FORMATS[kind](data, 'train', None)
        if kind in READERS:
            assert_rows_are_accounted_for(kind, file, fusion)
    except UserError as e:
        assert 'a.txt' in str(e) and '\n' not in str(e) and len(str(e)) < 1500, e
        return False
    c = source.counts
    assert c['image_records'] == c['images'] + c['images_dropped'] + c['images_not_wanted']
    assert c['annotations'] == c['used'] + c['dropped'] + c['duplicates'] + c['image_left_out'] + c['not_wanted']
    assert all(len(line) < 1000 for line in summary(source.issues))
    for i in range(len(source)):
        x1, y1, x2, y2 = source.load(i).boxes.T
        assert ((0 <= x1) & (x1 < x2) & (x2 <= SIDE) & (0 <= y1) & (y1 < y2) & (y2 <= SIDE)).all()
    to_json(source.ground_truth())      # NaN in a record's own words is null
    assert time.monotonic() - start < 5
    return True


KINDS = [*RECORDS, *TABLES]


def contents(kind):
    return records(kind) if kind in RECORDS else tables(kind)


@pytest.mark.parametrize('kind', KINDS)
def test_the_files_that_are_changed_open_as_they_are(folder, kind):
    content = json.dumps(RECORDS[kind]) if kind in RECORDS else '\n'.join(TABLES[kind])
    assert try_file(kind, content.encode(), folder)


def fuzz(kind, folder, examples):
    opened = []

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None,
              suppress_health_check=[HealthCheck.too_slow])
    @given(content=contents(kind), fusion=st.sampled_from(['none', 'wbf', 'majority']))
    def one(content, fusion):
        opened.append(try_file(kind, content, folder, fusion))
    one()
    assert any(opened) and not all(opened)      # both ends are reached


@pytest.mark.parametrize('kind', KINDS)
def test_changed_files_open_or_stop_with_one_line(folder, kind):
    fuzz(kind, folder, 60)


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_many_changed_files_open_or_stop_with_one_line(folder, kind):
    fuzz(kind, folder, 2000)
