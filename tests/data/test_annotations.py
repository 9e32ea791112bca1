"""The rules for broken annotations, one by one."""
import numpy as np
import pytest

from relnet_jax.data import annotations as A

NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize('bbox', [
    None, [], [1, 2, 3], [1, 2, 3, 4, 5], [NAN, 1, 2, 3], [1, 1, INF, 3], ['1', 2, 3, 4], 'box'])
def test_boxes_that_are_not_four_numbers_are_dropped(bbox):
    box, issue = A.clean_box(bbox, 60, 40, 'a')
    assert box is None and 'four finite numbers' in issue.problem and issue.rule == 'dropped'


@pytest.mark.parametrize('bbox, words', [
    ([5, 5, 0, 3], 'zero'), ([5, 5, 3, 0.0], 'zero'), ([0, 0, 0, 0], 'zero'), ([9, 9, -3, 4], 'negative'),
    ([60, 5, 3, 3], 'outside'), ([-9, 5, 9, 3], 'outside')])
def test_boxes_without_area_in_the_image_are_dropped(bbox, words):
    box, issue = A.clean_box(bbox, 60, 40, 'a')
    assert box is None and words in issue.problem and issue.rule == 'dropped'


@pytest.mark.parametrize('bbox, expected', [([-4, 5, 10, 5], [0, 5, 6, 10]), ([55, 35, 10, 10], [55, 35, 60, 40]),
                                            ([-1, -1, 100, 100], [0, 0, 60, 40])])
def test_boxes_across_the_border_are_clipped_and_reported(bbox, expected):
    box, issue = A.clean_box(bbox, 60, 40, 'a')
    assert box == expected and issue.rule == 'clipped'


@pytest.mark.parametrize('bbox', [[59, 39, 1, 1], [0, 0, 60, 40], [10.5, 3.25, 0.5, 0.75], [50, 30, 10.004, 10]])
def test_good_boxes_pass_without_a_word(bbox):
    box, issue = A.clean_box(bbox, 60, 40, 'a')
    assert issue is None
    np.testing.assert_allclose(box, [bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]], atol=0.01)
    assert box[2] <= 60 and box[3] <= 40


@pytest.mark.parametrize('segmentation', [None, []])
def test_no_mask_is_no_problem(segmentation):
    assert A.clean_segmentation(segmentation, 60, 40, 'a') == (None, None)


@pytest.mark.parametrize('segmentation', [
    'text', 5, [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [[1, 2, 3, 4, 5, NAN]], [7]])
def test_broken_polygons_leave_a_box_without_mask(segmentation):
    cleaned, issue = A.clean_segmentation(segmentation, 60, 40, 'a')
    assert cleaned is None and issue.rule == 'box kept without mask'


def test_one_broken_polygon_leaves_the_others():
    good = [1, 1, 9, 1, 9, 9]
    cleaned, issue = A.clean_segmentation([good, [1, 2]], 60, 40, 'a')
    assert cleaned == [good] and issue.found == '1 of 2' and issue.rule == 'left out'


@pytest.mark.parametrize('rle, words', [
    ({'size': [60, 40], 'counts': [2400]}, "not of the image's size"),
    ({'counts': [2400]}, "not of the image's size"),
    ({'size': [40, 60], 'counts': [10, 20]}, 'malformed'),
    ({'size': [40, 60], 'counts': [2410, -10]}, 'malformed'),
    ({'size': [40, 60], 'counts': 'zzzz'}, 'malformed'),
    ({'size': [40, 60]}, 'malformed'),
    ({'size': 5, 'counts': [2400]}, "not of the image's size"),
    ({'size': [40, 60], 'counts': ['a', 'b']}, 'malformed'),
    ({'size': [40, 60], 'counts': [2400]}, 'empty'),
])
def test_broken_and_empty_rle_leave_a_box_without_mask(rle, words):
    cleaned, issue = A.clean_segmentation(rle, 60, 40, 'a')
    assert cleaned is None and words in issue.problem and issue.rule == 'box kept without mask'


def test_masks_that_span_something_else_than_the_box_are_reported_and_kept():
    triangle = [[10, 10, 30, 10, 30, 30]]
    base = {'category_id': 3, 'segmentation': triangle}
    found, issues = A.clean_annotation(base | {'bbox': [10, 10, 20, 20]}, 60, 40, where='a')
    assert found['segmentation'] == triangle and not issues
    found, issues = A.clean_annotation(base | {'bbox': [10, 10, 40, 20]}, 60, 40, where='a')
    assert found['segmentation'] == triangle and len(issues) == 1 and issues[0].rule == 'both kept'
    found, issues = A.clean_annotation(base | {'bbox': [9, 11, 21, 19]}, 60, 40, where='a')
    assert not issues, 'a pixel of difference is no disagreement'


def test_a_clipped_box_is_compared_with_the_visible_part_of_its_mask():
    square = [[-20, 10, 20, 10, 20, 30, -20, 30]]
    found, issues = A.clean_annotation({'category_id': 3, 'bbox': [-20, 10, 40, 20], 'segmentation': square}, 60, 40, where='a')
    assert found['box'] == [0, 10, 20, 30] and len(issues) == 1 and issues[0].rule == 'clipped'
