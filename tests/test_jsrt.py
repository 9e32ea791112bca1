"""configs/jsrt.py: every run is a model, and what it makes of the real films where they are there."""
from collections import Counter

import numpy as np
import pytest

from relnet_jax import config as config_lib
from relnet_jax.data import pipeline
from relnet_jax.models import mask_rcnn
from relnet_jax.models.relations import chosen, needs
from relnet_jax.runs import state as train_state
from relnet_jax.training import optimizer

SPEC = 'configs/jsrt.py'
MODULE = config_lib.module(SPEC)


def opened(real_data, run, **split):
    config = config_lib.load(f'{SPEC}:{run}').copy_and_resolve_references()
    with config.unlocked():
        config.data.train.update(annotations=str(real_data / 'jsrt' / 'instances.json'),
                                 images=str(real_data / 'jsrt' / 'images'))
        config.data.split.update(split)
    return config, *pipeline.open_sources(config)


@pytest.mark.parametrize('run', MODULE.RUNS)
def test_every_run_is_a_model(run):
    config = config_lib.load(f'{SPEC}:{run}')
    model = mask_rcnn.build(config, num_classes=len(config.data.classes) + 1, adjacency=None)
    params = train_state.abstract_params(model, train_state.batch_shapes(config, 1, len(config.data.parts)))
    optimizer.make_optimizer(config, params)        # refuses rates of layers that are not there
    assert ('mask_head' in params) == (run == 'anatomy')
    assert ('relation_head' in params) == bool(config.model.relations)
    assert ('anatomy_head' in params) == run.endswith('predicted') == (config.model.parts == 'predicted')


def test_the_parts_that_relations_look_at_are_the_lungs():
    config = config_lib.load(f'{SPEC}:context')
    assert needs(chosen(config.model)) and [config.data.parts[row] for row in config.model.relation.context.parts] == [
        'Left Lung', 'Right Lung']


def test_an_unknown_run_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no run 'anatomie', did you mean 'anatomy'"):
        config_lib.load(f'{SPEC}:anatomie')


def test_every_film_is_held_out_once_and_no_patient_is_on_both_sides(real_data):
    held = Counter()
    for fold in range(4):
        _, train, val = opened(real_data, 'base', hold_out=fold)
        assert not {r['patient'] for r in train.records} & {r['patient'] for r in val.records}
        assert (len(train), len(val)) == (93, 31)
        held.update(val.image_ids)
    assert len(held) == 124 and set(held.values()) == {1}


def test_nodules_are_objects_and_structures_are_parts(real_data):
    _, train, val = opened(real_data, 'part')
    assert train.classes == ('Nodule',) and train.parts == MODULE.STRUCTURES
    assert sum(len(source.ground_truth()['annotations']) for source in (train, val)) == 77
    example = val.load(0)
    assert example.part_valid.all() and example.image.shape[:2] == (1024, 1024)
    left, right = example.part_boxes[[2, 3]]
    assert left[0] > right[2] - 100 and left[3] - left[1] > 400     # the patient's left is on the right of the film


def test_anatomy_is_of_masks_and_without_nodules(real_data):
    config, train, _ = opened(real_data, 'anatomy')
    assert train.classes == MODULE.STRUCTURES and not train.parts
    batch = next(pipeline.train_batches(train, config, batch_size=2, seed=0))
    assert batch.gt_valid.sum() == 10 and batch.gt_has_mask[batch.gt_valid].all()
    assert sorted(np.unique(batch.gt_labels[batch.gt_valid])) == [1, 2, 3, 4, 5]
