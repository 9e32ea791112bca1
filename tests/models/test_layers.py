import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models import conv3x3, layers, patch_conv
from relnet_jax.models.conv7x7 import conv7x7, convolve, product_kernel_gradient
from relnet_jax.models.mask_head import ClassLogits, Deconv, in_rows

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def convolve_loops(x, kernel, stride):
    """Zero padding k // 2, one output cell after the other."""
    b, h, w, _ = x.shape
    k = kernel.shape[0]
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    out = np.zeros((b, -(-h // stride), -(-w // stride), kernel.shape[-1]))
    for y in range(out.shape[1]):
        for z in range(out.shape[2]):
            patch = padded[:, y * stride:y * stride + k, z * stride:z * stride + k]
            out[:, y, z] = np.tensordot(patch, kernel, 3)
    return out


@pytest.mark.parametrize('kernel_size, stride', [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_conv_equals_a_loop_over_output_cells(kernel_size, stride):
    x = normal(2, 9, 7, 5)
    conv = layers.Conv(4, kernel_size, stride)
    params = conv.init(jax.random.key(0), x)['params'] | {'bias': normal(4)}
    expected = convolve_loops(np.asarray(x), np.asarray(params['kernel']), stride) + np.asarray(params['bias'])
    np.testing.assert_allclose(conv.apply({'params': params}, x), expected, atol=1e-5)


@pytest.mark.parametrize('shape, out', [((3, 10, 8, 4), 6), ((2, 48, 36, 5), 8), ((2, 20, 20, 4), 3),
                                        ((1, 23, 600, 2), 3)],
                         ids=['crops', 'blocks of rows', "XLA's", 'rows longer than a block'])
def test_custom_gradient_of_3x3_equals_automatic_differentiation(shape, out):
    x, kernel, weight = normal(*shape), normal(3, 3, shape[-1], out), normal(*shape[:3], out)

    def loss(convolve):
        return lambda x, kernel: (convolve(x, kernel) * weight).sum()

    expected = jax.grad(loss(conv3x3.convolve), (0, 1))(x, kernel)
    for got, want in zip(jax.grad(loss(conv3x3.conv3x3), (0, 1))(x, kernel), expected):
        np.testing.assert_allclose(got, want, atol=2e-5 * float(jnp.abs(want).max()))
    for form in (conv3x3.xla_kernel_gradient, conv3x3.product_kernel_gradient):
        np.testing.assert_allclose(form(x, weight), expected[1], atol=2e-5 * float(jnp.abs(expected[1]).max()))


@pytest.mark.parametrize('size, stride', [(1, 1), (1, 2), (2, 2), (4, 4)])
def test_convolution_by_patches_has_two_equal_forms_and_their_gradients(size, stride):
    x, kernel = normal(2, 9, 14, 5), normal(size, size, 5, 6)
    weight = normal(2, -(-9 // stride), -(-14 // stride), 6)

    def results(form):
        return form(x, kernel, stride), *jax.grad(lambda *args: (form(*args, stride) * weight).sum(), (0, 1))(x, kernel)

    expected = results(patch_conv.convolve)
    gradients = [patch_conv._gradients(form, x, kernel, weight, stride)
                 for form in (patch_conv.convolve, patch_conv.product)]
    for got in (results(patch_conv.product), results(patch_conv.patch_conv), *((expected[0], *g) for g in gradients)):
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


@pytest.mark.parametrize('shape', [(2, 12, 9, 3), (1, 50, 96, 3)], ids=['one block', 'blocks of rows'])
def test_stem_convolution_by_blocks_equals_the_plain_one_with_its_gradient(shape):
    x, kernel = normal(*shape), normal(7, 7, 3, 5)

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), [(3, 3)] * 2, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

    np.testing.assert_allclose(conv7x7(x, kernel), plain(x, kernel), atol=1e-4)
    grads = [jax.grad(lambda x, k, f=f: (f(x, k) ** 2).sum(), argnums=(0, 1))(x, kernel) for f in (conv7x7, plain)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-2), *grads)


def test_stem_kernel_gradient_as_a_product_equals_automatic_differentiation():
    blocks, kernel, weight = normal(2, 26, 40, 12), normal(4, 4, 12, 6), normal(2, 26, 40, 6)
    expected = jax.grad(lambda kernel: (convolve(blocks, kernel) * weight).sum())(kernel)
    got = product_kernel_gradient(blocks, weight)
    np.testing.assert_allclose(got, expected, atol=2e-5 * float(jnp.abs(expected).max()))


def test_convolution_of_a_padded_map_equals_that_of_the_map_alone():
    image, conv = normal(1, 9, 7, 3), layers.Conv(4, 3, 2)
    padded = jnp.pad(image, ((0, 0), (0, 3), (0, 9), (0, 0)), constant_values=5)
    params = conv.init(jax.random.key(0), image)
    valid = layers.valid_map(jnp.array([[9.0, 7.0]]), 1, (12, 16))
    got = conv.apply(params, padded, valid)[:, :5, :4]
    np.testing.assert_allclose(got, conv.apply(params, image), atol=1e-6)


def test_valid_map_has_the_cells_of_the_true_image():
    valid = np.asarray(layers.valid_map(jnp.array([[33.0, 64.0], [1.0, 5.0]]), 32, (3, 4)))[..., 0]
    np.testing.assert_array_equal(valid.sum((1, 2)), [4, 1])
    assert valid[0, :2, :2].all() and valid[1, 0, 0]


def test_group_norm_is_that_of_each_group_and_ignores_padding():
    x = normal(2, 6, 5, 8)
    norm = layers.GroupNorm()
    params = {'scale': normal(8), 'bias': normal(8)}
    groups = np.asarray(x).reshape(2, 30, 8, 1)         # gcd(32, 8) = 8 groups of one channel
    expected = (groups - groups.mean((1, 3), keepdims=True)) / np.sqrt(groups.var((1, 3), keepdims=True) + 1e-5)
    expected = expected.reshape(x.shape) * np.asarray(params['scale']) + np.asarray(params['bias'])
    np.testing.assert_allclose(norm.apply({'params': params}, x), expected, atol=1e-5)

    padded = jnp.pad(x, ((0, 0), (0, 2), (0, 3), (0, 0)), constant_values=100)
    valid = layers.valid_map(jnp.array([[6.0, 5.0]] * 2), 1, (8, 8))
    np.testing.assert_allclose(norm.apply({'params': params}, padded, valid)[:, :6, :5], expected, atol=1e-5)


def test_group_norm_shares_statistics_within_a_group():
    x = normal(1, 4, 4, 48)                             # gcd(32, 48) = 16 groups of three channels
    params = {'scale': jnp.ones(48), 'bias': jnp.zeros(48)}
    out = np.asarray(layers.GroupNorm().apply({'params': params}, x)).reshape(16, 16, 3)
    np.testing.assert_allclose(out.mean((0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std((0, 2)), 1, atol=1e-3)


def test_norm_of_a_map_that_is_all_padding_is_finite():
    out = layers.GroupNorm().apply({'params': {'scale': jnp.ones(4), 'bias': jnp.zeros(4)}}, normal(1, 3, 3, 4),
                                   jnp.zeros((1, 3, 3, 1), bool))
    assert jnp.isfinite(out).all()


def test_frozen_batch_norm_scales_and_shifts_without_a_gradient():
    x, params = normal(1, 2, 2, 3), {'scale': normal(3), 'bias': normal(3)}

    def total(params):
        return layers.FrozenBatchNorm().apply({'params': params}, x).sum()

    np.testing.assert_allclose(total(params), (x * params['scale'] + params['bias']).sum(), rtol=1e-5)
    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.grad(total)(params)))


def test_unknown_norm_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="'frozen_bn', 'group_norm'.*got 'batch'"):
        layers.make_norm('batch', dtype=jnp.float32, name='norm')


def test_deconvolution_puts_each_cell_into_its_own_two_by_two():
    x, kernel = normal(2, 3, 4, 5), normal(2, 2, 5, 6)
    out = Deconv(6).apply({'params': {'kernel': kernel, 'bias': jnp.full(6, 0.5)}}, x)
    assert out.shape == (2, 3, 4, 2, 2, 6)
    out = jnp.stack([in_rows(out[..., i]) for i in range(6)], -1)
    expected = np.zeros((2, 6, 8, 6))
    for i in range(2):
        for j in range(2):
            expected[:, i::2, j::2] = np.asarray(x) @ np.asarray(kernel[i, j]) + 0.5
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_class_logits_are_those_of_the_whole_convolution_at_the_label():
    x, labels = normal(3, 4, 4, 5), jnp.array([2, 0, 1])
    params = {'kernel': normal(1, 1, 5, 3), 'bias': normal(3)}
    whole = layers.Conv(3).apply({'params': params}, x)
    got = ClassLogits(3).apply({'params': params}, x, labels)
    np.testing.assert_allclose(got, jnp.stack([whole[i, ..., k] for i, k in enumerate(labels)]), atol=1e-5)


def test_bfloat16_layers_hold_float32_parameters():
    conv = layers.Conv(4, 3, dtype=jnp.bfloat16)
    x = normal(1, 5, 5, 3)
    params = conv.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype('float32')}
    assert conv.apply(params, x).dtype == jnp.bfloat16
