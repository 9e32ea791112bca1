"""Part relation: golden values, missing parts, left-right flips."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models.relations.part_relation import PartRelation

SWAPPED = np.array([1, 0, 3, 2, 4])  # left and right scapula, left and right lung, heart


def mirrored(boxes, width):
    return jnp.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], -1)


def test_golden(golden_case, golden_context, run, assert_close):
    inputs, _, expected = golden_case('part_relation')
    assert_close(run(PartRelation(norm=False), {}, golden_context(inputs)), expected)


def test_golden_with_norm_and_relu(golden_case, golden_context, run, assert_close):
    inputs, p, expected = golden_case('part_relation_norm_relu')
    params = dict(norm=dict(scale=p['norm_scale'], bias=p['norm_bias']))
    assert_close(run(PartRelation(), params, golden_context(inputs)), expected)


def test_a_missing_part_gives_zeros_and_leaves_the_others_alone(context_factory, run):
    context = context_factory()
    full = context._replace(part_valid=jnp.ones((2, 5), bool))
    blocks = lambda c: np.asarray(run(PartRelation(norm=False), {}, c)).reshape(2, 12, 5, 64)
    assert not blocks(context)[1, :, 4].any()
    np.testing.assert_array_equal(blocks(context)[:, :, :4], blocks(full)[:, :, :4])


def test_flipping_the_image_swaps_the_blocks_of_left_and_right(context_factory, run):
    context = context_factory()
    module = PartRelation(norm=False)
    flipped = context._replace(boxes=mirrored(context.boxes, 256), part_valid=context.part_valid[:, SWAPPED],
                               part_boxes=mirrored(context.part_boxes, 256)[:, SWAPPED])
    blocks = lambda c: np.asarray(run(module, {}, c)).reshape(2, 12, 5, 64)
    expected = blocks(context)[:, :, SWAPPED]
    np.testing.assert_allclose(blocks(flipped), expected, atol=1e-5)
    unswapped = flipped._replace(part_boxes=flipped.part_boxes[:, SWAPPED], part_valid=flipped.part_valid[:, SWAPPED])
    assert np.abs(blocks(unswapped) - expected).max() > 0.5


def test_parts_that_do_not_exist_are_refused(context_factory):
    with pytest.raises(ValueError, match=r'parts must lie in 0..4, got \(1, 5\)'):
        jax.eval_shape(PartRelation(parts=(1, 5)).init, jax.random.key(0), context_factory())
