import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax import losses


def test_sigmoid_cross_entropy_is_the_textbook_form_and_finite_at_the_ends():
    x, t = np.linspace(-8, 8, 33), np.linspace(0, 1, 33)
    p = 1 / (1 + np.exp(-x))
    expected = -t * np.log(p) - (1 - t) * np.log(1 - p)
    np.testing.assert_allclose(
        losses.sigmoid_cross_entropy(jnp.float32(x), jnp.float32(t)), expected, rtol=1e-5, atol=1e-6
    )
    ends = losses.sigmoid_cross_entropy(jnp.array([-1e4, 1e4]), jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(ends, [1e4, 0.0])


def test_softmax_cross_entropy_is_minus_the_log_share_of_the_label():
    logits = np.random.default_rng(0).normal(size=(2, 5, 3))
    labels = np.array([[0, 1, 2, 2, 1], [0, 0, 1, 2, 0]])
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(share, labels[..., None], -1)[..., 0])
    np.testing.assert_allclose(
        losses.softmax_cross_entropy(jnp.float32(logits), jnp.asarray(labels)), expected, rtol=1e-5
    )


def test_the_focal_loss_weighs_what_is_known_less():
    logits = np.float32(np.random.default_rng(0).normal(size=(2, 5, 3)))
    labels = jnp.array([[0, 1, 2, 2, 1], [0, 0, 1, 2, 0]])
    plain = losses.softmax_cross_entropy(logits, labels)
    expected = (1 - np.exp(-plain)) ** 2 * plain
    np.testing.assert_allclose(losses.softmax_focal_loss(logits, labels, gamma=2.0), expected, rtol=1e-5)
    np.testing.assert_array_equal(losses.softmax_focal_loss(logits, labels, gamma=0.0), plain)
    sure = jnp.array([30.0, 0.0])  # p of the label is 1 in float32: neither a loss nor a gradient that is no number
    loss, gradient = jax.value_and_grad(lambda x: losses.softmax_focal_loss(x, jnp.array(0), gamma=0.5))(sure)
    assert loss == 0 and np.isfinite(gradient).all()
    wrong = losses.softmax_focal_loss(-sure, jnp.array(0), gamma=2.0)
    np.testing.assert_allclose(wrong, 30, rtol=1e-6)


def test_smooth_l1_is_quadratic_below_its_knee_and_linear_above():
    x = jnp.array([0.0, 0.05, -0.1, 0.2, -3.0])
    np.testing.assert_allclose(losses.smooth_l1(x, jnp.zeros(5), beta=0.1), [0, 0.0125, 0.05, 0.15, 2.95], rtol=1e-5)
    np.testing.assert_allclose(losses.smooth_l1(x, jnp.zeros(5), beta=0.0), jnp.abs(x))


def test_losses_of_bfloat16_logits_are_float32():
    half = jnp.ones((2, 3), jnp.bfloat16)
    assert losses.sigmoid_cross_entropy(half, jnp.ones((2, 3))).dtype == jnp.float32
    assert losses.softmax_cross_entropy(half, jnp.array([0, 1])).dtype == jnp.float32
    assert losses.smooth_l1(half, jnp.ones((2, 3)), beta=1.0).dtype == jnp.float32


def test_masked_sum_ignores_nan_outside_its_mask_in_value_and_gradient():
    values, mask = jnp.array([1.0, jnp.nan, 3.0]), jnp.array([True, False, True])
    assert losses.masked_sum(values, mask) == 4
    np.testing.assert_array_equal(jax.grad(losses.masked_sum)(values, mask), [1, 0, 1])
