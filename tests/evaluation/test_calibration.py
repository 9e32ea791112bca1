import numpy as np
import pytest

from relnet_jax.evaluation.calibration import (
    BINS,
    Judged,
    expected_calibration_error,
    fit_temperature,
    judged,
    reliability,
)
from relnet_jax.evaluation.ranking import Ranked
from relnet_jax.runs.operating_points import calibrated


def judged_of(score, right, image=None):
    score = np.array(score, float)
    return Judged(np.zeros(len(score), int) if image is None else np.array(image), score, np.array(right, bool))


def test_the_error_counted_by_hand():
    # bins of 1/15: 0.90 and 0.92 share one, in which 1 of 2 is right; 0.10 is alone and wrong
    of = judged_of([0.90, 0.92, 0.10], [True, False, False])
    r = reliability(of, np.ones((1, 1)))
    assert r.count.shape == (BINS, 1) and np.flatnonzero(r.count[:, 0]).tolist() == [1, 13]
    assert r.score[13, 0] == pytest.approx(0.91) and r.right[13, 0] == 0.5 and np.isnan(r.right[0, 0])
    assert expected_calibration_error(r) == pytest.approx([2 / 3 * 0.41 + 1 / 3 * 0.10])


def test_the_error_is_that_of_plain_loops_also_of_films_drawn_several_times():
    rng = np.random.default_rng(0)
    score, image = rng.random(500), rng.integers(0, 40, 500)
    right = rng.random(500) < score ** 2
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=3)
    found = expected_calibration_error(reliability(judged_of(score, right, image), weights.astype(float)))
    for w, error in zip(weights, found):
        s, y = np.repeat(score, w[image]), np.repeat(right, w[image])
        expected = 0
        for low in range(BINS):
            here = (s >= low / BINS) & (s < (low + 1) / BINS)
            if here.any():
                expected += here.mean() * abs(y[here].mean() - s[here].mean())
        assert error == pytest.approx(expected, abs=1e-12)


def test_a_score_of_1_lies_in_the_last_bin_and_no_detections_have_no_error():
    assert reliability(judged_of([1.0], [True]), np.ones((1, 1))).count[-1] == 1
    assert np.isnan(expected_calibration_error(reliability(judged_of([], []), np.ones((1, 2)))))


def test_what_counts_neither_way_is_not_judged():
    r = Ranked(np.array([0, 1, 2]), np.array([0.9, 0.5, 0.4]), np.array([True, False, False]),
               np.array([False, False, True]), np.ones(3))
    of = judged([r, r])
    assert of.score.tolist() == [0.9, 0.4] * 2 and of.right.tolist() == [True, False] * 2
    assert of.image.tolist() == [0, 2] * 2 and len(judged([]).score) == 0


@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.5])
def test_the_temperature_is_found_again(temperature):
    rng = np.random.default_rng(1)
    score = rng.beta(1, 2, 60_000)
    of = judged_of(score, rng.random(60_000) < calibrated(score, temperature))
    fitted = fit_temperature(of)
    assert fitted == pytest.approx(temperature, rel=0.04)
    after = reliability(of._replace(score=calibrated(score, fitted)), np.ones((1, 1)))
    assert expected_calibration_error(after)[0] < 0.01


def test_the_temperature_is_the_most_likely_one_of_a_fine_grid():
    rng = np.random.default_rng(2)
    score, right = rng.random(80), rng.random(80) < 0.3
    grid = np.geomspace(0.05, 20, 4000)
    p = [np.where(right, calibrated(score, t), 1 - calibrated(score, t)) for t in grid]
    best = grid[np.argmax(np.log(np.maximum(p, 1e-300)).mean(1))]
    assert fit_temperature(judged_of(score, right)) == pytest.approx(best, rel=5e-3)


def test_without_right_or_without_wrong_ones_nothing_is_changed():
    for right in ([True, True], [False, False]):
        assert fit_temperature(judged_of([0.3, 0.8], right)) == 1
    assert fit_temperature(judged_of([], [])) == 1
