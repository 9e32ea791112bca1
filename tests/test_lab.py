"""configs/lab.py: every run of the lab's log loads for every data set, and its losses and gradients can be traced."""
import functools
import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import _runs, lab
from relnet_jax import config as config_lib
from relnet_jax.data import graph
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import state as train_state
from relnet_jax.training import optimizer, phases
from relnet_jax.trees import path_names

NAMED_IN_THE_LOG = '''
    original zero one one_2 two three four five six seven seven_2 seven_3 eight eight_2 nine nine_2 ten sc
    sc_nograph sc_noatt sc1 sc2 sc3_add sc3_cat fpn fpn_drop fpn1 fpn2 fpn3 fpn4 fpn5_obj512x128 fpn5_obj512x512
    fpn5_obj64 fpn5_obj32 fpn_5 fpn_6 fpn_7 fpn_8 base base_cls base_spa yy_base_cls'''.split()
CLASSES = 14    # of the phantom, with background


def small(run):
    """A run on the phantom, small enough to be traced in a second or two."""
    c = config_lib.load(f'configs/lab.py:{run},data=phantom').copy_and_resolve_references()
    with c.unlocked():
        c.data.canvas, c.data.scale, c.data.max_size, c.data.max_objects, c.data.mask_size = (64, 64), 64, 64, 4, 14
        c.model.update(fpn_channels=16, box_head_dim=32, mask_channels=8)
        c.train.update(pre_nms=20, proposals=16, rpn_samples=16, batch_size=2)
    return c.lock()


@functools.cache
def traced(model_and_counts):
    """(parameter shapes, loss terms, gradient shapes) without computing anything; runs that share a model share it."""
    config = config_lib.from_json(model_and_counts)
    adjacency = np.eye(CLASSES).tolist() if graph.needs_graph(config) else None
    model = mask_rcnn.build(config, num_classes=CLASSES, adjacency=adjacency)
    shapes = train_state.batch_shapes(config, 2, 5)
    params = train_state.abstract_params(model, shapes)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))

    def loss(params, batch, keys):
        terms, _ = model.apply({'params': params}, batch, keys, method='losses')
        return sum(s for s, _ in terms.values()), terms
    grads, terms = jax.eval_shape(jax.grad(loss, has_aux=True), params, shapes, keys)
    return params, terms, grads


def trace(config):
    """`traced` of what it depends on; the number of RoIs is a shape, which changes nothing else."""
    c = config.copy_and_resolve_references()
    with c.unlocked():
        c.name, c.train.steps, c.train.freeze, c.train.phases = '', 1, (), ()
        c.train.learning_rate, c.data.subset, c.data.graph_classes, c.data.flip = 0.1, '', (), 0.5
        c.train.rois, c.train.decay_at, c.train.warmup_steps = 64, (), 0
        c.test.boxes = 8
    return traced(config_lib.to_json(c))


def test_every_run_of_the_log_is_there_and_the_others_are_marked():
    assert set(NAMED_IN_THE_LOG) <= lab.RUNS.keys()
    assert sum(name.startswith('cat_order_') for name in lab.RUNS) >= 2
    for name, run in lab.RUNS.items():
        in_log = name in NAMED_IN_THE_LOG or name.startswith('cat_order_') or name == 'base_spa_nocascade'
        assert (run.section in tuple('ABCDEF')) == in_log, name
        assert run.description and not (run.map50 and not in_log)


@pytest.mark.parametrize('data', lab.DATA)
@pytest.mark.parametrize('run', lab.RUNS)
def test_every_run_loads_for_every_data_set_and_round_trips_through_json(run, data):
    config = config_lib.load(f'configs/lab.py:{run},data={data}')
    assert config.is_locked and config.name == run
    assert config_lib.from_json(config_lib.to_json(config)).to_dict() == config.to_dict()
    plan = phases.plan(config)
    published = sum(entry['steps'] for entry in config.train.phases) or config.train.steps
    assert plan[-1].last == published       # scale 1: the lab's own numbers of steps, whatever the data
    assert config.model.relations == lab.get_config(run).model.relations


@pytest.mark.parametrize('run', lab.RUNS)
def test_every_run_traces_with_gradients_in_every_phase(run):
    config = small(run)
    params, terms, grads = trace(config)
    assert jax.tree.map(lambda x: x.shape, grads) == jax.tree.map(lambda x: x.shape, params)
    assert {'loss_cls', 'loss_bbox', 'loss_mask'} <= terms.keys()
    for phase in phases.plan(config):
        own, own_terms, _ = trace(phase.config)
        assert set(path_names(own)) <= set(path_names(params))
        phase = phases.without_idle(phase, params, own)     # raises for a freeze pattern that matches nothing
        moves = dict(zip(path_names(params), jax.tree.leaves(optimizer.trainable(params, phase.config))))
        kept = [name for name, moves in moves.items() if not moves]
        assert all(any(re.match(p, name) for p in phase.config.train.freeze) for name in kept)
        if phase.plain:
            assert not any(name.endswith('_first') for name in own_terms)
            assert {name for name in moves if name not in path_names(own)} <= set(kept)
        elif phase.name.startswith('keep'):
            assert any(name.startswith('box_predictor/') for name in kept)
            assert not any(name.startswith('relation_head/') for name in kept)


def test_a_phase_keeps_or_retrains_the_box_as_the_log_says():
    def plan(run):
        return [(p.name, p.last - p.first + 1, p.config.train.rois, bool(p.config.train.freeze))
                for p in phases.plan(config_lib.load(f'configs/lab.py:{run},data=coco'))]
    assert plan('three') == [('retrain', 74_913, 512, False), ('keep', 10_086, 512, True),
                             ('keep_128', 11_000, 128, True)]
    assert plan('seven') == [('original', 96_000, 512, False), ('retrain', 54_999, 512, False),
                             ('keep', 41_000, 512, True)]
    assert [p[1:] for p in plan('seven_3')[1:]] == [(54_999, 512, False), (41_000, 512, False)]
    assert plan('seven_2')[1:] == plan('nine')[1:] == [('keep', 95_999, 512, True)]
    assert plan('base') == [('', 192_000, 512, False)]


def test_the_schedule_shortens_all_phases_alike():
    config = config_lib.load('configs/lab.py:seven,data=coco').copy_and_resolve_references()
    config.scale_schedule = 0.01
    plan = phases.plan(config)
    assert [(p.first, p.last) for p in plan] == [(1, 960), (961, 960 + 550), (960 + 551, 960 + 960)]
    assert all(p.config.train.warmup_steps == 5 for p in plan)
    assert math.isclose(optimizer.base_learning_rate(plan[1].config), 0.0005)    # as logged for `seven`
    assert math.isclose(optimizer.base_learning_rate(plan[0].config), 0.01)


def test_wrong_names_stop_with_the_nearest_right_one():
    with pytest.raises(ValueError, match="no run 'fpn_33', did you mean 'fpn3'"):
        config_lib.load('configs/lab.py:fpn_33')
    with pytest.raises(ValueError, match="no data set 'fantom', did you mean 'phantom'"):
        config_lib.load('configs/lab.py:fpn3,data=fantom')
    with pytest.raises(ValueError, match='expected RUN,data=DATA'):
        config_lib.load('configs/lab.py:fpn3,size=3')


def test_the_documentation_lists_every_run_as_the_table_has_it():
    text = (Path(lab.__file__).parents[1] / 'docs' / 'ablation_tables.md').read_text()
    for name, run in lab.RUNS.items():      # renewed by `python -m relnet_jax.ablate --docs=docs/ablation_tables.md`
        assert f"| `{name}` | {run.description} | {run.map50 or '-'} | {run.map1 or '-'} |" in text, name


def test_a_delta_with_a_key_that_is_not_in_base_is_refused():
    with pytest.raises(KeyError, match='model.neckk'):
        _runs.apply(lab.get_config('base'), {'model.neckk': 'c4'})
