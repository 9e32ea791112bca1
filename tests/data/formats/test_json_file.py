"""Large JSON files: what they become in memory is bounded before it is made."""
import json
import os
import tracemalloc

import pytest

from relnet_jax import cli
from relnet_jax.data import check
from relnet_jax.data.formats import coco, json_file
from relnet_jax.data.formats.records import read_json
from relnet_jax.errors import UserError

POLYGON = dict(id=5, image_id=3, category_id=1, bbox=[10, 10, 90, 90], area=5000, iscrowd=0,
               segmentation=[[12.25 + i for i in range(40)]])
SHAPES = {
    'annotations': json.dumps(POLYGON), 'empty lists': '[]', 'lists in lists': '[[]]', 'many deep': '[' * 50 + ']' * 50,
    'empty dicts': '{}', 'dicts': '{"a":{"b":1}}', 'numbers': '0.5', 'digits': '1234567890123', 'zeros': '0',
    'texts': '"ab"', 'letters': '"\u00e9\u0436"', 'faces': json.dumps('x\U0001f600' * 50),
    'faces in UTF-8': json.dumps('x\U0001f600' * 50, ensure_ascii=False)}


@pytest.mark.parametrize('kind', SHAPES)
def test_no_text_takes_more_memory_than_reckoned(kind, tmp_path):
    file = tmp_path / 'a.json'
    file.write_text('[' + ','.join([SHAPES[kind]] * (300_000 // len(SHAPES[kind]))) + ']', encoding='utf-8')
    tracemalloc.start()
    try:
        value = json_file.load(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(value) > 100
    assert peak < json_file.memory_of(file.read_bytes()) + 100_000


def test_a_long_text_with_one_wide_letter_is_within_the_reckoning(tmp_path):
    for ascii_only in (True, False):
        text = json.dumps(['x' * 10**6 + '\U0001f600'], ensure_ascii=ascii_only)
        file = tmp_path / 'a.json'
        file.write_text(text, encoding='utf-8')
        tracemalloc.start()
        try:
            json_file.load(file)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < json_file.memory_of(file.read_bytes()) + 100_000


@pytest.mark.parametrize('read', [coco.read_document, read_json])
@pytest.mark.parametrize('free', [10_000_000, 60_000_000])
def test_a_file_that_would_not_fit_is_refused_before_it_is_parsed(read, free, tmp_path, monkeypatch):
    file = tmp_path / 'a.json'
    file.write_text('{"images": [' + '[],' * 6_000_000 + '[]]}')
    monkeypatch.setattr(json_file, 'host_free', lambda: free)
    monkeypatch.setattr(json, 'loads', lambda text: pytest.fail('parsed'))
    with pytest.raises(UserError, match=r'a\.json: 0.02 GB of JSON may take 0.\d+ GB of memory once .* 0.0\d GB'):
        read(file)


def test_a_file_with_holes_is_refused_by_its_size_alone(tmp_path, capsys):
    """A terabyte that takes no place on the disk."""
    file = tmp_path / 'a.json'
    with open(file, 'wb') as out:
        out.truncate(10**12)
    assert os.stat(file).st_blocks < 100
    arguments = [f'--config.data.train.{key}={value}' for key, value in (('annotations', file), ('images', tmp_path))]
    assert check.main(['--config=coco', *arguments]) == cli.WRONG
    assert 'a.json: 1000 GB of JSON may take 2000 GB of memory once read, and ' in capsys.readouterr().err


def test_small_files_ask_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, 'host_free', lambda: pytest.fail('asked'))
    file = tmp_path / 'a.json'
    file.write_text('[1]')
    assert json_file.load(file) == [1]


def test_a_large_file_says_how_long_it_takes(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(json_file, 'LARGE', 3)
    monkeypatch.setattr(json_file, 'BYTES_PER_SECOND', 1e-2)
    file = tmp_path / 'a.json'
    file.write_text('[1, 2]')
    with caplog.at_level('INFO', logger='absl'):
        json_file.load(file)
    assert 'a.json: 0.00 GB of JSON, opened in about 10 minutes' in caplog.text
