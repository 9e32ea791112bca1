import numpy as np

from benchmarks import class_ceiling

TRUTH = dict(
    annotations=[
        dict(image_id=1, category_id=1, bbox=[0, 0, 10, 10]),
        dict(image_id=1, category_id=3, bbox=[20, 0, 10, 10]),
    ]
)


def test_a_detection_on_an_object_takes_its_class_within_a_group_only():
    results = [dict(image_id=1, category_id=2, bbox=[0, 0, 10, 9], score=0.9),      # on the first object
               dict(image_id=1, category_id=2, bbox=[20, 0, 10, 10], score=0.8),    # on the second
               dict(image_id=1, category_id=2, bbox=[5, 5, 10, 10], score=0.7),     # on neither
               dict(image_id=2, category_id=2, bbox=[0, 0, 10, 10], score=0.6)]     # in an image without objects
    classes = lambda groups: [r['category_id'] for r in class_ceiling.mended(results, TRUTH, groups)]
    assert classes([]) == [2, 2, 2, 2]
    assert classes([{1, 2}]) == [1, 2, 2, 2]
    assert classes([{1, 2, 3}]) == [1, 3, 2, 2]


def test_overlaps_are_those_of_hand():
    np.testing.assert_allclose(class_ceiling.overlaps([0, 0, 2, 2], [[1, 0, 2, 2], [5, 5, 1, 1]]), [1 / 3, 0])
