"""Anatomy head, cascade and deformable layer by themselves."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from relnet_jax.models import anatomy_head, cascade
from relnet_jax.models.anatomy_head import AnatomyHead, anatomy_losses, choose_parts, paired_giou
from relnet_jax.models.backbones.deformable import DeformConv
from relnet_jax.models.layers import Conv
from relnet_jax.types import Parts, Proposals

# ---- anatomy ----


def parts_of(batch, seed=0):
    corner, side = np.random.default_rng(seed).uniform(8, 50, (2, 2, 3, 2))
    boxes = jnp.asarray(np.concatenate([corner, corner + side], -1), jnp.float32)
    return batch._replace(part_boxes=boxes, part_valid=jnp.array([[True, True, False], [True, True, True]]))


def test_losses_count_the_parts_that_are_there(tiny_batch):
    anatomy_losses = jax.jit(anatomy_head.anatomy_losses)
    batch = parts_of(tiny_batch())
    sure = jnp.where(batch.part_valid, 50.0, -50.0)
    perfect, metrics = anatomy_losses(batch.part_boxes, sure, batch)
    assert perfect['loss_part_box'][1] == metrics['part_iou'][1] == 5 and perfect['loss_part_presence'][1] == 6
    assert metrics['part_iou'][0] == pytest.approx(5) and perfect['loss_part_presence'][0] == pytest.approx(0)
    assert perfect['loss_part_box'][0] == pytest.approx(0, abs=1e-5)
    missing = batch.part_boxes.at[0, 2].set(jnp.nan)
    np.testing.assert_allclose(anatomy_losses(missing, sure, batch)[0]['loss_part_box'], perfect['loss_part_box'],
                               atol=1e-5)
    moved, metrics = anatomy_losses(batch.part_boxes.at[0, 0, 0].add(4.0), sure, batch)
    assert 0 < moved['loss_part_box'][0] and metrics['part_iou'][0] < 5
    wrong, _ = anatomy_losses(batch.part_boxes, -sure, batch)
    assert wrong['loss_part_presence'][0] == pytest.approx(300)


def test_images_without_parts_or_that_fill_up_the_batch_teach_nothing(tiny_batch):
    batch = parts_of(tiny_batch())
    silent = batch._replace(part_valid=batch.part_valid.at[0].set(False))
    filler = batch._replace(image_valid=jnp.array([False, True]))
    for changed in (silent, filler):
        terms, metrics = anatomy_losses(batch.part_boxes + 1, jnp.zeros((2, 3)), changed)
        assert [count for _, count in (*terms.values(), *metrics.values())] == [3, 3, 3]


def test_giou_is_that_of_hand():
    a = jnp.array([[0., 0., 2., 2.], [0., 0., 1., 1.], [0., 0., 4., 4.]])
    b = jnp.array([[1., 0., 3., 2.], [3., 0., 4., 1.], [1., 1., 3., 3.]])
    np.testing.assert_allclose(paired_giou(a, b), [1 / 3, -0.5, 0.25], atol=1e-6)


def test_parts_given_and_predicted_are_combined_by_mode():
    given = Parts(jnp.ones((1, 3, 4)), jnp.array([[True, False, False]]))
    predicted = jnp.full((1, 3, 4), 2.0), jnp.array([[5.0, 5.0, -5.0]])
    boxes, valid = choose_parts('given_or_predicted', given, predicted)
    np.testing.assert_array_equal(boxes[0, :, 0], [1, 2, 2])
    np.testing.assert_array_equal(valid, [[True, True, False]])
    assert choose_parts('given', given, predicted) is given
    boxes, valid = choose_parts('predicted', given, predicted)
    assert (boxes == 2).all() and valid.tolist() == [[True, True, False]]
    gradient = jax.grad(lambda boxes: choose_parts('predicted', given, (boxes, predicted[1]))[0].sum())(predicted[0])
    assert not gradient.any()


def test_head_finds_boxes_it_sees_within_a_few_steps_and_ignores_the_canvas():
    """Maps with one bright rectangle: the head must read its sides off the map, as no two are at the same place."""
    rng = np.random.default_rng(0)
    low = rng.integers(1, 7, (32, 2))
    high = low + rng.integers(4, 9, (32, 2))
    maps = 0.1 * rng.normal(size=(32, 16, 16, 8)).astype(np.float32)
    for image, (x1, y1), (x2, y2) in zip(maps, low, high):
        image[y1:y2, x1:x2, :4] += 1
    truth = jnp.asarray(16 * np.concatenate([low, high], -1)[:, None], jnp.float32)
    size = jnp.full((32, 2), 256.0)
    head = AnatomyHead()
    params = jax.jit(lambda key: head.init(key, maps, size, 1))(jax.random.key(0))
    tx = optax.adam(3e-3)

    def loss(params):
        boxes, presence = head.apply(params, maps[:24], size[:24], 1)
        ours, target = boxes / 256, truth[:24] / 256
        return jnp.abs(ours - target).sum(-1).mean() + (1 - paired_giou(ours, target)).mean() + 0 * presence.sum()

    @jax.jit
    def fit(params):
        def step(carry, _):
            updates, state = tx.update(jax.grad(loss)(carry[0]), carry[1])
            return (optax.apply_updates(carry[0], updates), state), None
        return jax.lax.scan(step, (params, tx.init(params)), None, length=60)[0][0]

    fitted = fit(params)
    boxes, _ = head.apply(fitted, maps, size, 1)
    assert paired_giou(boxes[:24], truth[:24]).mean() > 0.8     # seen
    assert paired_giou(boxes[24:], truth[24:]).mean() > 0.5     # not seen
    wider = np.pad(maps[:2], ((0, 0), (0, 4), (0, 8), (0, 0)), mode='edge')
    np.testing.assert_allclose(head.apply(fitted, wider, size[:2], 1)[0], boxes[:2], atol=1e-2)


# ---- cascade ----

def test_boxes_are_refined_by_the_deltas_of_the_best_foreground_class():
    rois = Proposals(jnp.array([[[10., 10., 30., 30.], [10., 10., 30., 30.], [10., 10., 30., 30.]]]),
                     jnp.array([[3., 2., 1.]]), jnp.array([[True, True, False]]))
    logits = jnp.array([[[9., 1., 0.], [0., 0., 5.], [0., 1., 0.]]])        # background, then classes 1 and 2
    deltas = jnp.zeros((1, 3, 3, 4)).at[:, :, 1, 0].set(1.0).at[:, :, 2, 0].set(-20.0).at[:, :, 0].set(99.0)
    moved = lambda deltas: cascade.refine(logits, deltas, rois, jnp.array([[100., 100.]]))
    out, gradient = jax.jit(lambda d: (moved(d), jax.grad(lambda d: moved(d).boxes.sum())(d)))(deltas)
    np.testing.assert_allclose(out.boxes[0], [[12, 10, 32, 30], [0, 0, 0, 0], [0, 0, 0, 0]], atol=1e-4)
    assert out.valid.tolist() == [[True, False, False]]     # the second has left the image
    assert out.scores.tolist() == [[3, 2, 1]]
    assert not gradient.any()


def test_stages_are_averaged_as_probabilities():
    rng = np.random.default_rng(0)
    logits = [jnp.asarray(3 * rng.normal(size=(2, 4, 5)), jnp.float32) for _ in range(3)]
    expected = sum(jax.nn.softmax(stage) for stage in logits) / 3
    np.testing.assert_allclose(jax.nn.softmax(cascade.mean_scores(logits)), expected, atol=1e-6)
    assert cascade.mean_scores(logits[:1]) is logits[0]


# ---- deformable layer ----

@pytest.mark.parametrize('version', ['v1', 'v2'])
@pytest.mark.parametrize('stride', [1, 2])
def test_deformable_layer_starts_as_the_plain_one_and_loads_its_kernel(version, stride):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 6, 5)), jnp.float32)
    valid = jnp.ones((2, 8, 6, 1), bool).at[:, 5:].set(False)
    plain, layer = Conv(7, 3, stride, use_bias=False), DeformConv(7, stride, version)
    params = plain.init(jax.random.key(0), x)['params']
    own = layer.init(jax.random.key(1), x)['params']
    assert own['offset']['kernel'].shape == (3, 3, 5, 18 if version == 'v1' else 27)
    out = layer.apply({'params': own | params}, x, valid)
    np.testing.assert_allclose(out, plain.apply({'params': params}, x, valid), atol=1e-4)
    gradient = jax.grad(lambda p: (layer.apply({'params': p}, x) ** 2).sum())(own | params)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))
