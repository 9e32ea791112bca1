"""The measures of benchmarks/company_probe.py."""
import numpy as np
import pytest

from benchmarks.company_probe import auc, probe


def test_auc_counts_pairs_in_order_and_ties_half():
    assert auc(np.array([3.0, 1.0, 2.0, 1.0]), np.array([True, True, False, False])) == (2 + 0.5 + 0) / 4


def test_a_linear_probe_finds_what_is_linear_and_no_exclusive_or():
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], (2000, 6)) + 0.1 * rng.normal(size=(2000, 6))
    assert probe(x, x[:, 2] > 0) == pytest.approx(1, abs=0.01)
    assert probe(x, x[:, 0] * x[:, 1] > 0) == pytest.approx(0.5, abs=0.07)
