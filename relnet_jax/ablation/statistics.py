"""Means over seeds with their uncertainty, and differences between two runs seed by seed."""
import math
from typing import NamedTuple

from scipy.stats import t as student_t

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Mean of `count` values with its 95 % interval; low and high are NaN below two values, the mean below one."""
    mean: float
    low: float
    high: float
    count: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def interval(values) -> Interval:
    """Student's t interval of the mean: mean +- t(0.975, n - 1) s / sqrt(n), s the sample standard deviation.

    `values`: numbers in any unit, independent of each other. None and NaN (a metric that is not defined) are left out.
    """
    values = [float(v) for v in values if v is not None and not math.isnan(v)]
    n = len(values)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(values: dict, control: dict) -> Interval:
    """Interval of value - control over the seeds that both have; `values` and `control`: seed -> number.

    Runs of equal seed share their data order and, where the models agree, their start: the difference by seed is
    therefore surer than the difference of two means.
    """
    return interval(values[seed] - control[seed] for seed in sorted(values.keys() & control.keys())
                    if values[seed] is not None and control[seed] is not None)
