"""Object relation: golden values, choice of the best RoIs, the two forms."""
import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax.models.relations.attention import best_rois, masked_softmax
from relnet_jax.models.relations.context_relation import ContextRelation
from relnet_jax.models.relations.object_relation import ObjectAttention, ObjectPosition
from relnet_jax.ops.geometry import geometry_embedding

# Six RoIs, class logits of background and two findings. By foreground probability: 4, 1, 5 (padding), 0, 3, 2.
LOGITS = np.float32([[[0, 1, -9], [0, 3, -9], [5, 0, 0], [2, -9, 1], [0, -9, 4], [0, 2, -9]]])
VALID = np.array([[True, True, True, True, True, False]])


def test_golden(golden_case, golden_context, attention_params, run, assert_close):
    inputs, p, expected = golden_case('object_attention_40x40')
    module = ObjectAttention()
    assert_close(run(module, dict(attention=attention_params(p)), golden_context(inputs)), expected)


def test_best_rois_come_by_score_and_skip_padding(context_factory):
    context = context_factory(batch=1, rois=6, classes=3, class_logits=LOGITS, roi_valid=VALID)
    best, valid = best_rois(context, 3, foreground_first=False)
    np.testing.assert_array_equal(best, [[4, 1, 0]])
    assert valid.all()
    best, valid = best_rois(context, 8, foreground_first=False)
    np.testing.assert_array_equal(best[0, :5], [4, 1, 0, 3, 2])
    np.testing.assert_array_equal(valid, [[True] * 5 + [False] * 3])


def test_background_rois_only_fill_the_end_of_the_list(context_factory):
    # RoI 0 is background by a hair with two findings sharing the rest, yet its best finding beats RoI 1's.
    logits = np.log(np.float32([[[.42, .40, .09, .09], [.30, .34, .18, .18], [.9, .05, .03, .02], [.2, .7, .05, .05]]]))
    context = context_factory(batch=1, rois=4, classes=4, class_logits=logits, roi_valid=np.ones((1, 4), bool))
    np.testing.assert_array_equal(best_rois(context, 4, foreground_first=False)[0], [[3, 0, 1, 2]])
    np.testing.assert_array_equal(best_rois(context, 4, foreground_first=True)[0], [[3, 1, 0, 2]])


def test_equal_scores_go_to_the_lower_index(context_factory):
    context = context_factory(batch=1, rois=4, classes=3, class_logits=np.zeros((1, 4, 3), np.float32),
                              roi_valid=np.ones((1, 4), bool))
    np.testing.assert_array_equal(best_rois(context, 3, foreground_first=True)[0], [[0, 1, 2]])


def test_attention_over_the_best_equals_attention_over_these_boxes(context_factory, random_params, run, assert_close):
    context = context_factory()
    module = ObjectAttention(keys=4)
    params = random_params(module, context)
    odds = np.exp(np.asarray(context.class_logits[:, :9], np.float64))
    order = np.argsort(-(odds / odds.sum(-1, keepdims=True))[..., 1:].max(-1), axis=1)[:, :4]
    pick = lambda x: np.take_along_axis(np.asarray(x), order[..., None], 1)
    same = context._replace(part_boxes=pick(context.boxes), part_features=pick(context.roi_features),
                            part_valid=np.ones((2, 4), bool))
    assert_close(run(module, params, context), run(ContextRelation(parts=(), norm=False), params, same), 1e-5)


def test_position_form_lists_the_best_first_and_zeros_after_the_last(context_factory, run, assert_close):
    context = context_factory(batch=1, rois=6, classes=3, class_logits=LOGITS, roi_valid=VALID)
    module = ObjectPosition(keys=7, em_dim=32, features=0)
    blocks = np.asarray(run(module, {}, context)).reshape(1, 6, 7, 32)
    order = np.array([4, 1, 0, 3, 2])  # findings 4, 1, 0, then background 3, 2
    assert_close(blocks[:, :, :5], geometry_embedding(context.boxes, context.boxes[:, order], dim=32), 1e-5)
    assert not blocks[:, :, 5:].any()


def test_both_widths_of_the_lab(context_factory):
    context = context_factory(rois=70, valid=66)
    wide = lambda module: jax.eval_shape(module.init_with_output, jax.random.key(0), context)[0].shape
    assert wide(ObjectPosition()) == (2, 70, 512)
    assert wide(ObjectPosition(keys=32, em_dim=32, features=0)) == (2, 70, 1024)


def test_masked_softmax_is_the_softmax_of_the_valid_entries():
    logits = jnp.array([[1., 2., 500., -3.], [1e4, 1., 2., 3.], [1., 2., 3., 4.]])
    valid = jnp.array([[True, True, False, True], [True, True, True, True], [False] * 4])
    weights = np.asarray(masked_softmax(logits, valid))
    odds = np.exp([1., 2., -3.])
    np.testing.assert_allclose(weights[0], np.array([odds[0], odds[1], 0, odds[2]]) / odds.sum(), rtol=1e-6)
    np.testing.assert_array_equal(weights[1:], [[1, 0, 0, 0], [0, 0, 0, 0]])
    gradient = jax.grad(lambda x: jnp.sum(masked_softmax(x, valid) ** 2))(logits)
    assert np.isfinite(gradient).all()
