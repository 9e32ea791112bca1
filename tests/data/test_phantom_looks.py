"""What tells a class: texture at ambiguity 0; at ambiguity 1 nothing local, but for the stated co-occurrence rule."""
import itertools

import numpy as np
import pytest

from relnet_jax.data import phantom, phantom_looks

GROUPS = ('opacity', 'spot', 'line', 'lucency')


def look(name, seed, *, ambiguity, decider=False):
    return phantom_looks.sample_look(np.random.default_rng(seed), name, ambiguity=ambiguity, decider_present=decider)


def members(group):
    return [name for name, rule in phantom_looks.RULES.items() if rule.group == group]


def test_every_class_has_its_cue_in_the_order_of_the_class_table():
    cues = phantom.class_cues()
    assert list(cues) == list(phantom.phantom_labels.classes())
    assert {rule.cue for rule in cues.values()} == {'texture', 'position', 'co-occurrence'}
    assert {name for name, rule in cues.items() if rule.cue == 'co-occurrence'} == {'Atelectasis', 'Mass'}
    assert set(phantom_looks.OWN_LOOK) == set(itertools.chain(*map(members, GROUPS)))


def test_texture_alone_tells_the_class_at_ambiguity_0():
    for group in GROUPS:
        names = members(group)
        own = np.array([phantom_looks.OWN_LOOK[n] for n in names])
        for i, name in enumerate(names):
            for seed in range(50):
                drawn = np.array(look(name, seed, ambiguity=0, decider=seed % 2 == 0))
                nearest = (np.abs(own - drawn)).sum(1).argmin()
                assert nearest == i, f'{name} drawn {drawn} looks like {names[nearest]}'


@pytest.mark.parametrize('group', GROUPS)
def test_members_of_a_group_look_the_same_at_ambiguity_1(group):
    names = [n for n in members(group) if phantom_looks.RULES[n].cue == 'position']
    for first, second in itertools.combinations(names, 2):
        for seed in range(20):
            assert look(first, seed, ambiguity=1) == look(second, seed, ambiguity=1)
            assert look(first, seed, ambiguity=0.5) != look(second, seed, ambiguity=0.5)


def test_presence_of_an_effusion_swaps_atelectasis_and_mass_at_ambiguity_1():
    for seed in range(20):
        for decider in (False, True):
            atelectasis = look('Atelectasis', seed, ambiguity=1, decider=decider)
            assert atelectasis == look('Mass', seed, ambiguity=1, decider=not decider)
            assert (atelectasis.dome > 0) == decider        # bright core with an effusion, bright rim without


def test_other_opacities_have_cores_and_rims_alike_at_ambiguity_1():
    for name in ('Effusion', 'Consolidation'):
        cores = np.mean([look(name, seed, ambiguity=1).dome > 0 for seed in range(400)])
        assert cores == pytest.approx(0.5, abs=0.08)


def test_appearance_moves_in_a_straight_line_with_the_ambiguity():
    a, b, c = (np.array(look('Mass', 7, ambiguity=x)) for x in (0, 0.5, 1))
    np.testing.assert_allclose(b, (a + c) / 2, atol=1e-12)
