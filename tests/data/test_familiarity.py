import cv2
import numpy as np
import pytest

from configs import phantom
from relnet_jax.data import familiarity, pipeline
from relnet_jax.data.images import UnreadableImage, read_image


def films(count, seed=0):
    """Looks of one kind, float64 [count, 30]: correlated numbers of different spread."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(7).normal(size=(30, 30)) * np.geomspace(0.1, 3, 30)
    return rng.normal(size=(count, 30)) @ mix


def ledoit_wolf(x):
    """Mean and covariance as in the paper's lemmas 3.2 to 3.5 (p. 374), term by term."""
    n, p = x.shape
    mean = x.mean(0)
    x = x - mean
    s, inner = x.T @ x / n, lambda a, b: np.trace(a @ b.T) / p
    m = inner(s, np.eye(p))
    d2 = inner(s - m * np.eye(p), s - m * np.eye(p))
    b2 = min(sum(inner(np.outer(k, k) - s, np.outer(k, k) - s) for k in x) / n ** 2, d2)
    return mean, b2 / d2 * m * np.eye(p) + (d2 - b2) / d2 * s


@pytest.mark.parametrize('count', [25, 60, 300])
def test_mean_and_covariance_are_those_of_ledoit_and_wolf(count):
    looks = films(count)
    known = familiarity.measure(looks)
    mean, covariance = ledoit_wolf(looks)
    assert known['mean'] == pytest.approx(mean, abs=1e-5)
    assert np.array(known['covariance']) == pytest.approx(covariance, abs=2e-4)


def test_the_limit_lies_beyond_films_of_the_same_kind_and_before_others(monkeypatch):
    looks, others = films(120), films(200, seed=1)
    known = familiarity.measure(looks)

    def distances(of):
        monkeypatch.setattr(familiarity, 'look', lambda image: image)
        return np.array([familiarity.distance(one, known) for one in of])
    assert (distances(others) > 1).mean() <= 0.02
    assert (distances(others[:, ::-1]) > 1).mean() > 0.9
    assert distances(others + 0.0) == pytest.approx(distances(others))


def test_too_few_films_say_nothing_and_equal_ones_do_not_divide_by_zero():
    assert familiarity.measure(films(19)) is None and familiarity.measure(np.array([])) is None
    image = np.zeros((40, 50, 3), np.uint8)
    known = familiarity.measure(np.array([familiarity.look(image)] * 20))
    assert familiarity.distance(image, known) < 1e-3 and familiarity.distance(255 - image, known) > 1


def test_a_look_is_of_brightness_order_and_not_of_exposure_or_size():
    rng = np.random.default_rng(0)
    image = cv2.cvtColor(cv2.resize(rng.integers(60, 180, (8, 8), np.uint8), (320, 256)), cv2.COLOR_GRAY2RGB)
    look = familiarity.look(image)
    assert look.shape == (30,)
    brighter = familiarity.look((np.float32(image) * 1.4).astype(np.uint8))
    assert brighter[:25] == pytest.approx(look[:25], abs=0.01) and brighter[25] > look[25] + 0.1
    assert familiarity.look(cv2.resize(image, (640, 512))) == pytest.approx(look, abs=0.1)
    assert familiarity.look(255 - image)[:25] == pytest.approx(-look[:25], abs=0.01)
    red = image * np.array([1, 0, 0], np.uint8)
    assert look[29] == 0 and familiarity.look(red)[29] > 1


def test_phantom_films_are_known_and_inverted_or_turned_ones_are_not():
    c = phantom.get_config()
    with c.unlocked():
        c.data.canvas, c.data.scale, c.data.max_size = (128, 128), 128, 128
        c.data.phantom.update(size=128, train_images=60, val_images=20)
    train, val = pipeline.open_sources(c)
    known = familiarity.of_source(train, c)
    images = [val.load(i).image for i in range(20)]
    assert np.mean([familiarity.distance(image, known) > 1 for image in images]) <= 0.1
    for changed in (lambda image: 255 - image, lambda image: image[::-1], lambda image: np.rot90(image)):
        assert min(familiarity.distance(np.ascontiguousarray(changed(image)), known) for image in images) > 1


def test_unreadable_films_are_passed_by():
    c = phantom.get_config()
    with c.unlocked():
        c.data.phantom.update(size=64, train_images=30, val_images=1)
    train, _ = pipeline.open_sources(c)
    load, broken = train.load, {0, 7, 29}

    def sometimes(index):
        if index in broken:
            raise UnreadableImage('x.png', 'made so')
        return load(index)
    object.__setattr__(train, 'load', sometimes)
    looks = np.array([familiarity.look(pipeline.prepared(train, i, c.data, jitter=1.0)[0].image)
                      for i in range(30) if i not in broken])
    assert familiarity.of_source(train, c) == familiarity.measure(looks)


def test_real_films_of_one_hospital_know_the_others_of_it(real_data):
    """One film of three is enough here; benchmarks/unfamiliar.py has the whole table."""
    files = sorted((real_data / 'jsrt' / 'images').glob('*.jpg'))[::2]
    images = [cv2.resize(read_image(file), (256, 256), interpolation=cv2.INTER_AREA) for file in files]
    known = familiarity.measure(np.array([familiarity.look(image) for image in images[::2]]))
    assert np.mean([familiarity.distance(image, known) > 1 for image in images[1::2]]) <= 0.07
    assert all(familiarity.distance(255 - image, known) > 1 for image in images[1::2])
