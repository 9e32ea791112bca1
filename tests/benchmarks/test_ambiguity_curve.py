"""The points of benchmarks/ambiguity_curve.py and its picture."""
import pytest

from benchmarks.ambiguity_curve import AMBIGUITY, COLOURS, curve, draw
from benchmarks.gain_by_cue import ALL
from tests.benchmarks.test_gain_by_cue import result


def folder(ambiguity, gain, **settings):
    return [result(run, seed, co_occurrence=50 + gain * (run == 'ours') + seed) |
            dict(settings={AMBIGUITY: ambiguity, 'train.steps': 10} | settings)
            for run in ('base', 'ours', 'presence') for seed in range(3)]


def test_the_gain_is_given_by_ambiguity_from_low_to_high_and_drawn():
    points = curve([folder(0.7, 10), folder(0.0, 0)], 'ours')
    assert list(points) == [0.0, 0.7]
    assert [row['co-occurrence'].mean for row in points.values()] == pytest.approx([0, 0.1])
    axes, = draw(points, 'ours').axes
    lines = dict(zip(COLOURS, axes.containers))
    assert lines['co-occurrence'].lines[0].get_ydata() == pytest.approx([0, 10])
    assert lines[ALL].lines[0].get_ydata() == pytest.approx([0, 10 * 2 / 13])
    assert 'PHANTOM' in axes.get_title()


@pytest.mark.parametrize('second, said', [
    (folder(0.5, 1, **{'train.steps': 20}), 'train.steps: expected 10, got 20'), (folder(0.7, 1), 'two folders'),
    ([result('ours', 0) | dict(settings={AMBIGUITY: 0.1})], 'expected results of ours and base')])
def test_folders_that_do_not_belong_together_are_refused(second, said):
    with pytest.raises(ValueError, match=said):
        curve([folder(0.7, 1), second], 'ours')
