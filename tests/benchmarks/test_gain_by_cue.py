"""The grouping of benchmarks/gain_by_cue.py."""
import pytest

from benchmarks.gain_by_cue import ALL, gains
from relnet_jax.data.phantom import class_cues


def result(run, seed, **points):
    """A result file's part in which every class told by a cue has as many points as given for it."""
    return dict(run=run, seed=seed, per_class_AP50={name: points.get(rule.cue.replace('-', '_'), 50) / 100
                                                    for name, rule in class_cues().items()})


def test_differences_are_paired_by_seed_and_kept_apart_by_cue():
    found = [result('base', 0), result('base', 1, co_occurrence=40), result('base', 2),
             result('fpn3', 0, co_occurrence=60, texture=49), result('fpn3', 1, co_occurrence=52, texture=49)]
    row = gains(found, 'base')['fpn3']
    assert row['co-occurrence'].mean == pytest.approx(0.11) and row['co-occurrence'].count == 2
    assert row['position'].mean == pytest.approx(0) and row['texture'].mean == pytest.approx(-0.01)
    assert row[ALL].mean == pytest.approx((2 * 0.11 - 2 * 0.01) / len(class_cues()))
