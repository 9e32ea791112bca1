"""Files that are there whole or not at all, and read the same in any language of the system."""
import ast
import os
import re
from pathlib import Path

import pytest

import relnet_jax
from relnet_jax import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_at_the_end_and_nothing_else_is_left(tmp_path):
    path = tmp_path / 'metrics.json'
    files.write_text(path, 'old')
    with files.replacing(path) as scratch:
        assert scratch.parent == tmp_path and scratch.suffix == '.json'
        scratch.write_text('new')
        assert path.read_text() == 'old'
    assert path.read_text() == 'new' and names(tmp_path) == ['metrics.json']


def test_where_writing_fails_the_old_file_stays(tmp_path):
    path = tmp_path / 'metrics.json'
    files.write_json(path, dict(a=1))
    with pytest.raises(KeyboardInterrupt):
        with files.replacing(path) as scratch:
            scratch.write_text('half')
            raise KeyboardInterrupt
    with pytest.raises(TypeError):
        files.write_json(path, dict(a={1}))
    assert path.read_text() == '{\n "a": 1\n}\n' and names(tmp_path) == ['metrics.json']


def test_two_processes_that_write_at_once_do_not_share_a_name(tmp_path, monkeypatch):
    path = tmp_path / 'metrics.json'
    with files.replacing(path) as first:
        first.write_text('first')
        with monkeypatch.context() as patch:
            patch.setattr(os, 'getpid', lambda: -1)
            files.write_text(path, 'second')
        assert path.read_text() == 'second'
    assert path.read_text() == 'first' and names(tmp_path) == ['metrics.json']


@pytest.mark.parametrize('path', ['nowhere/x.json', 'file/x.json', 'folder'])
def test_an_error_names_the_file_that_was_to_be(tmp_path, path):
    (tmp_path / 'file').touch()
    (tmp_path / 'folder').mkdir()
    with pytest.raises(OSError) as caught:
        files.write_text(tmp_path / path, 'x')
    assert str(caught.value.filename) == str(tmp_path / path)
    assert names(tmp_path) == ['file', 'folder']


def texts_without_encoding(path):
    """(line, call) of every text file that is opened, read or written in the encoding of the system's language."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.Call) or any(k.arg == 'encoding' for k in node.keywords):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, 'attr', '')
        binary = re.search(r"'[rwa+]*b\+?'", ast.unparse(node))
        own_writer = isinstance(node.func, ast.Name) or ast.unparse(node.func) == 'files.write_text'
        if (name == 'open' and isinstance(node.func, ast.Name) and not binary
                or name in ('read_text', 'write_text') and not own_writer):
            found.append((node.lineno, ast.unparse(node)))
    return found


@pytest.mark.parametrize('path', sorted(Path(relnet_jax.__file__).parent.rglob('*.py')), ids=lambda path: path.stem)
def test_every_text_file_names_its_encoding(path):
    assert not texts_without_encoding(path)


def test_a_text_file_without_encoding_is_found(tmp_path):
    file = tmp_path / 'a.py'
    file.write_text("open(a)\nopen(b, 'rb')\np.read_text()\nfiles.write_text(p, t)\nq.write_text(t)\n"
                    "open(c, 'w', encoding='utf-8')\nImage.open(d)\n", encoding='utf-8')
    assert [line for line, _ in texts_without_encoding(file)] == [1, 3, 5]
