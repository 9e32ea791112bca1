import numpy as np
import pytest

from relnet_jax.evaluation import bootstrap, image_level
from relnet_jax.evaluation.froc import froc
from relnet_jax.evaluation.ranking import Ranked, average_precision, counts, sensitivity


def films_of(rng, films):
    """(ranking, score [I], shown [I]) of one class: an object a film, four of five found, and 1.5 false positives; all
    scores of a film are shifted together."""
    objects, shift = rng.poisson(1, films), rng.normal(0, 0.5, films)
    hit = np.repeat(np.arange(films), objects)
    hit = hit[rng.random(len(hit)) < 0.8]
    false = np.repeat(np.arange(films), rng.poisson(1.5, films))
    image = np.concatenate([hit, false])
    score = np.concatenate([rng.normal(1, 1, len(hit)), rng.normal(-0.5, 1, len(false))]) + shift[image]
    best_first = np.argsort(-score)
    right = (np.arange(len(image)) < len(hit))[best_first]
    of_film = np.full(films, -9.0)
    np.maximum.at(of_film, image, score)
    return Ranked(image[best_first], score[best_first], right, ~right, objects.astype(float)), of_film, objects > 0


def measure_of(ranking, score, shown):
    def measure(weights):
        c = counts(ranking, weights)
        return dict(AP=average_precision(c), froc=froc(ranking, weights, rates=(0.25, 1)).mean(0),
                    recall=sensitivity(c, weights.sum(1), 0.2), AUC=image_level.auc(score, shown, weights))
    return measure


def share_held(data_sets, *, count):
    """Metric -> share of so many data sets of 300 films whose interval holds the true value."""
    rng = np.random.default_rng(0)
    truth = {name: v[0] for name, v in measure_of(*films_of(rng, 100_000))(np.ones((1, 100_000))).items()}
    held = dict.fromkeys(truth, 0)
    for seed in range(data_sets):
        measure = measure_of(*films_of(rng, 300))
        drawn = bootstrap.draws(measure, np.arange(300), count=count, seed=seed)
        for name, v in measure(np.ones((1, 300))).items():
            low, high = bootstrap.interval(drawn[name], v[0])
            held[name] += bool(low <= truth[name] <= high)
    return {name: n / data_sets for name, n in held.items()}


def test_95_per_cent_intervals_hold_the_truth_in_about_95_of_100_data_sets():
    """With 500 data sets a share is known to 1 point (standard error): each within 3, and their mean within 2."""
    held = share_held(500, count=400)
    assert all(0.92 <= share <= 0.98 for share in held.values()), held
    assert 0.93 <= np.mean(list(held.values())) <= 0.97, held


@pytest.mark.slow
def test_95_per_cent_intervals_hold_the_truth_in_93_to_97_of_100_data_sets_for_every_metric():
    held = share_held(3000, count=1000)
    assert all(0.93 <= share <= 0.97 for share in held.values()), held


def test_films_of_one_patient_are_not_independent():
    """Ten films of a patient that are all alike say as much as one; drawn alone they make intervals too narrow."""
    rng, held, widths = np.random.default_rng(1), np.zeros(2), np.zeros(2)
    for seed in range(300):
        of_patient = rng.random(60) < 0.3
        group = np.repeat(np.arange(60), 10)
        value = of_patient[group].astype(float)
        for i, groups in enumerate((group, np.arange(600))):
            drawn = bootstrap.draws(lambda w: dict(mean=w @ value / w.sum(1)), groups, count=300, seed=seed)['mean']
            low, high = bootstrap.interval(drawn, value.mean())
            held[i] += low <= 0.3 <= high
            widths[i] += high - low
    assert 0.9 <= held[0] / 300 <= 0.98 and held[1] / 300 < 0.6, held
    assert widths[0] / widths[1] == pytest.approx(10 ** 0.5, rel=0.1)


def test_patients_are_known_by_the_split_s_key_or_the_usual_ones_or_else_each_image_is_one():
    images = [dict(id='a', patient_id=7, site='x'), dict(id='b', patient_id=7, site='y'), dict(id='c', patient_id=8,
                                                                                             site='x')]
    group, what = bootstrap.patients(images)
    assert group.tolist() == [0, 0, 1] and what == 'patients (patient_id)'
    group, what = bootstrap.patients(images, 'site')
    assert group.tolist() == [0, 1, 0] and what == 'patients (site)'
    assert bootstrap.patients(images, 'id')[1] == bootstrap.patients(images, 'ward')[1] == 'patients (patient_id)'
    images[1]['patient_id'] = None
    group, what = bootstrap.patients(images)
    assert group.tolist() == [0, 1, 2] and what == 'images'


def test_resamples_are_whole_patients_and_follow_the_seed_alone(monkeypatch):
    group = np.array([0, 0, 1, 2, 2, 2])
    weights = np.concatenate(list(bootstrap.resamples(group, 50, seed=3)))
    assert weights.shape == (50, 6) and (weights[:, [0, 2, 3]].sum(1) == 3).all()
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 3] == weights[:, 5]).all()
    monkeypatch.setattr(bootstrap, 'CHUNK', 60)
    chunks = list(bootstrap.resamples(group, 50, seed=3))
    assert len(chunks) == 5 and (np.concatenate(chunks) == weights).all()
    assert (np.concatenate(list(bootstrap.resamples(group, 50, seed=4))) != weights).any()


def test_means_are_over_the_classes_that_are_defined():
    values = dict(a=np.array([[1, np.nan], [0, np.nan]]), b=np.array([0.5, 0.25]))
    found = bootstrap.means(values)
    assert found['a'][0] == 0.5 and np.isnan(found['a'][1]) and found['b'].tolist() == [0.5, 0.25]


def test_the_interval_is_the_middle_of_the_draws_where_they_are_not_biased():
    values = np.arange(1001) / 1000
    assert bootstrap.interval(values, 0.5) == pytest.approx((0.025, 0.975), abs=1e-3)
    assert bootstrap.interval(np.append(values, np.nan), 0.5) == pytest.approx((0.025, 0.975), abs=1e-3)
    low, high = bootstrap.interval(values, 0.3085)     # 0.5 standard deviations low: cut 1 further down on both sides
    assert (low, high) == pytest.approx((0.0015, 0.831), abs=2e-3)


def test_what_is_undefined_has_no_interval_and_what_never_varies_has_no_width():
    for values, measured in ((np.full(5, np.nan), 0.5), (np.ones(5), np.nan), (np.zeros(0), 1.0)):
        assert np.isnan(bootstrap.interval(values, measured)).all()
    assert bootstrap.interval(np.ones(100), 1.0) == (1, 1)
