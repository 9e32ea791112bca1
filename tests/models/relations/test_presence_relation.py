"""Presence relation: golden values, which RoIs count as elsewhere, what each option changes, and its memory."""
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models.relations.presence_relation import PresenceRelation, shares

FILE = np.load(Path(__file__).resolve().parents[2] / 'golden' / 'presence.npz')
GOLDEN = {name.removeprefix('presence/'): FILE[name] for name in FILE.files}


@pytest.fixture(scope='module')
def golden(context_factory):
    """(context, parameters) of the golden case."""
    fields = {name: GOLDEN[f'input/{name}'] for name in ('boxes', 'roi_valid', 'class_logits', 'adjacency')}
    params = dict(fc=dict(kernel=GOLDEN['param/fc_w'], bias=GOLDEN['param/fc_b']),
                  norm=dict(scale=GOLDEN['param/norm_scale'], bias=GOLDEN['param/norm_bias']))
    return context_factory(rois=40, classes=14, **fields), jax.tree.map(jnp.asarray, params)


@pytest.fixture(scope='module')
def context(context_factory):
    return context_factory(8, rois=20, valid=17)


@pytest.fixture(scope='module')
def params(context, random_params):
    return random_params(PresenceRelation(), context)


def seen(module, params, context):
    """(result, q, RoI with q) as numpy."""
    out, state = jax.jit(lambda p, c: module.apply({'params': p}, c, mutable='intermediates'))(params, context)
    return np.asarray(out), *(np.asarray(state['intermediates'][name][0]) for name in ('presence', 'presence_roi'))


def reference(context, iou=0.3, counted=None):
    """q float64 [B, N, K - 1] and the RoI that has it, loop by loop; `counted` bool [B, N]: RoIs that may have it."""
    boxes, logits = np.asarray(context.boxes, np.float64), np.asarray(context.class_logits, np.float64)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    counted = np.asarray(context.roi_valid if counted is None else counted)
    q, rois = np.zeros_like(p[..., 1:]), np.zeros(p[..., 1:].shape, int)
    for b, i, j in np.ndindex(*boxes.shape[:2], boxes.shape[1]):
        one, two = boxes[b, i], boxes[b, j]
        sides = np.maximum(np.minimum(one[2:], two[2:]) - np.maximum(one[:2], two[:2]), 0)
        shared = sides.prod()
        if counted[b, j] and shared / (np.prod(one[2:] - one[:2]) + np.prod(two[2:] - two[:2]) - shared) < iou:
            rois[b, i] = np.where(p[b, j, 1:] > q[b, i], j, rois[b, i])
            q[b, i] = np.maximum(q[b, i], p[b, j, 1:])
    return q, rois


def test_evidence_and_result_are_the_golden_ones(golden, assert_close):
    context, params = golden
    out, q, _ = seen(PresenceRelation(), params, context)
    valid = GOLDEN['input/roi_valid']
    told = np.log(np.clip(q, 1e-3, 1 - 1e-3) / (1 - np.clip(q, 1e-3, 1 - 1e-3)))
    assert_close(told[valid], GOLDEN['evidence'][valid], 1e-5)
    over_graph = np.asarray(told) @ np.asarray(shares(context.adjacency)).T
    assert_close(over_graph[valid], GOLDEN['evidence_over_graph'][valid], 1e-5)
    assert_close(out[valid], GOLDEN['expected'][valid], 1e-5)


def test_a_class_without_images_has_an_empty_row_of_the_graph():
    graph = jnp.asarray([[1., 0, 0, 0], [0, 3, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(shares(graph), [[0.75, 0.25, 0], [0.5, 0.5, 0], [0, 0, 0]])


@pytest.mark.parametrize('iou', [0.05, 0.3, 1.1])
def test_evidence_is_the_highest_probability_among_valid_rois_that_overlap_less(context, params, iou):
    valid = np.asarray(context.roi_valid)
    _, q, rois = seen(PresenceRelation(iou=iou), params, context)
    expected, where = reference(context, iou)
    np.testing.assert_allclose(q[valid], expected[valid], atol=1e-6)
    np.testing.assert_array_equal(rois[valid], where[valid])
    if iou > 1:     # the RoI itself counts, too: all see the same
        assert np.ptp(q[0, :17], axis=0).max() == 0


def test_a_roi_alone_finds_nothing_elsewhere(context, params):
    alone = context._replace(roi_valid=context.roi_valid & (jnp.arange(20) == 0))
    out, q, _ = seen(PresenceRelation(), params, alone)
    assert not q[:, 0].any() and np.isfinite(out).all()
    twins = context._replace(boxes=jnp.broadcast_to(context.boxes[:, :1], context.boxes.shape))
    _, q, _ = seen(PresenceRelation(), params, twins)
    assert not q.any()


@pytest.mark.parametrize('keys', [17, 19, 20, 128, 0])
def test_a_limit_of_keys_that_is_not_reached_changes_nothing(context, params, keys):
    unlimited = seen(PresenceRelation(keys=0), params, context)
    valid = np.asarray(context.roi_valid)
    for got, expected in zip(seen(PresenceRelation(keys=keys), params, context), unlimited):
        np.testing.assert_allclose(got[valid], expected[valid], rtol=1e-6, atol=1e-6)


def test_keys_are_the_rois_of_highest_foreground_probability(context, params):
    found = np.asarray(jax.nn.softmax(context.class_logits))[..., 1:].max(-1)
    found = np.where(context.roi_valid, found, -1)
    best = found >= np.sort(found, axis=1)[:, -5:-4]
    _, q, rois = seen(PresenceRelation(keys=5), params, context)
    expected, where = reference(context, counted=best)
    np.testing.assert_allclose(q[:, :17], expected[:, :17], atol=1e-6)
    some = expected[:, :17] > 0
    np.testing.assert_array_equal(rois[:, :17][some], where[:, :17][some])
    assert np.abs(expected - reference(context)[0])[:, :17].max() > 1e-3


def test_ground_truths_are_told_but_do_not_tell_unless_the_config_says_so(context, params):
    proposed = context.roi_valid & (jnp.arange(20) >= 4)
    joined = context._replace(proposed=proposed)
    without = reference(context, counted=proposed)[0]
    for keys in (0, 13):        # as many as there are proposals: no place among the keys is taken by a ground truth
        _, q, _ = seen(PresenceRelation(keys=keys), params, joined)
        np.testing.assert_allclose(q[:, :17], without[:, :17], atol=1e-6)
    assert q[:, :4].any()
    _, q, _ = seen(PresenceRelation(gt_boxes=True), params, joined)
    np.testing.assert_allclose(q[:, :17], reference(context)[0][:, :17], atol=1e-6)
    assert np.abs(q[:, :17] - without[:, :17]).max() > 1e-3


def test_a_class_of_which_nothing_is_to_be_known_is_at_the_floor_and_the_others_stay(context, params):
    without = context._replace(class_valid=jnp.ones((2, 5), bool).at[1, 3].set(False))
    out, q, _ = seen(PresenceRelation(), params, context)
    less, q_less, _ = seen(PresenceRelation(), params, without)
    np.testing.assert_array_equal(q_less[0], q[0])
    np.testing.assert_array_equal(np.delete(q_less[1], 2, axis=-1), np.delete(q[1], 2, axis=-1))
    assert not q_less[1, :, 2].any() and np.abs(less[1] - out[1]).max() > 1e-3


@pytest.mark.parametrize('gradient', [False, True])
def test_the_first_pass_learns_from_the_relation_only_where_asked(context, params, gradient):
    module = PresenceRelation(gradient=gradient)

    def total(logits):
        weight = jnp.asarray(np.random.default_rng(0).normal(size=(2, 20, 64)), jnp.float32)
        return jnp.sum(module.apply({'params': params}, context._replace(class_logits=logits)) * weight)
    found = np.asarray(jax.jit(jax.grad(total))(context.class_logits))
    assert np.isfinite(found).all() and bool(found.any()) == gradient
    assert not found[:, 17:].any()


def test_a_missing_graph_is_refused(context, params):
    with pytest.raises(ValueError, match=r'presence relation: adjacency must be \[5, 5\], got None'):
        PresenceRelation().apply({'params': params}, context._replace(adjacency=None))


@pytest.mark.parametrize('gradient', [False, True])
def test_memory_does_not_hold_every_pair_times_every_class(context_factory, random_params, gradient):
    """1000 RoIs x 128 keys x 100 classes would be 51 MB; one [N, keys] array is 0.5 MB."""
    context = context_factory(batch=1, rois=1000, valid=1000, classes=101)
    module = PresenceRelation(gradient=gradient)
    params = random_params(module, context)
    def total(p, logits):
        return jnp.sum(module.apply({'params': p}, context._replace(class_logits=logits)))
    compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(params, context.class_logits).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 12e6
