"""The measure of benchmarks/proposal_recall.py."""
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from benchmarks.proposal_recall import make_overlaps
from relnet_jax.types import Batch, Proposals


def test_an_object_is_held_by_its_best_valid_proposal():
    boxes = jnp.array([[[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 5]]], jnp.float32)
    found = Proposals(boxes, jnp.zeros((1, 3)), jnp.array([[False, True, True]]))
    detector = SimpleNamespace(apply=lambda variables, batch, method: found)
    batch = Batch(*[None] * len(Batch._fields))._replace(
        gt_boxes=jnp.array([[[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]]], jnp.float32))
    np.testing.assert_allclose(make_overlaps(detector)({}, batch), [[0.5, 1.0, 0.0]])
