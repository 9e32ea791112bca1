"""Masks in every form that files give them, and those that no file should."""
import numpy as np
import pycocotools.mask as rle_tools
import pytest

from relnet_jax.data.rle import decode_mask
from relnet_jax.data.segmentations import fit_segmentation, mask_box, read_segmentation

NAN = float('nan')
SQUARE = [1, 1, 9, 1, 9, 9, 1, 9]
PAIRS = [[1, 1], [9, 1], [9, 9], [1, 9]]


def clean(segmentation, width=60, height=40):
    read, issues = read_segmentation(segmentation, 'a')
    fitted, more = fit_segmentation(read, width, height, 'a')
    return fitted, issues + more


@pytest.mark.parametrize('segmentation', [None, [], [[]], [[], []], [[[]]], {}, ''])
def test_no_mask_is_no_problem(segmentation):
    assert clean(segmentation) == (None, [])


@pytest.mark.parametrize('segmentation', [
    'text', 5, True, [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [[1, 2, 3, 4, 5, NAN]], [7], [[1, 2], [3, 4]],
    [[None] * 6], [['x'] * 6],
    [[1, 2, 3, 4, 5, int('9' * 400)]], [[True] * 6], [[[[[[[[[[SQUARE]]]]]]]]]], [{}, {}], ['ab', 'cd'],
    [[1, 2, 3, 4, 5, 1e308], [1, 2]], [[1, 1, 9, 1, -1e308, 9]], [[1, 1, 9, 1, 1e8, 9]], [[1e9, 1, 1e9, 2, 2e9, 3]]])
def test_broken_polygons_leave_a_box_without_mask(segmentation):
    cleaned, issues = clean(segmentation)
    assert cleaned is None and issues[-1].rule == 'box kept without mask'


def test_one_broken_polygon_leaves_the_others():
    for broken in ([1, 2], [1, 1, 9, 1, 1e8, 9], ['a'] * 6):
        cleaned, issues = clean([SQUARE, broken])
        assert cleaned == [SQUARE] and [(i.found, i.rule) for i in issues] == [('1 of 2', 'left out')]


@pytest.mark.parametrize('segmentation, words', [
    (SQUARE, 'too shallow'), ([[SQUARE]], 'too deep'), ([[[SQUARE]]], 'too deep'), (PAIRS, 'pairs'), ([PAIRS], 'pairs'),
    ([[PAIRS]], 'pairs'), ([[str(v) for v in SQUARE]], 'text'), ([str(v) for v in SQUARE], 'too shallow')])
def test_polygons_in_other_lists_and_words_are_read_and_said(segmentation, words):
    cleaned, issues = clean(segmentation)
    assert cleaned == [SQUARE] and len(issues) == 1 and issues[0].rule == 'read' and words in issues[0].problem


def test_several_polygons_of_pairs_stay_apart():
    cleaned, _ = clean([PAIRS, [[20, 20], [30, 20], [30, 30]]])
    assert cleaned == [SQUARE, [20, 20, 30, 20, 30, 30]]


def test_a_polygon_that_would_fill_the_memory_is_left_out():
    zigzag = [v for i in range(5000) for v in (0, 0, 4000, i % 4000)]
    assert clean([zigzag], 4000, 4000)[0] is None
    round_and_round = [v for i in range(40) for v in (0, 0, 4000, 0, 4000, i)]
    assert clean([round_and_round], 4000, 4000) == ([round_and_round], [])


@pytest.mark.parametrize('rle, words', [
    ({'size': [60, 40], 'counts': [2400]}, "not of the image's size"),
    ({'counts': [2400]}, 'without a size'),
    ({'size': [40, 60], 'counts': [10, 20]}, 'malformed'),
    ({'size': [40, 60], 'counts': [2410, -10]}, 'malformed'),
    ({'size': [40, 60], 'counts': 'zzzz'}, 'malformed'),
    ({'size': [40, 60], 'counts': '\ud800'}, 'malformed'),
    ({'size': [40, 60], 'counts': 'ü'}, 'malformed'),
    ({'size': [40, 60]}, 'without a size'),
    ({'size': 5, 'counts': [2400]}, 'without a size'),
    ({'size': [40, 60], 'counts': ['a', 'b']}, 'without a size'),
    ({'size': [40, 60], 'counts': [1.5, 2398.5]}, 'without a size'),
    ({'size': [40, 60], 'counts': [[2400]]}, 'without a size'),
    ({'size': [40, 60], 'counts': [2400]}, 'empty'),
    ({'size': [40, 60], 'counts': [10 ** 400, 2]}, 'malformed'),
])
def test_broken_and_empty_rle_leave_a_box_without_mask(rle, words):
    cleaned, issues = clean(rle)
    assert cleaned is None and words in issues[0].problem and issues[0].rule == 'box kept without mask'


def test_every_writing_of_an_rle_is_the_same_mask():
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:50] = 1
    runs = [1210, *[10, 30] * 19, 10, 420]
    text = rle_tools.encode(np.asfortranarray(mask))['counts']
    plain = {'size': [40, 60], 'counts': runs}
    forms = [(plain, 0), (plain | {'size': ['40', 60.0]}, 0), ([plain], 1)]
    forms += [
        (plain | {'counts': counts}, said)
        for counts, said in (
            (text, 0),
            (text.decode(), 0),
            (str(text), 1),
            ([float(run) for run in runs], 1),
            ([str(run) for run in runs], 1),
        )
    ]
    for rle, said in forms:
        cleaned, issues = clean(rle)
        np.testing.assert_array_equal(decode_mask(cleaned), mask)
        assert mask_box(cleaned) == [30, 10, 50, 20] and [i.rule for i in issues] == ['read'] * said
