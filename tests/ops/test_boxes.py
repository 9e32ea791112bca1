import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.ops.boxes import area, clip, decode, encode, pairwise_ioa, pairwise_iou


def random_boxes(rng, *shape, size=100):
    low = rng.uniform(0, size, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(1, size / 2, (*shape, 2))], -1).astype(np.float32)


def numpy_overlaps(a, b):
    """(intersection, area of a, area of b) in float32, one rounding for each operation."""
    width = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
    height = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    areas = [(x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b)]
    return np.maximum(width, 0) * np.maximum(height, 0), areas[0][:, None], areas[1][None]


def test_iou_and_ioa_of_known_boxes():
    a = jnp.array([[0., 0, 10, 10], [20, 20, 30, 40]])
    b = jnp.array([[5., 5, 15, 15], [0, 0, 10, 10], [22, 20, 27, 60]])
    np.testing.assert_allclose(pairwise_iou(a, b), [[25 / 175, 1, 0], [0, 0, 100 / 300]], rtol=1e-6)
    np.testing.assert_allclose(pairwise_ioa(a, b), [[0.25, 1, 0], [0, 0, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(area(a), [100, 200])


def test_iou_is_bit_identical_compiled_or_not_and_symmetric():
    """A fused multiply-add in one of two places would move boxes across thresholds."""
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 200), random_boxes(rng, 150)
    inter, area_a, area_b = numpy_overlaps(a, b)
    expected = inter / (area_a + area_b - inter)
    np.testing.assert_array_equal(pairwise_iou(a, b), expected)
    np.testing.assert_array_equal(jax.jit(pairwise_iou)(a, b), expected)
    np.testing.assert_array_equal(jax.jit(pairwise_iou)(b, a), expected.T)


def test_overlaps_carry_leading_axes():
    rng = np.random.default_rng(1)
    a, b = random_boxes(rng, 3, 5), random_boxes(rng, 3, 4)
    for f in (pairwise_iou, pairwise_ioa):
        np.testing.assert_allclose(f(a, b), np.stack([f(x, y) for x, y in zip(a, b)]), rtol=1e-6)


@pytest.mark.parametrize('overlap', [pairwise_iou, pairwise_ioa])
def test_degenerate_boxes_overlap_nothing(overlap):
    odd = jnp.array([[0., 0, 0, 0], [5, 5, 5, 9], [9, 9, 3, 3]])
    some = jnp.array([[0., 0, 10, 10], [0, 0, 0, 0], [5, 5, 5, 9]])
    np.testing.assert_array_equal(overlap(odd, some), np.zeros((3, 3)))
    assert np.isfinite(overlap(some, odd)).all()
    assert overlap(jnp.zeros((0, 4)), some).shape == (0, 3)


@pytest.mark.parametrize('name, weights', [('w1', (1., 1., 1., 1.)), ('w10', (10., 10., 5., 5.))])
def test_box_code_matches_torchvision(golden, name, weights):
    proposals, gt = golden['box_coder/proposals'], golden['box_coder/gt']
    encoded = encode(gt, proposals, weights=weights)
    np.testing.assert_allclose(encoded, golden[f'box_coder/{name}_encoded'], rtol=1e-5, atol=1e-5)
    decoded = decode(golden[f'box_coder/{name}_deltas'], proposals, weights=weights)
    np.testing.assert_allclose(decoded, golden[f'box_coder/{name}_decoded'], rtol=1e-5, atol=1e-3)


def test_decode_inverts_encode():
    rng = np.random.default_rng(2)
    targets, references = random_boxes(rng, 2, 30), random_boxes(rng, 2, 30)
    weights = (10., 10., 5., 5.)
    back = decode(encode(targets, references, weights=weights), references, weights=weights)
    np.testing.assert_allclose(back, targets, atol=1e-3)


def test_decode_caps_growth_and_broadcasts_classes():
    deltas = jnp.zeros((1, 1, 3, 4)).at[0, 0, 2].set(jnp.array([0., 0, 50, 50]))
    out = decode(deltas, jnp.array([[[0., 0, 16, 16]]])[:, :, None])
    np.testing.assert_allclose(out[0, 0, :2], [[0, 0, 16, 16]] * 2)
    np.testing.assert_allclose(out[0, 0, 2], [-492, -492, 508, 508], rtol=1e-5)


def test_encode_of_padding_is_zero_with_finite_gradient():
    targets = jnp.array([[0., 0, 0, 0], [1, 1, 5, 5], [4, 4, 2, 2]])
    references = jnp.array([[1., 1, 5, 5], [0, 0, 0, 0], [1, 1, 5, 5]])
    np.testing.assert_array_equal(encode(targets, references), np.zeros((3, 4)))
    gradients = jax.grad(lambda t, r: encode(t, r).sum(), argnums=(0, 1))(targets, references)
    assert all(np.isfinite(g).all() for g in gradients)


def test_clip_uses_each_images_own_size():
    boxes = jnp.broadcast_to(jnp.array([-5., -5, 500, 500]), (2, 3, 2, 4))
    out = clip(boxes, jnp.array([[100., 200], [50, 60]]))
    np.testing.assert_array_equal(out[0], np.broadcast_to([0, 0, 200, 100], (3, 2, 4)))
    np.testing.assert_array_equal(out[1], np.broadcast_to([0, 0, 60, 50], (3, 2, 4)))
