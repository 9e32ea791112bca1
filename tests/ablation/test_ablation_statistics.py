import math

import numpy as np
import pytest
import scipy.stats

from relnet_jax.ablation.statistics import Interval, interval, paired_difference


def test_the_interval_is_the_one_of_the_textbook():
    """Mean 2.5, s = sqrt(5/3), t(0.975, 3) = 3.182446: half width 3.182446 * 1.290994 / 2 = 2.054260."""
    found = interval([1, 2, 3, 4])
    assert found.mean == 2.5 and found.count == 4
    assert found.half_width == pytest.approx(2.054260, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((0.445740, 4.554260), abs=1e-6)


def test_the_interval_agrees_with_scipys():
    values = np.random.default_rng(0).normal(0.4, 0.02, 7)
    expected = scipy.stats.t.interval(0.95, 6, loc=values.mean(), scale=scipy.stats.sem(values))
    assert interval(values)[1:3] == pytest.approx(expected, rel=1e-12)


def test_one_value_has_a_mean_and_no_interval():
    found = interval([0.3])
    assert found.mean == 0.3 and found.count == 1 and math.isnan(found.low) and math.isnan(found.half_width)
    assert not found.excludes_zero


def test_undefined_values_do_not_count():
    assert interval([1.0, None, math.nan, 3.0]) == interval([1.0, 3.0])
    nothing = interval([None])
    assert nothing.count == 0 and math.isnan(nothing.mean)


def test_equal_values_have_an_interval_of_no_width():
    assert interval([0.2, 0.2, 0.2])[:3] == pytest.approx((0.2, 0.2, 0.2))


@pytest.mark.parametrize('low, high, excludes', [(0.1, 0.3, True), (-0.3, -0.1, True), (-0.1, 0.3, False)])
def test_zero_is_inside_or_outside(low, high, excludes):
    assert Interval(0.0, low, high, 3).excludes_zero is excludes


def test_differences_are_paired_by_seed_and_surer_than_the_means():
    """Differences 5, 6, 4: mean 5, s = 1, t(0.975, 2) = 4.302653: half width 4.302653 / sqrt(3) = 2.484138."""
    values, control = {0: 45.0, 1: 50.0, 2: 46.0}, {1: 44.0, 0: 40.0, 2: 42.0}
    found = paired_difference(values, control)
    assert found.mean == pytest.approx(5.0) and found.half_width == pytest.approx(2.484138, abs=1e-6)
    assert found.excludes_zero and found.half_width < interval(values.values()).half_width


def test_only_seeds_that_both_have_are_compared():
    found = paired_difference({0: 1.0, 1: 9.0, 2: None, 3: 4.0}, {0: 0.5, 2: 1.0, 3: 1.0, 7: 5.0})
    assert found.count == 2 and found.mean == pytest.approx((0.5 + 3.0) / 2)
    assert paired_difference({0: 1.0}, {1: 1.0}).count == 0
