"""The soak: memory that grows is told from memory that does not, a training that fails from one that was stopped."""
import sys

import pytest

from benchmarks import soak

CHILD = """
import signal, sys, time
kept, grows = [], int(sys.argv[2])
signal.signal(signal.SIGTERM, lambda *a: sys.exit(75))
open(sys.argv[1] + '/metrics.jsonl', 'w').write('{"step": 7, "split": "train"}\\n')
for _ in range(1000):
    kept.append(b'x' * grows)
    time.sleep(0.01)
"""


def samples(values):
    return [dict(seconds=10.0 * i, resident_mb=v, step=i) for i, v in enumerate(values)]


@pytest.mark.parametrize('values, flat', [
    ([100, 900, 1500, 1000, 1000, 1010, 1000, 1000], True),
    ([1500, 1500, 1000, 1000, 1000, 1000, 900, 900], True),
    ([1000 + 10 * i for i in range(100)], False), ([1000] * 60 + [1030] * 40, False)])
def test_growth_is_that_of_the_last_quarter_over_the_one_before_the_middle(values, flat):
    assert soak.summary(samples(values))['flat'] is flat


def test_the_memory_of_another_process_is_followed(tmp_path):
    command = [sys.executable, '-c', CHILD, str(tmp_path), '300000']
    found = soak.sample(command, tmp_path, tmp_path / 'log', seconds=3, every=0.05)
    assert found[-1]['step'] == 7 and found[-1]['resident_mb'] > found[0]['resident_mb'] + 10
    assert soak.draw(found, 'text').axes[0].lines[0].get_xdata()[-1] == found[-1]['seconds'] / 60


@pytest.mark.parametrize('code, said', [('print("x", file=sys.stderr); sys.exit(2)', 'ended after .*: x'),
                                        ('signal.signal(15, lambda *a: sys.exit(0)); time.sleep(60)', 'with the code')])
def test_a_training_that_ends_otherwise_is_an_error(tmp_path, code, said):
    with pytest.raises(RuntimeError, match=said):
        soak.sample([sys.executable, '-c', f'import signal, sys, time; {code}'], tmp_path, tmp_path / 'log', seconds=2,
                    every=0.05)
