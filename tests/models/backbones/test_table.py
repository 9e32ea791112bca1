"""Every line of BACKBONES keeps the contract: strides, channels, frozen stages, and the head of the C4 detector."""
import re

import jax
import jax.numpy as jnp
import pytest

from relnet_jax.models.backbones import BACKBONES, BackboneSettings, validate
from relnet_jax.trees import path_names

NO_MASK = dict.fromkeys((1, 2, 4, 8, 16, 32))
IMAGE = jnp.zeros((1, 64, 96, 3))
bodies = pytest.mark.parametrize('name', BACKBONES)


def settings(name, **changes):
    return BackboneSettings(name=name, norm=BACKBONES[name].takes['norm'][0], **changes)


@bodies
def test_maps_have_strides_4_to_32_and_the_channels_of_the_table(name):
    body = BACKBONES[name].make(settings(name), jnp.float32)
    maps, _ = jax.eval_shape(body.init_with_output, jax.random.key(0), IMAGE, NO_MASK)
    assert [m.shape for m in maps] == [(1, 64 // s, 96 // s, c)
                                       for s, c in zip((4, 8, 16, 32), BACKBONES[name].channels)]


@bodies
def test_freeze_patterns_grow_from_nothing_to_the_whole_body(name):
    body = BACKBONES[name].make(settings(name), jnp.float32)
    names = path_names({'backbone': jax.eval_shape(body.init, jax.random.key(0), IMAGE, NO_MASK)['params']})
    kept = [{n for n in names if any(re.match(p, n) for p in BACKBONES[name].freeze_patterns(k))} for k in range(6)]
    assert not kept[0] and kept[5] == set(names)
    assert all(fewer < more for fewer, more in zip(kept, kept[1:]))


@pytest.mark.parametrize('name', [name for name, body in BACKBONES.items() if 'c4' in body.takes['neck']])
def test_a_body_for_c4_stops_before_its_last_stage_which_is_the_head(name):
    body = BACKBONES[name].make(settings(name, stages=3), jnp.float32)

    def run(module, image):
        maps = module(image, NO_MASK)
        return maps, module.head(jnp.zeros((5, 14, 14, maps[-1].shape[-1])))

    (maps, pooled), _ = jax.eval_shape(lambda key: body.init_with_output(key, IMAGE, method=run), jax.random.key(0))
    assert len(maps) == 3 and pooled.shape == (5, 7, 7, BACKBONES[name].channels[3])


@bodies
def test_what_a_body_cannot_do_is_refused_by_key(name):
    for neck in BACKBONES[name].takes['neck']:
        validate(settings(name), neck)
    for key in ('norm', 'deformable', 'stride_in_1x1', 'remat'):
        with pytest.raises(ValueError, match=rf"config\.model\.{key}: {name} takes one of .*, got 'odd'"):
            validate(settings(name)._replace(**{key: 'odd'}), 'fpn')
    with pytest.raises(ValueError, match=rf"config\.model\.neck: {name} takes one of .*, got 'c6'"):
        validate(settings(name), 'c6')
