"""Label sets, numbers, sides and boxes of the phantom against the ChestX-Det table."""
import numpy as np
import pytest

from relnet_jax.data.phantom import labels

TABLE = labels.statistics()
PAIRS = np.array(TABLE['cooccurrence'], float) / TABLE['images']


def test_the_table_carries_its_source_and_is_consistent():
    assert 'ChestX-Det' in TABLE['source'] and 'Apache-2.0' in TABLE['source']
    assert len(TABLE['classes']) == 13 and (PAIRS == PAIRS.T).all()
    for entry in TABLE['per_class'].values():
        assert sum(entry['count_shares']) == pytest.approx(1, abs=1e-3)
        assert entry['image_left']['fraction'] + entry['image_right']['fraction'] == pytest.approx(1, abs=1e-3)


def test_the_table_is_that_of_the_annotations(real_data):
    import json
    records = json.loads((real_data / 'chestx_det' / 'ChestX_Det_train.json').read_text())
    presence = np.array([[name in record['syms'] for name in TABLE['classes']] for record in records], int)
    np.testing.assert_array_equal(presence.T @ presence, TABLE['cooccurrence'])
    assert (presence.sum(1) == 0).sum() == TABLE['images_without_finding'] and len(records) == TABLE['images']
    for i, name in enumerate(TABLE['classes']):
        sides = [[box[0] + box[2] < 1024 for sym, box in zip(r['syms'], r['boxes'], strict=True) if sym == name]
                 for r in records]
        twos = [s for s in sides if len(s) == 2]
        share = np.mean([s[0] != s[1] for s in twos]) if twos else 0
        assert share == pytest.approx(TABLE['per_class'][name]['two_on_opposite_sides'], abs=0.005)
        assert sum(map(len, sides)) == TABLE['per_class'][name]['instances']


def test_the_fit_has_exactly_the_moments_asked_for():
    p = np.diff(labels.label_set_cdf(), prepend=0)
    states = (np.arange(len(p))[:, None] >> np.arange(13)) & 1
    np.testing.assert_allclose(states.T @ (p[:, None] * states), PAIRS, atol=1e-7)
    assert p[0] == pytest.approx(TABLE['images_without_finding'] / TABLE['images'], abs=1e-7)


def test_the_fit_of_independent_classes_is_their_product():
    q = np.array([0.2, 0.5, 0.7])
    pairs = np.outer(q, q) + np.diag(q - q * q)
    p = labels.fit_label_sets(pairs, np.prod(1 - q))
    expected = [np.prod([q[i] if s >> i & 1 else 1 - q[i] for i in range(3)]) for s in range(8)]
    np.testing.assert_allclose(p, expected, atol=1e-6)


def test_impossible_moments_are_refused():
    with pytest.raises(ValueError, match='no distribution'):
        labels.fit_label_sets(np.array([[0.2, 0.3], [0.3, 0.4]]), 0.3)


def pairs_of(presence):
    """Share of images that hold both, [12, 12]: atelectasis and mass as one class, the last."""
    atelectasis, mass = (TABLE['classes'].index(name) for name in labels.BY_COMPANY[:2])
    either = presence[:, [atelectasis]] | presence[:, [mass]]
    merged = np.concatenate([np.delete(presence, [atelectasis, mass], 1), either], 1).astype(float)
    return merged.T @ merged / len(merged)


def test_sampled_label_sets_cooccur_as_in_the_table(monkeypatch):
    presence = labels.sample_presence(np.random.default_rng(0), (20_000,))
    assert (presence.sum(1) == 0).mean() == pytest.approx(0.181, abs=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(labels, 'by_company', lambda presence: presence)
        fitted = labels.sample_presence(np.random.default_rng(0), (20_000,))
    share = fitted.mean(0)
    np.testing.assert_allclose(share, np.diag(PAIRS), rtol=0.1, atol=0.004)
    np.testing.assert_array_equal(pairs_of(presence), pairs_of(fitted))
    pairs = fitted.T.astype(float) @ fitted / len(fitted)
    upper = np.triu_indices(13, 1)
    lift, real = (m[upper] / np.outer(np.diag(m), np.diag(m))[upper] for m in (pairs, PAIRS))
    assert np.corrcoef(lift, real)[0, 1] > 0.97
    shuffled = np.random.default_rng(1).permutation(lift)           # the measure itself tells tables apart
    assert np.corrcoef(shuffled, real)[0, 1] < 0.5


def test_an_effusion_tells_atelectasis_from_mass():
    presence = labels.sample_presence(np.random.default_rng(0), (20_000,))
    atelectasis, mass, effusion = (presence[:, TABLE['classes'].index(name)] for name in labels.BY_COMPANY)
    assert not (atelectasis & ~effusion).any() and not (mass & effusion).any()
    assert 0.04 < atelectasis.mean() < 0.07 and 0.05 < mass.mean() < 0.08       # both are common enough to be learned


def test_numbers_per_image_have_the_means_of_the_table():
    rng = np.random.default_rng(2)
    for i, name in enumerate(TABLE['classes']):
        counts = np.array([labels.sample_count(rng, name) for _ in range(3000)])
        mean = TABLE['per_class'][name]['instances'] / TABLE['cooccurrence'][i][i]
        assert counts.mean() == pytest.approx(mean, rel=0.08), name
        assert counts.min() == 1
        if name in labels.WHOLE_LUNG:
            assert counts.max() == 2


def test_sides_follow_the_table_and_pairs_lie_on_opposite_sides():
    rng = np.random.default_rng(3)
    for name, opposite in (('Effusion', 0.97), ('Nodule', 0.33), ('Emphysema', 1.0)):
        single = np.mean([labels.sample_sides(rng, name, 1)[0] == 0 for _ in range(2000)])
        assert single == pytest.approx(TABLE['per_class'][name]['image_left']['fraction'], abs=0.04)
        twos = [labels.sample_sides(rng, name, 2) for _ in range(2000)]
        assert np.mean([a != b for a, b in twos]) == pytest.approx(opposite, abs=0.04)


def test_boxes_have_the_gaussians_of_the_table():
    rng = np.random.default_rng(4)
    boxes = np.array([labels.sample_box(rng, 'Consolidation', 1) for _ in range(2000)])
    boxes[:, 2:] = np.log(boxes[:, 2:])
    entry = TABLE['per_class']['Consolidation']['image_right']
    np.testing.assert_allclose(boxes.mean(0), entry['mean'], atol=0.04)
    spread = np.sqrt(np.diag(entry['cov']))
    np.testing.assert_allclose(boxes.std(0), 0.88 * spread, rtol=0.06)      # 0.88: cut at two standard deviations
    np.testing.assert_allclose(np.corrcoef(boxes.T), np.array(entry['cov']) / np.outer(spread, spread), atol=0.1)
