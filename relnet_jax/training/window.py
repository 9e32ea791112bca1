"""The steps since the last log line: their metrics, their images, the time they took and how much of it was waiting."""
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from relnet_jax.data.source import Source
from relnet_jax.errors import UserError
from relnet_jax.trees import not_finite
from relnet_jax.types import Array, Batch


class NonFiniteLoss(UserError):
    """The loss or its gradient became NaN or infinite."""


class Window:
    """Metrics stay on the devices until `check` fetches them, so that the host does not wait for every step. It does
    wait for the step before the last one: then it is never far ahead, and time spent in `read` means late data.

    `since_log`: what a window of that name held when a run was stopped, so that its next line is as if it had not been.
    """

    def __init__(self, source: Source, *, batch_size: int, since_log: Sequence[dict[str, float]] = ()):
        self._source, self._batch_size = source, batch_size
        self._pending: list[tuple[int, Array, dict]] = []   # step, image_index, metrics on the devices
        self._values: list[dict] = []                       # metrics on the host
        self._losses: list[float] = []                      # since the last checkpoint
        self._discarded = 0.0
        self._clear()
        self._values.extend(since_log)
        self.restart()

    def _clear(self) -> None:
        self._values.clear()
        self._seconds, self._waited, self._steps = 0.0, 0.0, 0

    def _tick(self) -> None:
        now = time.monotonic()
        self._seconds += now - self._mark
        self._mark = now

    def read(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; the time is counted as waiting for data."""
        start = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - start
        return batch

    def add(self, step: int, image_index: Array, metrics: dict) -> None:
        """Takes in a step that was started: its metrics (float32 [] on devices) and the positions of its images [B]."""
        self._pending.append((step, np.asarray(image_index), metrics))
        if len(self._pending) > 1:
            jax.block_until_ready(self._pending[-2][2])
        self._steps += 1
        self._tick()

    def restart(self) -> None:
        """Leaves what went on since the last `add` or `means` (evaluation, saving) out of the time per step."""
        self._mark = time.monotonic()

    def discard(self) -> float:
        """Leaves the steps so far out of the time per step (the first one compiles). Waits; returns seconds."""
        jax.block_until_ready([metrics for _, _, metrics in self._pending])
        self._tick()
        self._discarded = self._seconds
        self._seconds, self._waited, self._steps = 0.0, 0.0, 0
        return self._discarded

    def check(self, params: Any = None) -> None:
        """Fetches what is pending; raises NonFiniteLoss at the first step that is not finite, naming its images, and
        for parameters that are not."""
        fetched = jax.device_get([metrics for _, _, metrics in self._pending])
        for (step, image_index, _), values in zip(self._pending, fetched):
            if not values['finite']:
                ids, bad = self._source.image_ids, sorted(k for k, v in values.items() if not np.isfinite(v))
                raise NonFiniteLoss(f"step {step}: {', '.join(bad)} not finite, in a batch of the images (by id) "
                                    f"{', '.join(str(ids[i]) for i in image_index)}; no checkpoint holds this state")
            if self._values and self._values[0].keys() != values.keys():
                self._values.clear()        # of a model that the run was stopped with
            self._values.append({k: float(v) for k, v in values.items()})
            self._losses.append(float(values['loss']))
        self._pending.clear()
        if bad := not_finite(params):
            raise NonFiniteLoss(f'parameters that are not finite: {"; ".join(bad[:3])}; no checkpoint holds this state')

    @property
    def since_log(self) -> list[dict[str, float]]:
        """Metrics of the steps since the last `means`, as far as `check` has fetched them."""
        return list(self._values)

    def loss_since_save(self) -> float | None:
        """Mean loss of the steps since the last call, None where there was none; `check` comes first."""
        losses, self._losses = self._losses, []
        return float(np.mean(losses)) if losses else None

    def means(self) -> dict[str, float]:
        """Means over the window, and an empty window again.

        `lr` is the last step's; `loss_mask` is over the steps that had masks. Added are `seconds_per_step`,
        `images_per_second` and `data_wait`, the share of the time spent waiting for data.
        """
        self.check()
        self._tick()
        columns = {k: np.array([v[k] for v in self._values], np.float64) for k in self._values[0] if k != 'finite'}
        out = {k: float(v.mean()) for k, v in columns.items()} | {'lr': float(columns['lr'][-1])}
        if columns.get('mask_rois', np.zeros(1)).any():
            out['loss_mask'] = float(columns['loss_mask'][columns['mask_rois'] > 0].mean())
        per_step = self._seconds / self._steps if self._steps else self._discarded
        out |= dict(seconds_per_step=per_step, images_per_second=self._batch_size / max(per_step, 1e-9),
                    data_wait=self._waited / max(self._seconds, 1e-9))
        self._clear()
        return out
