"""Progress bars on a terminal; what goes into the log instead is tested in tests/detector/test_run.py."""
import io

from rich.console import Console

from relnet_jax import progress


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
        outer.say('[loss] 0.5')
        outer.advance()
    text = screen.getvalue()
    assert '[loss] 0.5' in text and 'inner' in text and '8/8' in text and '3/3' in text
