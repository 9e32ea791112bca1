"""A run's folder: one training at a time, which can write there and has room."""
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from relnet_jax.errors import UserError
from relnet_jax.runs import workdir
from relnet_jax.runs.workdir import check_room, held

ROOT = Path(__file__).resolve().parents[2]
HOLDER = '''
import sys
from relnet_jax.runs.workdir import held
with held(sys.argv[1]):
    print('held', flush=True)
    sys.stdin.read()
'''


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path / 'run'."""
    with subprocess.Popen([sys.executable, '-c', HOLDER, str(tmp_path / 'run')], cwd=ROOT, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == 'held\n'
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path, holder):
    with pytest.raises(UserError, match=f"run': process {holder.pid} on .+, since 20.+, trains there; wait for it"):
        with held(tmp_path / 'run'):
            pytest.fail('two hold it')
    holder.send_signal(signal.SIGKILL)      # what it wrote stays, the lock does not
    holder.wait()
    with held(tmp_path / 'run'):
        assert json.loads((tmp_path / 'run' / '.lock').read_text())['pid'] == os.getpid()


def test_within_a_process_too_and_free_again_at_the_end(tmp_path):
    with pytest.raises(ZeroDivisionError), held(tmp_path):
        with pytest.raises(UserError, match=f'process {os.getpid()} on '), held(tmp_path):
            pytest.fail('two hold it')
        raise ZeroDivisionError
    (tmp_path / '.lock').write_text('{"pid": half a lin')
    with held(tmp_path):
        pass


def test_where_locks_are_unknown_the_run_goes_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def unknown(*args):
        raise OSError(38, 'Function not implemented')
    monkeypatch.setattr(workdir.fcntl, 'flock', unknown)
    with held(tmp_path):
        assert 'cannot be locked (Function not implemented): take care' in caplog.text


def test_what_is_no_folder_is_named(tmp_path):
    (tmp_path / 'file').touch()
    for path in ('file', 'file/run'):
        with pytest.raises(OSError) as caught, held(tmp_path / path):
            pytest.fail('held')
        assert str(tmp_path / 'file') in str(caught.value.filename)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_that_may_not_be_written_to_is_named(tmp_path):
    (tmp_path / 'run').mkdir(mode=0o500)
    with pytest.raises(PermissionError, match='run/.lock'), held(tmp_path / 'run'):
        pytest.fail('held')


def test_a_disk_too_small_for_one_checkpoint_is_an_error_for_all_of_them_a_warning(tmp_path, monkeypatch, caplog):
    usage = namedtuple('usage', 'free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(50_000_000))
    check_room(tmp_path, 10_000_000, keep=2)
    assert not caplog.records
    check_room(tmp_path, 11_000_000, keep=2)
    assert 'the disk has 50.0 MB left, and the checkpoints of this run may take 55.0 MB more' in caplog.text
    for step in (3, 4, 5, 6):       # they are there already, and one will go for each that comes
        (tmp_path / 'checkpoints' / str(step)).mkdir(parents=True)
    caplog.clear()
    check_room(tmp_path, 50_000_000, keep=2)
    assert not caplog.records
    with pytest.raises(UserError, match='a checkpoint takes 50.0 MB, and the disk has 50.0 MB left'):
        check_room(tmp_path, 50_000_001, keep=2)
