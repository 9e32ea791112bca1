"""Progress bars on a terminal; what goes into the log instead is tested in tests/detector/test_run.py."""
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from relnet_jax import progress

ROOT = Path(__file__).resolve().parents[1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_within_bars_count_and_what_is_said_stays_above_them(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(progress.sys, 'stderr', screen)
    monkeypatch.setattr(
        progress, '_console', lambda console=Console(file=screen, force_terminal=True, width=100): console
    )
    with progress.Bar('outer', total=3, unit='step', done=1, lines=False) as outer:
        outer.advance()
        with progress.Bar('inner', total=8, unit='img') as inner:
            inner.advance(8)
        outer.say('a block', line='a line', note='loss 0.5')
        outer.advance()
    text = screen.getvalue()
    assert 'loss 0.5' in text and 'inner' in text and '8/8' in text and '3/3' in text and 'a block' not in text


def test_beside_a_bar_a_line_stays_for_every_tenth_and_without_one_every_block_goes_into_the_log(monkeypatch, caplog):
    def said(screen):
        monkeypatch.setattr(progress.sys, 'stderr', screen)
        monkeypatch.setattr(progress, '_console', lambda console=Console(file=screen, force_terminal=True): console)
        caplog.clear()
        with caplog.at_level('INFO', logger='absl'), progress.Bar('x', total=40, unit='step', lines=False) as bar:
            for step in range(1, 41):
                bar.advance()
                bar.say(f'block {step}', line=f'line {step}', note='')
        return caplog.messages
    assert said(Terminal()) == [f'line {step}' for step in range(4, 41, 4)]
    assert said(io.StringIO()) == [f'block {step}' for step in range(1, 41)]


SAID = """
import sys
from absl import logging
from relnet_jax import cli, progress
def command(call):
    logging.info('first')
    with progress.Bar('work', total=2, unit='step', lines=False) as bar:
        bar.advance()
        logging.warning('careful')
        logging.error('wrong')
sys.exit(cli.run('it', '', lambda values: None, command, ['--'], overrides=False))
"""


def test_lines_have_the_time_alone_on_a_terminal_and_stay_above_the_bar_and_absls_form_in_a_file(tmp_path):
    ours, theirs = pty.openpty()
    with open(tmp_path / 'log', 'w') as log:
        for stderr in (theirs, log):
            subprocess.run([sys.executable, '-c', SAID], cwd=ROOT, stderr=stderr, check=True)
    os.close(theirs)
    screen = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', os.read(ours, 1 << 16).decode())
    for text in ('first', 'WARNING: careful', 'ERROR: wrong'):
        assert re.search(rf'(^|[\r\n])\d\d:\d\d:\d\d {text}[\r\n]', screen), screen
    lines = (tmp_path / 'log').read_text().splitlines()
    assert [re.fullmatch(r'(\w)\d{4} \d\d:\d\d:\d\d\.\d+ \d+ \S+:\d+\] (.*)', line).groups() for line in lines] == [
        ('I', 'first'), ('W', 'careful'), ('E', 'wrong')]
