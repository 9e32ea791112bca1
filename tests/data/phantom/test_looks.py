"""What tells a class: texture at ambiguity 0; at ambiguity 1 no look; between them a look of a share of findings."""
import itertools

import numpy as np
import pytest

from relnet_jax.data import phantom
from relnet_jax.data.phantom import labels, looks

GROUPS = ('opacity', 'spot', 'line', 'lucency')


def look(name, seed, *, ambiguity):
    return looks.sample_appearance(np.random.default_rng(seed), name, ambiguity=ambiguity)


def members(group):
    return [name for name, rule in looks.RULES.items() if rule.group == group]


def test_every_class_has_its_cue_in_the_order_of_the_class_table():
    cues = phantom.class_cues()
    assert list(cues) == list(labels.classes())
    assert {rule.cue for rule in cues.values()} == {'texture', 'position', 'co-occurrence'}
    assert {name for name, rule in cues.items() if rule.cue == 'co-occurrence'} == {'Atelectasis', 'Mass'}
    assert set(looks.OWN) == set(itertools.chain(*map(members, GROUPS)))


def test_texture_alone_tells_the_class_at_ambiguity_0():
    for group in GROUPS:
        names = members(group)
        own = np.array([looks.OWN[n] for n in names])
        for i, name in enumerate(names):
            for seed in range(50):
                drawn = np.array(look(name, seed, ambiguity=0))
                nearest = (np.abs(own - drawn)).sum(1).argmin()
                assert nearest == i, f'{name} drawn {drawn} looks like {names[nearest]}'


@pytest.mark.parametrize('group', GROUPS)
def test_members_of_a_group_look_the_same_at_ambiguity_1(group):
    for first, second in itertools.combinations(members(group), 2):
        for seed in range(20):
            assert look(first, seed, ambiguity=1) == look(second, seed, ambiguity=1)
            assert look(first, seed, ambiguity=0) != look(second, seed, ambiguity=0)


@pytest.mark.parametrize('ambiguity', [0.3, 0.7])
def test_the_ambiguity_is_the_share_of_findings_whose_look_does_not_tell_their_class(ambiguity):
    for group in GROUPS:
        first, second = members(group)[:2]
        alike = [look(first, seed, ambiguity=ambiguity) == look(second, seed, ambiguity=ambiguity)
                 for seed in range(2000)]
        assert np.mean(alike) == pytest.approx(ambiguity, abs=0.04)


def test_a_finding_that_looks_alike_stays_so_at_a_larger_ambiguity():
    for seed in range(50):
        looks = [look('Mass', seed, ambiguity=a) for a in (0, 0.3, 0.5, 0.7, 1)]
        changes = [a != b for a, b in itertools.pairwise(looks)]
        assert sum(changes) == 1
