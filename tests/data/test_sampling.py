"""Repeat-factor sampling: the factors of the paper, and streams in which rare classes are less rare."""
from itertools import islice

import numpy as np
import pytest

from configs import base
from relnet_jax.data.pipeline import train_batches
from relnet_jax.data.sampling import epoch_order, repeat_factors, repeated_order
from relnet_jax.data.source import Source
from tests.data.opening import open_coco


def test_factors_are_those_of_the_paper():
    labels = [{1}] * 88 + [{1, 2}] * 8 + [{3}, {2, 3}, set(), set()]        # of 100 images 96, 9 and 2 have the classes
    factors = repeat_factors(labels, 0.08)
    assert (factors[:96] == 1).all() and (factors[98:] == 1).all()
    assert factors[96:98] == pytest.approx([2, 2])                          # sqrt(0.08 / 0.02)
    assert repeat_factors(labels, 0.36)[90] == pytest.approx(2)             # sqrt(0.36 / 0.09)
    assert (repeat_factors(labels, 0.01) == 1).all() and (repeat_factors([set(), set()], 0.5) == 1).all()


def test_an_image_comes_its_factor_rounded_down_or_up_and_on_average_just_as_often():
    factors = np.array([1, 1, 1.25, 2.5, 4, 1, 3.1, 1.6])
    counts = np.array([np.bincount(epoch_order(factors, np.random.default_rng(e)), minlength=8) for e in range(2000)])
    share = counts.shape[0] * 15 / factors.sum()        # 15.45 rounds to 15: that is how much shorter an epoch is
    assert (counts.sum(1) == 15).all()
    assert (counts >= np.floor(factors * 15 / factors.sum())).all()
    assert (counts <= np.ceil(factors * 15 / factors.sum())).all()
    np.testing.assert_allclose(counts.sum(0) / share, factors, rtol=0.03)
    assert len({tuple(epoch_order(factors, np.random.default_rng(e))) for e in range(20)}) == 20


def test_factors_of_one_give_every_image_once():
    order = epoch_order(np.ones(50), np.random.default_rng(0))
    assert sorted(order) == list(range(50)) and list(order) != list(range(50))


def films(labels):
    annotations = [dict(image_id=f'film {i}', category_id=c) for i, found in enumerate(labels) for c in found]
    return Source(name='films', classes=('a', 'b'), category_ids=(7, 9), parts=(), load=None,
                  records=[dict(id=f'film {i}') for i in range(len(labels))],
                  ground_truth=lambda: dict(annotations=annotations))


def test_rare_classes_come_more_often_and_the_order_is_a_function_of_seed_and_position():
    source = films([[7], [7, 7], [7], [7, 9], *([7] for _ in range(21)), [], [], []])
    order = repeated_order(source, 0.5, 3)
    length = 28 + round(np.sqrt(0.5 * 28) - 1)          # one image of 28 comes 3.7 times
    stream = [order(i) for i in range(60 * length)]
    counts = np.bincount(stream, minlength=28) / 60
    assert counts[3] == pytest.approx(np.sqrt(14), rel=0.05) and counts.argmax() == 3
    np.testing.assert_allclose(np.delete(counts, 3), 1, atol=0.05)
    again = repeated_order(source, 0.5, 3)
    assert [again(i) for i in (1000, 5, 700)] == [stream[i] for i in (1000, 5, 700)]
    other = repeated_order(source, 0.5, 4)
    assert [other(i) for i in range(length)] != stream[:length]


def test_batches_follow_the_order_resume_and_do_not_depend_on_threads(write_boxes):
    source = open_coco(*write_boxes(7), name='seven', mask_size=6)      # image i has i % 3 boxes: of class 7, then 3

    def batches(start, threads, threshold=2.0):
        config = base.get_config().unlock()
        config.data.update(canvas=(64, 64), scale=40, max_size=64, max_objects=4, mask_size=6, threads=threads,
                           repeat_threshold=threshold)
        return list(islice(train_batches(source, config, batch_size=3, seed=5, start_step=start), 12 - start))

    whole, resumed = batches(0, 0), batches(8, 3)
    for a, b in zip(whole[8:], resumed, strict=True):
        assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))
    counts = np.bincount(np.concatenate([b.image_index for b in whole]), minlength=7)
    assert counts[[2, 5]].min() > counts[[0, 3, 6]].max()       # class 3 is in 2 of 7 images, 0, 3 and 6 are empty
    plain = np.concatenate([b.image_index for b in batches(0, 0, threshold=0.0)])
    assert np.bincount(plain[:35], minlength=7).tolist() == [5] * 7
