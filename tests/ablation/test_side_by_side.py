"""Processes that share the runs of an ablation."""
import os
import signal
import sys
import time

import pytest

from relnet_jax import ablate
from relnet_jax.ablation import side_by_side


def test_a_run_belongs_to_one_process_at_a_time(tmp_path):
    assert not side_by_side.busy(tmp_path, 'base_s0')
    with side_by_side.claim(tmp_path, 'base_s0') as first, side_by_side.claim(tmp_path, 'base_s0') as second:
        assert first and not second and side_by_side.busy(tmp_path, 'base_s0')
        assert not side_by_side.busy(tmp_path, 'base_s1')
    with side_by_side.claim(tmp_path, 'base_s0') as again:
        assert again


def test_every_core_is_given_away_and_none_twice(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 1, 2, 3, 6})
    assert side_by_side.cores(2) == [{0, 2, 6}, {1, 3}]
    assert side_by_side.cores(7) == [{0}, {1}, {2}, {3}, {6}, {0}, {1}]


def test_each_process_has_its_cores_and_its_log(tmp_path):
    script = 'import os, time; time.sleep(0.5); print(os.sched_getaffinity(0))'
    looks = []
    code = side_by_side.run([sys.executable, '-c', script], tmp_path, 2, lambda: looks.append(1))
    assert code == 0 and looks
    assert [(tmp_path / 'logs' / f'process_{i}.txt').read_text().strip() for i in range(2)] == [
        str(part) for part in side_by_side.cores(2)]


def test_what_is_wrong_with_a_process_is_said(tmp_path, caplog):
    script = 'import sys; print("no such run"); sys.exit(2)'
    with caplog.at_level('ERROR', logger='absl'):
        assert side_by_side.run([sys.executable, '-c', script], tmp_path, 2, lambda: None) == 2
    assert len(caplog.messages) == 2 and all(m.endswith('process_%d.txt: no such run' % i)
                                             for i, m in enumerate(caplog.messages))


@pytest.mark.parametrize('number, raised', [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit),
                                            (signal.SIGHUP, SystemExit)])
def test_when_it_is_stopped_so_are_they(tmp_path, number, raised):
    def stop():
        os.kill(os.getpid(), number)
    if signal.getsignal(number) == signal.SIG_IGN:      # as under nohup
        signal.signal(number, signal.SIG_DFL)
    begun, before = time.monotonic(), signal.getsignal(number)
    with pytest.raises(raised):
        side_by_side.run([sys.executable, '-c', 'import time; time.sleep(60)'], tmp_path, 2, stop)
    assert time.monotonic() - begun < 30 and signal.getsignal(number) == before


def test_ctrl_c_of_the_terminal_reaches_them_by_one_way_alone(tmp_path):
    script = 'import os; print(os.getpgrp() == os.getpid())'
    assert side_by_side.run([sys.executable, '-c', script], tmp_path, 2, lambda: None) == 0
    assert [(tmp_path / 'logs' / f'process_{i}.txt').read_text().strip() for i in range(2)] == ['True', 'True']


def test_the_recorded_command_is_the_same_for_any_number_of_processes():
    assert side_by_side.without(['--runs=a', '--processes=2', '--seeds=3'], 'processes') == ['--runs=a', '--seeds=3']
    assert side_by_side.without(['--processes', '2', '--seeds', '3'], 'processes') == ['--seeds', '3']


@pytest.mark.parametrize('code', [0, 2])
def test_the_command_passes_on_all_but_the_number_of_processes_and_its_failures(tmp_path, monkeypatch, caplog, code):
    called = []

    def run(command, out, count, progress):
        progress(), progress()
        called.append((command[2:], out, count))
        return code
    monkeypatch.setattr(side_by_side, 'run', run)
    with caplog.at_level('INFO', logger='absl'):
        assert ablate.main(['--runs=base', '--processes=3', f'--out={tmp_path}', '--seeds=2']) == (1 if code else 0)
    assert called == [(['relnet_jax.ablate', '--runs=base', f'--out={tmp_path}', '--seeds=2', '--processes=1'],
                       tmp_path, 3)]
    assert [m for m in caplog.messages if 'time left' in m] == [
        '0 of 2 runs with their seeds are done; time left: unknown before the first run is done']
    assert ('not finished: base_s0, base_s1' in caplog.text) == (code != 0)
