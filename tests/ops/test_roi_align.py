import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.ops import roi_align as forms
from relnet_jax.ops.roi_align import assign_levels

STRIDES = (4, 8, 16)
STATIC = ('strides', 'output_size', 'sampling_ratio', 'aligned')
roi_align, roi_align_plain = (jax.jit(f, static_argnames=STATIC) for f in (forms.roi_align, forms.roi_align_plain))


@pytest.fixture(scope='module')
def scene():
    """Pyramid of two 64 x 80 images with 6 channels, boxes [2, 9, 4], some on and over edges, levels [2, 9]."""
    rng = np.random.default_rng(0)
    pyramid = tuple(jnp.asarray(rng.standard_normal((2, 64 // s, 80 // s, 6)), jnp.float32) for s in STRIDES)
    low = rng.uniform(-10, 70, (2, 9, 2))
    boxes = np.concatenate([low, low + np.exp(rng.uniform(0, 4, (2, 9, 2)))], -1).astype(np.float32)
    boxes[0, :4] = [[0, 0, 80, 64], [5, 5, 5, 5], [-90, -90, -60, -60], [70, 50, 200, 90]]
    return pyramid, jnp.asarray(boxes), jnp.asarray(rng.integers(0, 3, (2, 9)), jnp.int32)


@pytest.mark.parametrize('form', [roi_align, roi_align_plain])
@pytest.mark.parametrize('size', [7, 14])
@pytest.mark.parametrize('aligned', [False, True])
def test_matches_torchvision(golden, form, size, aligned):
    features, boxes, image = (golden[f'roi_align/{k}'] for k in ('feature_nhwc', 'boxes', 'batch_index'))
    both = np.stack([boxes, boxes])
    out = form((features,), both, np.zeros(both.shape[:2], np.int32), strides=(4,), output_size=size, aligned=aligned)
    expected = golden[f'roi_align/out_{size}_aligned{int(aligned)}']
    np.testing.assert_allclose(np.asarray(out)[image, np.arange(len(boxes))], expected, atol=2e-5)


@pytest.mark.parametrize('sampling_ratio', [1, 2, 3])
@pytest.mark.parametrize('aligned', [False, True])
def test_gather_form_equals_plain_form_over_a_pyramid(scene, sampling_ratio, aligned):
    options = dict(strides=STRIDES, output_size=5, sampling_ratio=sampling_ratio, aligned=aligned)
    out = roi_align(*scene, **options)
    assert out.shape == (2, 9, 5, 5, 6) and out.dtype == jnp.float32
    np.testing.assert_allclose(out, roi_align_plain(*scene, **options), atol=1e-5)
    np.testing.assert_array_equal(out[0, 2], 0)      # wholly outside


def test_both_forms_of_the_forward_pass_are_equal(scene):
    """Whatever the backend at hand would choose; the plain form is compared with the one it does choose."""
    pyramid, boxes, levels = scene
    shapes, options = [level.shape[1:3] for level in pyramid], dict(output_size=5, sampling_ratio=2, aligned=False)
    extents = jnp.broadcast_to(jnp.array(shapes, jnp.float32), (2, 3, 2))
    taps = forms._taps(shapes, STRIDES, boxes, levels, extents, options)
    at_once, one_by_one = (jax.jit(form)(forms._flatten(pyramid), *taps)
                           for form in (forms._gather_forward, forms._loop_forward))
    np.testing.assert_allclose(one_by_one, at_once, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(at_once, roi_align_plain(*scene, strides=STRIDES, **options), atol=1e-5)


@pytest.mark.parametrize('backward', ['_loop_backward', '_scatter_backward'])
def test_gradient_equals_automatic_differentiation_of_the_plain_form(scene, backward):
    """Both forms of the gradient, whatever the backend at hand would choose."""
    pyramid, boxes, levels = scene
    options = dict(output_size=5, sampling_ratio=2, aligned=False)
    weight = jnp.asarray(np.random.default_rng(1).standard_normal((2, 9, 5, 5, 6)), jnp.float32)
    loss = lambda p: (weight * forms.roi_align_plain(p, boxes, levels, strides=STRIDES, **options)).sum()
    expected = jax.jit(jax.grad(loss))(pyramid)
    shapes = [level.shape[1:3] for level in pyramid]
    extents = jnp.broadcast_to(jnp.array(shapes, jnp.float32), (2, 3, 2))
    taps = forms._taps(shapes, STRIDES, boxes, levels, extents, options)
    flat = jax.jit(getattr(forms, backward))(jnp.zeros_like(forms._flatten(pyramid)), *taps, weight)
    for ours, theirs in zip(forms._unflatten(flat, shapes, 2), expected):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_gradient_reaches_the_features_and_not_the_boxes(scene):
    pyramid, boxes, levels = scene
    options = dict(strides=STRIDES, output_size=5)
    loss = lambda form, p, b: (form(p, b, levels, **options) ** 2).sum()
    features, box = jax.jit(jax.grad(functools.partial(loss, forms.roi_align), argnums=(0, 1)))(pyramid, boxes)
    expected = jax.jit(jax.grad(functools.partial(loss, forms.roi_align_plain)))(pyramid, boxes)
    for ours, theirs in zip(features, expected):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_array_equal(box, jnp.zeros_like(boxes))


def test_bfloat16_features_are_summed_in_float32(scene):
    pyramid, boxes, levels = scene
    half = tuple(level.astype(jnp.bfloat16) for level in pyramid)
    options = dict(strides=STRIDES, output_size=5)
    exact = roi_align(tuple(level.astype(jnp.float32) for level in half), boxes, levels, **options)
    out = roi_align(half, boxes, levels, **options)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, exact.astype(jnp.bfloat16))   # one rounding, at the end

    loss = lambda p: forms.roi_align(p, boxes, levels, **options).astype(jnp.float32).sum()
    ours, expected = jax.jit(jax.grad(loss))(half), jax.jit(jax.grad(loss))(pyramid)
    for a, b in zip(ours, expected):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=0.01, atol=1e-3)


def test_padding_and_order_of_boxes_do_not_matter(scene):
    pyramid, boxes, levels = scene
    options = dict(strides=STRIDES, output_size=3)
    out = roi_align(pyramid, boxes, levels, **options)
    order = np.random.default_rng(2).permutation(9)
    np.testing.assert_array_equal(roi_align(pyramid, boxes[:, order], levels[:, order], **options), out[:, order])
    padded = roi_align(pyramid, jnp.pad(boxes, ((0, 0), (0, 4), (0, 0))), jnp.pad(levels, ((0, 0), (0, 4))), **options)
    np.testing.assert_array_equal(padded[:, :9], out)
    assert np.isfinite(padded).all()


def test_an_image_on_a_larger_canvas_reads_as_if_its_maps_ended_with_it(scene):
    """The reference reads the maps of each image cut off; NaN shows any touch of what lies beyond."""
    pyramid, boxes, levels = scene
    sizes = np.array([[37.0, 50.0], [64.0, 21.0]], np.float32)
    boxes = boxes.at[0, 4:6].set(jnp.array([[46., 20., 50., 36.], [10., 34., 30., 37.]]))       # thin, at the edges
    boxes = boxes.at[1, :2].set(jnp.array([[18., 5., 21., 60.], [19., 60., 21., 64.]]))
    options = dict(strides=STRIDES, output_size=5)
    weight = jnp.asarray(np.random.default_rng(3).standard_normal((1, 9, 5, 5, 6)), jnp.float32)
    cells = lambda size: [[int(-(-side // s)) for side in size] for s in STRIDES]
    outside = [np.stack([(np.arange(m.shape[1]) >= cells(size)[i][0])[:, None]
                         | (np.arange(m.shape[2]) >= cells(size)[i][1]) for size in sizes])
               for i, m in enumerate(pyramid)]
    marked = tuple(jnp.where(out[..., None], jnp.nan, level) for out, level in zip(outside, pyramid))

    def ours(pyramid):
        return roi_align(pyramid, boxes, levels, image_size=sizes, **options)
    out, gradient = ours(marked), jax.grad(lambda p: (weight * ours(p)).sum())(pyramid)
    for i, size in enumerate(sizes):
        cut = tuple(level[i:i + 1, :rows, :columns] for level, (rows, columns) in zip(pyramid, cells(size)))
        plain = functools.partial(roi_align_plain, boxes=boxes[i:i + 1], levels=levels[i:i + 1], **options)
        np.testing.assert_allclose(out[i:i + 1], plain(cut), atol=1e-5)
        expected = jax.grad(lambda p, plain=plain: (weight * plain(p)).sum())(cut)
        for a, b, beyond in zip(gradient, expected, outside):
            np.testing.assert_allclose(a[i, :b.shape[1], :b.shape[2]], b[0], atol=1e-5)
            assert not np.asarray(a[i])[beyond[i]].any()


def test_compiled_equals_not_compiled_and_no_boxes_give_nothing(scene):
    pyramid, boxes, levels = scene
    options = dict(strides=STRIDES, output_size=3)
    np.testing.assert_allclose(roi_align(*scene, **options), forms.roi_align(*scene, **options), atol=1e-5)
    assert roi_align(pyramid, boxes[:, :0], levels[:, :0], **options).shape == (2, 0, 3, 3, 6)


def test_one_stride_for_each_map(scene):
    with pytest.raises(ValueError, match='one stride for each of 3 maps, got 2'):
        forms.roi_align(*scene, strides=(4, 8), output_size=3)


def test_levels_follow_equation_1_with_exact_powers_on_their_level():
    side = np.float32([0, 10, 111.9, 112, 223.9, 224, 447, 448, 5000])
    boxes = np.stack([0 * side, 0 * side, side, side], -1)
    np.testing.assert_array_equal(assign_levels(boxes), [2, 2, 2, 3, 3, 4, 4, 5, 5])
    wide = np.float32([[10, 10, 10 + 448, 10 + 112]])
    np.testing.assert_array_equal(assign_levels(wide), [4])
    np.testing.assert_array_equal(assign_levels(boxes[:, None], min_level=3, max_level=4).ravel(),
                                  [3, 3, 3, 3, 3, 4, 4, 4, 4])
    assert assign_levels(boxes).dtype == jnp.int32
