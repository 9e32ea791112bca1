"""Fusion by concatenation in any order, or by addition."""
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models.relations import fuse

ROI, A, B = jnp.full((1, 2, 3), 1.0), jnp.full((1, 2, 2), 2.0), jnp.full((1, 2, 3), 3.0)


def test_concatenation_follows_the_order():
    assert fuse(ROI, dict(a=A, b=B))[0, 0].tolist() == [1, 1, 1, 2, 2, 3, 3, 3]
    assert fuse(ROI, dict(a=A, b=B), order=('b', 'roi', 'a'))[0, 0].tolist() == [3, 3, 3, 1, 1, 1, 2, 2]
    np.testing.assert_array_equal(fuse(ROI, {}), ROI)


def test_addition_sums_equal_widths():
    np.testing.assert_array_equal(fuse(ROI, dict(b=B, c=2 * B), fusion='add'), np.full((1, 2, 3), 10.0))
    with pytest.raises(ValueError, match="relation 'a' must be 3 wide to be added, got 2"):
        fuse(ROI, dict(a=A), fusion='add')


def test_result_has_the_dtype_of_the_roi_features():
    half = ROI.astype(jnp.bfloat16)
    assert fuse(half, dict(a=A)).dtype == fuse(half, dict(b=B), fusion='add').dtype == jnp.bfloat16


@pytest.mark.parametrize('order', [('roi', 'a'), ('roi', 'a', 'b', 'b'), ('roi', 'a', 'c')])
def test_an_order_must_hold_every_feature_once(order):
    with pytest.raises(ValueError, match='fusion_order: must hold each of'):
        fuse(ROI, dict(a=A, b=B), order=order)


def test_other_ways_of_fusing_are_refused():
    with pytest.raises(ValueError, match="'cat' or 'add', got 'mean'"):
        fuse(ROI, dict(a=A), fusion='mean')
