"""Which steps stay: the last, the best, and the last one before the loss went out of range."""
from types import SimpleNamespace

import pytest

from relnet_jax.runs import rotation


def kept(losses, keep=1, scores=None):
    """The steps that are left of a run whose step i + 1 had losses[i] (None: not known), a save after the other."""
    policy, there = rotation.policy(keep, 'box_AP50'), []
    for step, loss in enumerate(losses, 1):
        metrics = {} if loss is None else rotation.loss_metrics(loss, there[-1].metrics if there else {})
        there.append(SimpleNamespace(step=step, metrics=metrics | (scores or {}).get(step, {}), time=None))
        stays = policy.should_preserve(there, context=None)
        there = [info for info, stay in zip(there, stays, strict=True) if stay]
    return [info.step for info in there]


@pytest.mark.parametrize('losses, steps', [
    ([4.0, 2.0, 1.0, 0.9, 1.1], [5]),                       # a healthy run keeps no more than it was told to
    ([4.0, 2.0, 1.0, 1e3, 1e8, 1e20], [3, 6]),              # a diverged one its last healthy step too
    ([4.0, 2.0, 1.0, 1e3, 1.2, 1.1], [6]),                  # and no more once it has come back
    ([4.0, 1.0, 9.0, 80.0, 700.0], [3, 5]),                 # a slow one too
    ([None, None, 2.0, None], [3, 4]), ([None, None], [2]), ([0.0, 0.0], [2])])
def test_the_last_healthy_step_stays(losses, steps):
    assert kept(losses) == steps


def test_the_last_ones_and_the_best_stay_beside_it():
    assert kept([4.0, 2.0, 1.0, 1e3, 1e8, 1e20], keep=2, scores={1: dict(box_AP50=0.5), 4: dict(box_AP50=0.1)}
                ) == [1, 3, 5, 6]


def test_divergence_is_said_when_it_is_saved(caplog):
    kept([2.0, 1.0, 1e8])
    assert 'the loss of 1e+08 before step 3 is out of range; step 2, with 1, is kept beside the l' in caplog.text
