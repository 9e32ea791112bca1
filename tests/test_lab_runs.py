"""Runs of configs/lab.py for real on a tiny phantom: three steps, killed before the last, gone on with, evaluated.

Each run by its name is slow, about a minute; quick is one of C4 with phases. (All modules of the FPN at once are
trained by the test of the notebooks.)
"""
import json

import jax
import numpy as np
import pytest

from configs import lab
from relnet_jax import config as config_lib
from relnet_jax.data import pipeline
from relnet_jax.detector.run import detect_source, load_detector
from relnet_jax.runs import checkpoint
from relnet_jax.runs.step_folder import read_tree
from relnet_jax.training import loop, phases
from relnet_jax.trees import path_names


class Killed(Exception):
    pass


def tiny(run):
    """A run on 64 x 64 pixels; 3 steps after the plain phases, if it has any, and as many in these."""
    c = config_lib.load(f'configs/lab.py:{run}').copy_and_resolve_references()
    with c.unlocked():
        c.data.phantom.update(size=64, train_images=6, val_images=2)
        c.data.update(canvas=(64, 64), scale=64, max_size=64, max_objects=4, mask_size=14, threads=1, prefetch=1)
        c.model.update(fpn_channels=16, box_head_dim=32, mask_channels=8)
        c.train.update(steps=3, warmup_steps=1, batch_size=2, base_batch_size=2, pre_nms=20, proposals=16,
                       rpn_samples=16, log_every=1, checkpoint_every=1, keep=20, parallel='shard_map')
        c.train.rois = min(c.train.rois, 32)
        c.train.phases = tuple(p | (dict(rois=min(p['rois'], 32)) if 'rois' in p else {}) for p in c.train.phases)
        c.test.update(batch_size=2, pre_nms=20, boxes=8, detections=4, score_threshold=0.0)
    return c


def run_cut_and_gone_on(config, tmp_path, monkeypatch):
    """Trains with a kill before the last step and checks what a run must leave behind."""
    plan = phases.plan(config)
    total = plan[-1].last
    assert plan[-1].last - plan[-1].begin in (3, 4)     # shares of 3 are rounded, and every phase has a step at least
    real = loop.pipeline.train_batches

    def batches(*args, **kwargs):
        for i, batch in enumerate(real(*args, **kwargs), 1):
            if i == total:
                raise Killed
            yield batch
    with monkeypatch.context() as patch:
        patch.setattr(loop.pipeline, 'train_batches', batches)
        with pytest.raises(Killed):
            loop.train(config, tmp_path)
    assert checkpoint.steps(tmp_path)[-1] == total - 1
    before = checkpoint.load_params(tmp_path / 'checkpoints' / str(total - 1))
    state = loop.train(config, tmp_path)
    assert int(state.step) == total
    after = jax.device_get(state.params)
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(after))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    if any(name != 'object_attention' for name in config.model.relations):
        first = read_tree(tmp_path / 'checkpoints' / str(plan[-1].begin or 1), 'params')
        pairs = zip(path_names(after), jax.tree.leaves(first), jax.tree.leaves(after))
        assert any(name.startswith('relation_head/') and not np.array_equal(a, b) for name, a, b in pairs)
    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines if line['split'] == 'train'] == list(range(1, total + 1))
    for line in lines:
        if line['split'] == 'train':
            terms = {k: v for k, v in line.items() if k.startswith('loss_') or k in ('rpn_cls', 'rpn_bbox')}
            second = sum(v for k, v in terms.items() if not k.endswith('_first'))    # a first pass may only be watched
            assert len(terms) >= 4 and min(terms.values()) >= 0
            assert any(np.isclose(line['loss'], total, rtol=1e-5) for total in (second, sum(terms.values())))
    written = json.loads((tmp_path / 'eval' / 'metrics.json').read_text())
    assert written['about']['images'] == 2 and 'box_AP50' in written['metrics']
    table = checkpoint.read_class_table(tmp_path)
    detect_fn, params = load_detector(tmp_path, checkpoint.read_config(tmp_path), table)     # from the files alone
    results = detect_source(detect_fn, params, pipeline.open_sources(config)[1], config)
    assert len(results) == 8 and all(0 <= r['score'] <= 1 for r in results)
    assert {r['category_id'] for r in results} <= set(table['category_ids'])
    assert all(min(r['bbox']) >= 0 and r['bbox'][0] + r['bbox'][2] <= 64 and r['bbox'][1] + r['bbox'][3] <= 64
               for r in results)
    if 'relation_head' in params:       # and what the relations learned is read
        other = params | {'relation_head': jax.tree.map(lambda x: 3 * x + 0.1, params['relation_head'])}
        assert detect_source(detect_fn, other, pipeline.open_sources(config)[1], config) != results
    return table


@pytest.mark.slow
@pytest.mark.parametrize('run', lab.RUNS)
def test_every_named_run_trains_goes_on_and_is_evaluated(run, tmp_path, monkeypatch):
    run_cut_and_gone_on(tiny(run), tmp_path, monkeypatch)


def test_a_c4_run_with_phases_and_the_class_graph(tmp_path, monkeypatch):
    table = run_cut_and_gone_on(tiny('seven_2'), tmp_path, monkeypatch)
    assert np.array(table['graph']).shape == (14, 14)
