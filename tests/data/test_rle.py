"""Run-length encoded masks against pycocotools' encoder and plain loops."""
import numpy as np
import pycocotools.mask as rle_tools
import pytest

from relnet_jax.data.rle import decode_mask, decode_runs
from relnet_jax.data.segmentations import fit_segmentation


def run_lengths(mask):
    """By a plain walk down the columns, background first."""
    runs, value = [0], 0
    for pixel in mask.ravel(order='F').tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def random_masks():
    rng = np.random.default_rng(3)
    yield np.zeros((40, 60), np.uint8)
    yield np.ones((40, 60), np.uint8)
    for density in (0.01, 0.3, 0.9):
        yield (rng.random((40, 60)) < density).astype(np.uint8)
    blob = np.zeros((700, 900), np.uint8)
    blob[100:600, 7:800] = 1
    yield blob


def test_run_lengths_of_compressed_masks_are_those_of_the_pixels():
    for mask in random_masks():
        encoded = rle_tools.encode(np.asfortranarray(mask))
        assert decode_runs(encoded['counts']) == run_lengths(mask)
        assert decode_runs(encoded['counts'].decode()) == run_lengths(mask)
        np.testing.assert_array_equal(decode_mask(encoded), mask)


@pytest.mark.parametrize('counts', [None, '', b'', 5, '\x00\x01', 'zzzzzzz', '~~~~~~~~~~~~0', 'é', '\ud800'])
def test_strings_that_are_no_run_lengths_are_refused(counts):
    runs = decode_runs(counts)
    assert runs is None or sum(runs) != 60 * 40


def test_compressed_and_uncompressed_rle_are_the_same_mask():
    mask = list(random_masks())[3]
    for counts in (run_lengths(mask), rle_tools.encode(np.asfortranarray(mask))['counts'].decode()):
        cleaned, issues = fit_segmentation({'size': [40, 60], 'counts': counts}, 60, 40, 'a')
        assert issues == []
        np.testing.assert_array_equal(decode_mask(cleaned), mask)
