"""COCO files changed at random: a source whose counts add up, or one clear line; nothing else, and quickly."""
import copy
import json
import math
import time

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.issues import summary
from tests.data.opening import open_coco

COUNT = 6
BASE = dict(
    images=[dict(id=i, file_name=f'{i}.png', width=60, height=40) for i in range(1, COUNT + 1)],
    annotations=[dict(id=i, image_id=1 + i % COUNT, category_id=1 + i % 2, bbox=[5, 6, 20, 10], area=200, iscrowd=0,
                      segmentation=[[5, 6, 25, 6, 25, 16, 5, 16]] if i % 3 else
                      {'size': [40, 60], 'counts': [206, *[10, 30] * 19, 10, 1424]}) for i in range(12)],
    categories=[dict(id=1, name='nodule'), dict(id=2, name='mass')])

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70), st.sampled_from([
        math.nan, math.inf, -math.inf, 1e308, -1e308, 1e8, 1e-9, 1.5, int('9' * 400), 2 ** 31, 2 ** 64, '', '1', '1.0',
        'x', 'nan', '1e999', '\ud800', '../1.png', '/etc/passwd', 'a' * 5000, '1.PNG', 'images\\1.png', [], {}, [[]],
        [[[]]], [0], [[0]], [1, 2, 3, 4], ['1', '2', '3', '4'], [1e308] * 4, [1, 1, 9, 1, 1e8, 9],
        [[1, 1], [9, 1], [9, 9]], [[1, 1, 9, 1, -1e308, 9]], {'size': [40, 60], 'counts': [2400]},
        {'size': [60, 40], 'counts': [0, 2400]},
        {'size': [40, 60], 'counts': 'zz'}, {'size': [40, 60], 'counts': '\ud800'}, {'counts': [1e3]}, 'background']),
    st.lists(st.one_of(st.integers(-100, 100), st.floats(), st.text(max_size=3)), max_size=9))


def places(value, path=()):
    """The way to every value in nested dicts and lists."""
    yield path
    for key in (value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()):
        yield from places(value[key], (*path, key))


PLACES = [path for path in places(BASE) if path]


@st.composite
def documents(draw):
    """The base with a few values replaced, removed, repeated or moved; sometimes the same in every record."""
    document = copy.deepcopy(BASE)
    for _ in range(draw(st.integers(1, 5))):
        path, everywhere = draw(st.sampled_from(PLACES)), draw(st.booleans())
        action, odd = draw(st.sampled_from(['set', 'set', 'set', 'drop', 'repeat', 'reverse', 'nest'])), draw(ODD)
        same = [(path[0], i, *path[2:]) for i in range(20)] if everywhere and len(path) > 2 else [path]
        for place in same:
            try:
                change(document, place, action, copy.deepcopy(odd))
            except (KeyError, IndexError, TypeError):
                pass        # an earlier change removed that place
    return document


def change(document, path, action, odd):
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    key = path[-1]
    if action == 'set':
        holder[key] = odd
    elif action == 'drop':
        del holder[key]
    elif action == 'repeat' and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif action == 'reverse' and isinstance(holder[key], list):
        holder[key].reverse()
    elif action == 'nest':
        holder[key] = [holder[key]]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('fuzz')
    for i in range(1, COUNT + 1):
        cv2.imwrite(str(path / f'{i}.png'), np.full((40, 60), 30 * i, np.uint8))
    return path


def check_source(source):
    c = source.counts
    assert c['image_records'] == c['images'] + c['images_dropped'] + c['images_not_wanted']
    assert c['annotations'] == c['used'] + c['dropped'] + c['duplicates'] + c['image_left_out'] + c['not_wanted']
    dropped = [i for i in source.issues if 'annotations[' in i.where and i.rule == 'dropped']
    assert len(dropped) == c['dropped'] + c['duplicates']
    assert all(len(line) < 1000 for line in summary(source.issues))
    for i in range(len(source)):
        try:
            example = source.load(i)
        except UnreadableImage as e:        # the record says another size
            assert 'a.json says' in str(e)
            continue
        x1, y1, x2, y2 = example.boxes.T
        assert ((0 <= x1) & (x1 < x2) & (x2 <= 60) & (0 <= y1) & (y1 < y2) & (y2 <= 40)).all()
        assert (example.masks.any(axis=(1, 2)) == example.has_mask).all() and example.masks.shape[1:] == (14, 14)
    truth = source.ground_truth()
    assert len(truth['annotations']) == c['objects']
    sizes = {image['id']: image['width'] * image['height'] for image in truth['images']}
    assert all(0 < a['area'] <= sizes[a['image_id']] for a in truth['annotations'])
    json.dumps(truth, allow_nan=False)


def try_document(document, folder):
    """Whether the document opens; what it raises is one short line that names the file."""
    file = folder / 'a.json'
    file.write_text(json.dumps(document))
    start = time.monotonic()
    try:
        source = open_coco(file, folder)
    except (ValueError, FileNotFoundError) as e:
        assert 'a.json' in str(e) and '\n' not in str(e) and len(str(e)) < 1500, e
        str(e).encode()
        return False
    check_source(source)
    assert time.monotonic() - start < 5
    return True


@settings(max_examples=200, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(document=documents())
def test_changed_files_open_or_stop_with_one_line(folder, document):
    try_document(document, folder)


@pytest.mark.slow
@settings(max_examples=4000, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(document=documents())
def test_many_changed_files_open_or_stop_with_one_line(folder, document):
    try_document(document, folder)


def test_every_place_with_every_kind_of_nonsense(folder):
    """One place at a time, in the first record and in all of them: most leave a set that can be used."""
    opened = total = 0
    for path in [p for p in PLACES if p[1:2] in ((), (0,))]:
        for odd in (None, [], {}, 'x', -1, math.nan, int('9' * 400), [[1e308]], '\ud800', True):
            document = copy.deepcopy(BASE)
            change(document, path, 'set', odd)
            opened += try_document(document, folder)
            total += 1
    assert 0.6 * total < opened < total
