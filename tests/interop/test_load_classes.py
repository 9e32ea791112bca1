"""Rows of classes: by name where a file names them, in order where it does not."""
import json

import numpy as np

from relnet_jax.interop.load import load_weights
from relnet_jax.interop.read import write_safetensors
from relnet_jax.interop.torchvision_out import to_state_dict
from tests.interop.weight_trees import config, random, same, with_classes


def test_another_number_of_classes_keeps_only_the_class_layers_at_init(tree50, tmp_path):
    write_safetensors(tmp_path / 'a.safetensors', to_state_dict(random(tree50, 1)))
    start = random(with_classes(tree50, 14), 2)
    params, report = load_weights(tmp_path / 'a.safetensors', start, config())
    modules = ('box_predictor/bbox_pred', 'box_predictor/cls_score', 'mask_predictor/mask_fcn_logits')
    assert report.kept == tuple(f'{module}/{leaf}' for module in modules for leaf in ('bias', 'kernel'))
    same(params['box_predictor'], start['box_predictor'])
    assert any('5 classes with background, the model 14' in note for note in report.notes)


def test_files_that_name_their_classes_give_rows_by_name(tree50, tmp_path):
    """Convert writes the names; a file without them is read in order, and says so."""
    full, start = random(tree50, 1), random(with_classes(tree50, 4), 2)
    names = ('mass', 'nodule', 'a, b', 'gone')
    write_safetensors(tmp_path / 'a.safetensors', to_state_dict(full), {'classes': json.dumps(names)})
    params, report = load_weights(tmp_path / 'a.safetensors', start, config(), classes=('A, B', 'fracture', 'mass'))
    for room, module, numbers in (('box_predictor', 'cls_score', 1), ('box_predictor', 'bbox_pred', 4),
                                  ('mask_predictor', 'mask_fcn_logits', 1)):
        for leaf in ('kernel', 'bias'):
            leaves = [tree[room][module][leaf] for tree in (params, full, start)]
            have, old, new = (np.stack(np.split(x, x.shape[-1] // numbers, -1)) for x in leaves)
            np.testing.assert_array_equal(have, np.stack([old[0], old[3], new[2], old[1]]))
    same(params['box_head'], full['box_head'])
    assert report.classes == {'taken by name': ['background', 'A, B', 'mass'], 'new': ['fracture'],
                              'left out': ['nodule', 'gone']}
    assert 'classes new: 1\n    fracture' in str(report) and not report.kept and not report.complete

    # As many classes, none of them the file's: no row becomes another class.
    start = random(tree50, 2)
    params, report = load_weights(tmp_path / 'a.safetensors', start, config(), classes=('p', 'q', 'r', 's'))
    same(params['box_predictor'], start['box_predictor'])
    assert any("none of the file's classes" in note for note in report.notes) and len(report.kept) == 6

    params, report = load_weights(tmp_path / 'a.safetensors', start, config(), classes=names)
    same(params, full)
    assert report.complete
    write_safetensors(tmp_path / 'b.safetensors', to_state_dict(full))
    params, report = load_weights(tmp_path / 'b.safetensors', start, config(), classes=('p', 'q', 'r', 's'))
    same(params, full)
    assert any('does not name its classes: its 5 rows are taken in order' in note for note in report.notes)


def test_a_coco_detector_gives_the_rows_of_its_categories_to_a_model_of_some(tree50, tmp_path):
    full = random(with_classes(tree50, 81), 1)
    write_safetensors(tmp_path / 'a.safetensors', to_state_dict(full))
    params, _ = load_weights(tmp_path / 'a.safetensors', random(with_classes(tree50, 3), 2), config(),
                             classes=('toothbrush', 'person'))
    np.testing.assert_array_equal(params['box_predictor']['cls_score']['bias'],
                                  full['box_predictor']['cls_score']['bias'][[0, 80, 1]])


def test_torchvision_coco_rows_for_the_80_categories(tree50, tmp_path):
    full = random(with_classes(tree50, 91), 1)
    write_safetensors(tmp_path / 'a.safetensors', to_state_dict(full))
    params, report = load_weights(tmp_path / 'a.safetensors', random(with_classes(tree50, 81), 2), config())
    # Labels 1, 12, 80: person (id 1), stop sign (13, since 12 is not used), toothbrush (90).
    for label, category in ((0, 0), (1, 1), (12, 13), (80, 90)):
        for leaf in ('kernel', 'bias'):
            for room, module in (('box_predictor', 'cls_score'), ('mask_predictor', 'mask_fcn_logits')):
                have, want = params[room][module][leaf], full[room][module][leaf]
                np.testing.assert_array_equal(have[..., label], want[..., category])
            have, want = params['box_predictor']['bbox_pred'][leaf], full['box_predictor']['bbox_pred'][leaf]
            np.testing.assert_array_equal(have[..., 4 * label:][..., :4], want[..., 4 * category:][..., :4])
    assert not report.kept
