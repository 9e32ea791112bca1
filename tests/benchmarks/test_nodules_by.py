import numpy as np
import pytest

from benchmarks import nodules_by
from relnet_jax.evaluation import nodules

SUBTLETY = ('5', '5', '1', 'NA')        # of four films; the last has no nodule


def truth() -> dict:
    return dict(
        images=[dict(id=i, width=100, height=100, mm_per_pixel=1.0, subtlety=s) for i, s in enumerate(SUBTLETY)],
        categories=[dict(id=1, name='Nodule')],
        annotations=[dict(id=i, image_id=i, category_id=1, bbox=[10, 10, 10, 10], area=100, iscrowd=0)
                     for i, s in enumerate(SUBTLETY) if s != 'NA'])


def result(image: int, score: float, *, hit: bool) -> dict:
    return dict(image_id=image, category_id=1, bbox=[12, 12, 10, 10] if hit else [80, 80, 10, 10], score=score)


def test_nodules_count_by_their_film_until_false_positives_reach_the_rate():
    results = [result(0, 0.9, hit=True), *(result(3, 0.8 - i / 100, hit=False) for i in range(4)),
               result(2, 0.5, hit=True),            # after four in four films: still at the rate
               result(1, 0.4, hit=False), result(1, 0.3, hit=True)]         # after the fifth
    assert nodules_by.found_by('subtlety', truth(), results) == {'1': (1.0, 1), '5': (0.5, 2)}


def test_together_they_are_the_sensitivity_of_the_metrics():
    rng = np.random.default_rng(0)
    results = [result(int(rng.integers(4)), float(score), hit=bool(rng.integers(2))) for score in rng.random(40)]
    found = nodules_by.found_by('subtlety', truth(), results)
    metrics = nodules.measure_of(nodules.ranking(truth(), results))(np.ones((1, len(SUBTLETY))))
    assert sum(share * n for share, n in found.values()) / 3 == pytest.approx(metrics['nodules_1'][0])


def test_a_field_that_films_lack_is_an_error():
    with pytest.raises(KeyError, match='size'):
        nodules_by.found_by('size', truth(), [])
