"""configs/jsrt.py and cxr.py: every run is a model, and what they make of the real films where they are there."""
from collections import Counter

import numpy as np
import pytest

from relnet_jax import config as config_lib
from relnet_jax.data import pipeline
from relnet_jax.models import mask_rcnn
from relnet_jax.models.relations import chosen, needs
from relnet_jax.runs import state as train_state
from relnet_jax.training import optimizer

SPEC, CXR = 'configs/jsrt.py', 'configs/cxr.py'
MODULE = config_lib.module(SPEC)
RUNS = [(spec, run) for spec in (SPEC, CXR) for run in config_lib.module(spec).RUNS]


def opened(folder, spec, run, **split):
    config = config_lib.load(f'{spec}:{run}').copy_and_resolve_references()
    with config.unlocked():
        config.data.train.update(annotations=str(folder / 'instances.json'), images=str(folder / 'images'))
        config.data.split.update(split)
    return config, *pipeline.open_sources(config)


@pytest.mark.parametrize('spec, run', RUNS)
def test_every_run_is_a_model(spec, run):
    config = config_lib.load(f'{spec}:{run}')
    assert config.name == run
    classes = len(config.data.classes) + 1
    model = mask_rcnn.build(config, num_classes=classes, adjacency=np.eye(classes))
    params = train_state.abstract_params(model, train_state.batch_shapes(config, 1, len(config.data.parts)))
    optimizer.make_optimizer(config, params)        # refuses rates of layers that are not there
    assert ('mask_head' in params) == config.model.mask_head == (spec == CXR or run == 'anatomy')
    assert ('relation_head' in params) == bool(config.model.relations)
    assert ('anatomy_head' in params) == run.endswith('predicted') == (config.model.parts == 'predicted')


@pytest.mark.parametrize('spec', [SPEC, CXR])
def test_the_parts_that_relations_look_at_are_the_lungs(spec):
    config = config_lib.load(f'{spec}:context')
    assert needs(chosen(config.model)) and [config.data.parts[row] for row in config.model.relation.context.parts] == [
        'Left Lung', 'Right Lung']


def test_an_unknown_run_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no run 'anatomie', did you mean 'anatomy'"):
        config_lib.load(f'{SPEC}:anatomie')


def test_every_film_is_held_out_once_and_no_patient_is_on_both_sides(real_data):
    held = Counter()
    for fold in range(4):
        _, train, val = opened(real_data / 'jsrt', SPEC, 'base', hold_out=fold)
        assert not {r['patient'] for r in train.records} & {r['patient'] for r in val.records}
        assert (len(train), len(val)) == (93, 31)
        held.update(val.image_ids)
    assert len(held) == 124 and set(held.values()) == {1}


def test_nodules_are_objects_and_structures_are_parts(real_data):
    _, train, val = opened(real_data / 'jsrt', SPEC, 'part')
    assert train.classes == ('Nodule',) and train.parts == MODULE.STRUCTURES
    assert sum(len(source.ground_truth()['annotations']) for source in (train, val)) == 77
    example = val.load(0)
    assert example.part_valid.all() and example.image.shape[:2] == (1024, 1024)
    left, right = example.part_boxes[[2, 3]]
    assert left[0] > right[2] - 100 and left[3] - left[1] > 400     # the patient's left is on the right of the film


def test_anatomy_is_of_masks_and_without_nodules(real_data):
    config, train, _ = opened(real_data / 'jsrt', SPEC, 'anatomy')
    assert train.classes == MODULE.STRUCTURES and not train.parts
    batch = next(pipeline.train_batches(train, config, batch_size=2, seed=0))
    assert batch.gt_valid.sum() == 10 and batch.gt_has_mask[batch.gt_valid].all()
    assert sorted(np.unique(batch.gt_labels[batch.gt_valid])) == [1, 2, 3, 4, 5]


def test_findings_and_parts_of_one_file_are_told_apart(real_data):
    """cxr_gb100: 65 films; anatomy becomes parts, devices and the one pneumothorax are left out."""
    config, train, val = opened(real_data / 'cxr_gb100', CXR, 'part')
    assert train.classes == ('Ground Glass Opacities', 'Consolidation') and train.parts == config.data.parts
    names = {category['id']: category['name'] for category in val.ground_truth()['categories']}
    found = Counter(names[annotation['category_id']] for source in (train, val)
                    for annotation in source.ground_truth()['annotations'])
    assert found == {'Ground Glass Opacities': 120, 'Consolidation': 40} and len(train) + len(val) == 65
    assert not {r['patientid'] for r in train.records} & {r['patientid'] for r in val.records}
