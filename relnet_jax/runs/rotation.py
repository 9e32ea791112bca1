"""Which steps of a run are kept: the last ones, the best one, and the last one that had not diverged."""
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

TRAIN_LOSS = 'train_loss'       # in the metrics of a step: mean of the loss since the step that was saved before
LOWEST_LOSS = 'lowest_loss'     # the smallest of these in the run so far
DIVERGED = 10.0                 # times that


def loss_metrics(loss: float, before: dict) -> dict[str, float]:
    """What a step with this `loss` stores of it; `before`: metrics of the step before, {} for the first one."""
    return {TRAIN_LOSS: loss, LOWEST_LOSS: min(loss, before.get(LOWEST_LOSS, loss))}


def policy(keep: int, best: str) -> preservation_policy.PreservationPolicy:
    """The last `keep` steps, the one with the highest metric `best`, and `LastHealthy`."""
    return preservation_policy.AnyPreservationPolicy(
        [preservation_policy.LatestN(keep), preservation_policy.BestN(n=1, get_metric_fn=lambda m: score(m, best)),
         LastHealthy()])


def score(metrics: dict, best: str) -> float:
    value = metrics.get(best)
    return -np.inf if value is None else value


class LastHealthy:
    """The newest step whose loss is at most DIVERGED times the smallest one of the run.

    While a run is healthy that is its last step. Once it diverges, the last step before stays beside the last ones,
    however long it goes on. A loss that jumps for another reason costs the room of one more step, and no step.
    """

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        losses = [(info.metrics or {}).get(TRAIN_LOSS) for info in checkpoints]
        lowest = min(((info.metrics or {}).get(LOWEST_LOSS, np.inf) for info in checkpoints), default=np.inf)
        healthy = [loss is not None and loss <= DIVERGED * lowest for loss in losses]
        last = max((i for i, is_healthy in enumerate(healthy) if is_healthy), default=None)
        if last is not None and losses[-1] is not None and not healthy[-1]:
            logging.warning('the loss of %.3g before step %d is out of range; step %d, with %.3g, is kept beside the '
                            'last ones', losses[-1], checkpoints[-1].step, checkpoints[last].step, losses[last])
        return [i == last for i in range(len(checkpoints))]
