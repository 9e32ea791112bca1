"""The rules for broken annotations, one by one."""
import numpy as np
import pytest

from relnet_jax.data.annotations import fit_annotation, fit_box, read_annotation

NAN, INF = float('nan'), float('inf')
SQUARE = [[5, 6, 25, 6, 25, 16, 5, 16]]
DIGITS = int('9' * 400)


def clean(**fields):
    """(object, issues) of an annotation in an image of 60 x 40 pixels."""
    annotation = {'category_id': 3, 'bbox': [5, 6, 20, 10]} | fields
    return fit_annotation(annotation, read_annotation(annotation, 'a'), 60, 40, where='a')


@pytest.mark.parametrize('bbox', [
    None, [], [1, 2, 3], [1, 2, 3, 4, 5], [NAN, 1, 2, 3], [1, 1, INF, 3], ['x', 2, 3, 4], 'box', '1 2 3', {}, True, 7,
    [None, 1, 2, 3], [True, 1, 2, 3], [1, 2, 3, DIGITS], [1, 2, 3, '1e999'], [[1, 2], [3, 4]], '9' * 5000])
def test_boxes_that_are_not_four_numbers_are_dropped(bbox):
    found, issues = clean(bbox=bbox)
    assert found is None and [i.rule for i in issues] == ['dropped'] and 'four finite numbers' in issues[0].problem
    assert len(str(issues[0])) < 200


@pytest.mark.parametrize('bbox, words', [
    ([5, 5, 0, 3], 'zero'), ([5, 5, 3, 0.0], 'zero'), ([0, 0, 0, 0], 'zero'), ([9, 9, -3, 4], 'negative'),
    ([5, 5, 1e-9, 3], 'less than'), ([5, 5, 3, 0.005], 'less than'), ([60, 5, 3, 3], 'outside'),
    ([-9, 5, 9, 3], 'outside'), ([1e308, 5, 1e308, 3], 'outside'), ([59.999, 5, 9, 9], 'outside')])
def test_boxes_without_area_in_the_image_are_dropped(bbox, words):
    found, issues = clean(bbox=bbox)
    assert found is None and [i.rule for i in issues] == ['dropped'] and words in issues[0].problem


@pytest.mark.parametrize('bbox', [None, [], 'x', [1, 2, 3], [5, 6, 0, 0], [5, 6, 20, 0], [NAN, 0, 1, 1], [5, 6, -2, 3],
                                  [90, 90, 5, 5], [5, 6, 1e-9, 1e-9]])
def test_a_box_that_cannot_be_used_is_taken_from_a_good_mask(bbox):
    for segmentation in (SQUARE, {'size': [40, 60], 'counts': [206, *[10, 30] * 19, 10, 1424]}):
        found, issues = clean(bbox=bbox, segmentation=segmentation)
        assert found['box'] == [5, 6, 25, 16] and [i.rule for i in issues] == ['box taken from the mask']
    assert clean(bbox=bbox, segmentation=[[70, 70, 90, 70, 90, 90]])[0] is None, 'nothing of the mask is in the image'


@pytest.mark.parametrize('bbox, expected', [([-4, 5, 10, 5], [0, 5, 6, 10]), ([55, 35, 10, 10], [55, 35, 60, 40]),
                                            ([-1, -1, 100, 100], [0, 0, 60, 40]), ([5, 5, 1e300, 5], [5, 5, 60, 10])])
def test_boxes_across_the_border_are_clipped_and_reported(bbox, expected):
    found, issues = clean(bbox=bbox)
    assert found['box'] == expected and [i.rule for i in issues] == ['clipped']


@pytest.mark.parametrize('bbox', [[59, 39, 1, 1], [0, 0, 60, 40], [10.5, 3.25, 0.5, 0.75], [50, 30, 10.004, 10]])
def test_good_boxes_pass_without_a_word(bbox):
    box, issue = fit_box(bbox, bbox, 60, 40, 'a')
    assert issue is None
    np.testing.assert_allclose(box, [bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]], atol=0.01)
    assert box[2] <= 60 and box[3] <= 40


@pytest.mark.parametrize('bbox', [['5', '6', '20', '10'], [5, 6.0, '20.0', ' 10 '], '5 6 20 10', '[5, 6, 20, 10]',
                                  '5,6,20,10', [[5, 6, 20, 10]]])
def test_boxes_of_text_and_in_a_list_are_read_and_said(bbox):
    found, issues = clean(bbox=bbox)
    assert found['box'] == [5, 6, 25, 16] and [i.rule for i in issues] == ['read']


@pytest.mark.parametrize('value, crowd', [
    (0, False), (1, True), (False, False), (True, True), ('0', False), ('1', True), ('false', False), ('True', True),
    (0.0, False), (1.0, True)])
def test_iscrowd_is_read_in_every_form_of_zero_and_one(value, crowd):
    found, issues = clean(iscrowd=value)
    assert found['crowd'] is crowd and issues == []


@pytest.mark.parametrize('value', [None, NAN, [0], [], {}, 2, -1, 0.5, 'no', '', INF, DIGITS, '2'])
def test_an_iscrowd_of_another_kind_makes_no_crowd_and_is_an_issue(value):
    found, issues = clean(iscrowd=value)
    assert found['crowd'] is False and [(i.rule, i.where) for i in issues] == [('read as 0', 'a')]


@pytest.mark.parametrize('area', [1e300, -1, 0, NAN, INF, 'big', [3], True, DIGITS, 2401])
def test_an_area_that_cannot_be_is_left_to_the_mask(area):
    found, issues = clean(area=area)
    assert found['area'] is None and [i.problem for i in issues] == ['area is not between 0 and that of the image']


@pytest.mark.parametrize('area, expected', [(7, 7), (2400, 2400), ('7.5', 7.5), (None, None)])
def test_a_good_area_is_kept(area, expected):
    found, issues = clean(area=area)
    assert found['area'] == expected and issues == []


def test_masks_that_span_something_else_than_the_box_are_reported_and_kept():
    triangle = [[10, 10, 30, 10, 30, 30]]
    found, issues = clean(segmentation=triangle, bbox=[10, 10, 20, 20])
    assert found['segmentation'] == triangle and not issues
    found, issues = clean(segmentation=triangle, bbox=[10, 10, 40, 20])
    assert found['segmentation'] == triangle and [i.rule for i in issues] == ['both kept']
    found, issues = clean(segmentation=triangle, bbox=[9, 11, 21, 19])
    assert not issues, 'a pixel of difference is no disagreement'


@pytest.mark.parametrize('segmentation', [[[30, 20, 50, 20, 50, 35]], {'size': [40, 60], 'counts': [2000, 5, 395]},
                                          [[25, 6, 40, 6, 40, 16]]])
def test_a_mask_outside_its_box_is_dropped_and_the_box_kept(segmentation):
    found, issues = clean(segmentation=segmentation)
    assert found['segmentation'] is None and found['box'] == [5, 6, 25, 16]
    assert [(i.problem, i.rule) for i in issues] == [('mask lies outside its box', 'box kept without mask')]


def test_a_clipped_box_is_compared_with_the_visible_part_of_its_mask():
    found, issues = clean(bbox=[-20, 10, 40, 20], segmentation=[[-20, 10, 20, 10, 20, 30, -20, 30]])
    assert found['box'] == [0, 10, 20, 30] and [i.rule for i in issues] == ['clipped']
