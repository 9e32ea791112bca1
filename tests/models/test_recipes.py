"""The recipes of docs/extending.md, executed as they stand."""
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax import config as config_lib
from relnet_jax import rules
from relnet_jax.models import backbones, mask_rcnn, relations
from relnet_jax.training.optimizer import trainable

PAGE = Path(__file__).parents[2] / 'docs' / 'extending.md'


def run_recipe(title: str) -> dict:
    """Executes the code of a section, block after block; returns its names."""
    section = PAGE.read_text().split(f'\n## {title}\n')[1].split('\n## ')[0]
    names = {'__name__': 'recipe'}
    for block in re.findall(r'```python\n(.*?)```', section, re.S):
        exec(compile(block, str(PAGE), 'exec'), names)
    return names


def tiny():
    c = config_lib.load('configs/phantom.py').copy_and_resolve_references()
    with c.unlocked():
        c.data.update(canvas=(64, 64), scale=64, max_size=64, max_objects=4, mask_size=8)
        c.model.update(fpn_channels=8, box_head_dim=16, mask_channels=4)
        c.train.update(pre_nms=20, proposals=12, rois=8, rpn_samples=16)
        c.test.update(pre_nms=20, boxes=6, detections=3)
    return c


def gradients(c, batch):
    model, keys = mask_rcnn.build(c, num_classes=4), jax.random.split(jax.random.key(1), 2)
    params = jax.jit(lambda key: model.init(key, batch, keys, method='losses'))(jax.random.key(0))['params']

    def total(params):
        return sum(value / jnp.maximum(count, 1) for value, count in
                   model.apply({'params': params}, batch, keys, method='losses')[0].values())
    return params, jax.jit(jax.grad(total))(params)


@pytest.fixture
def batch(tiny_batch):
    return tiny_batch()


def test_a_relation_of_one_file_and_one_line_learns(monkeypatch, batch):
    monkeypatch.setitem(relations.RELATIONS, 'overlap', None)       # removed again after the test
    names = run_recipe('A relation')
    c = tiny()
    names['use_overlap'](c)
    rules.check(c)
    _, gradient = gradients(c, batch)
    found = gradient['relation_head']['overlap']
    assert found['fc']['kernel'].shape == (16, 32)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(found))

    with c.unlocked():
        del c.model.relation['overlap']     # no options: the defaults of its fields
    rules.check(c)
    assert mask_rcnn.build(c, num_classes=4).relation.chosen == (('overlap', ()),)


def test_a_backbone_of_one_file_and_one_line_learns_and_freezes(monkeypatch, batch):
    monkeypatch.setitem(backbones.BACKBONES, 'plain', None)
    run_recipe('A backbone')
    c = tiny()
    with c.unlocked():
        c.model.update(backbone='plain', frozen_stages=0)
    rules.check(c)
    params, gradient = gradients(c, batch)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient['backbone']))
    with c.unlocked():
        c.model.frozen_stages = 2
    moves = trainable(params, c)['backbone']
    assert [moves[f'conv{i}']['kernel'] for i in range(1, 6)] == [False, False, True, True, True]
    with c.unlocked():
        c.model.neck = 'c4'
    with pytest.raises(ValueError, match="plain takes one of .'fpn'"):
        backbones.validate(mask_rcnn.build(c, num_classes=4).backbone, 'c4')
