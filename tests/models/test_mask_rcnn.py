import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.config import load
from relnet_jax.models.box_head import RoISample
from relnet_jax.models.mask_rcnn import build
from relnet_jax.types import Detections, Proposals
from tests.models.conftest import make_config

LOSSES = {'loss_cls', 'loss_bbox', 'loss_mask'} | {f'rpn_{kind}_p{i}' for kind in ('cls', 'bbox') for i in range(2, 7)}


def assert_same(got, expected, tolerance=1e-5):
    """Two dicts name -> (sum, count)."""
    assert got.keys() == expected.keys()
    for name in got:
        np.testing.assert_allclose(got[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


def assert_same_detections(got, expected, tolerance):
    """Equal where valid; boxes in pixels, hence the larger tolerance for them."""
    np.testing.assert_array_equal(got.valid, expected.valid)
    np.testing.assert_array_equal(got.labels, expected.labels)
    valid = np.asarray(got.valid)
    for name in ('scores', 'masks'):
        np.testing.assert_allclose(getattr(got, name)[valid], getattr(expected, name)[valid], atol=tolerance)
    np.testing.assert_allclose(got.boxes[valid], expected.boxes[valid], atol=100 * tolerance)


@pytest.fixture(scope='module')
def reference(tiny, tiny_batch):
    return tiny.losses(tiny_batch())


@pytest.fixture(scope='module')
def detections(tiny, tiny_batch):
    return tiny.detect(tiny_batch())


# ---- losses ----

def test_losses_are_the_promised_terms_with_their_counts(reference):
    terms, metrics = reference
    assert terms.keys() == LOSSES
    assert metrics.keys() == {'accuracy_cls', 'num_positive', 'num_rois', 'num_positive_anchors'}
    assert len({count for name, (_, count) in terms.items() if name.startswith('rpn')}) == 1
    assert terms['loss_cls'][1] == terms['loss_bbox'][1] == metrics['num_rois'][0]
    # Ground truths join the proposals, so each of the six objects has at least its own box, and all have masks.
    assert terms['loss_mask'][1] == metrics['num_positive'][0] >= 6
    assert metrics['num_positive'][1] == 2


def test_every_parameter_gets_a_gradient(tiny, tiny_batch):
    gradient = tiny.gradient(tiny_batch())
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    still = [jax.tree_util.keystr(path) for path, leaf in leaves if not leaf.any()]
    assert not still
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_images_without_objects_give_finite_losses_and_no_box_or_mask_loss(tiny, tiny_batch):
    batch = tiny_batch()
    empty = batch._replace(gt_valid=jnp.zeros_like(batch.gt_valid))
    terms, metrics = tiny.losses(empty)
    assert all(np.isfinite(total) for total, _ in terms.values())
    assert terms['loss_mask'] == (0, 0) and terms['loss_bbox'][0] == 0 and terms['loss_bbox'][1] > 0
    assert all(terms[f'rpn_bbox_p{level}'][0] == 0 for level in range(2, 7)) and terms['rpn_cls_p2'][0] > 0
    assert metrics['num_positive'][0] == metrics['num_positive_anchors'][0] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tiny.gradient(empty)))


def test_boxes_without_masks_train_everything_but_the_mask_head(tiny, tiny_batch, reference):
    batch = tiny_batch()
    terms, _ = tiny.losses(batch._replace(gt_has_mask=jnp.zeros_like(batch.gt_has_mask)))
    assert terms.pop('loss_mask') == (0, 0)
    assert_same(terms, {name: value for name, value in reference[0].items() if name != 'loss_mask'})


def test_an_image_that_only_fills_up_the_batch_takes_no_part(tiny, tiny_batch, reference):
    batch = tiny_batch()
    halves = [tiny.losses(batch._replace(image_valid=jnp.array(valid))) for valid in ([True, False], [False, True])]
    for part in range(2):
        added = {name: tuple(np.add(halves[0][part][name], halves[1][part][name])) for name in reference[part]}
        assert_same(added, reference[part])
    nothing, metrics = tiny.losses(batch._replace(image_valid=jnp.zeros(2, bool)))
    assert set(nothing.values()) == set(metrics.values()) == {(0, 0)}


def test_order_of_the_images_does_not_matter(tiny, tiny_batch, reference):
    batch = tiny_batch()
    swapped = jax.tree.map(lambda x: x[::-1], batch)
    for got, expected in zip(tiny.losses(swapped, tiny.keys[::-1]), reference):
        assert_same(got, expected)


def test_padding_of_the_ground_truths_does_not_matter(tiny, tiny_batch, reference):
    for got, expected in zip(tiny.losses(tiny_batch(objects=6)), reference):
        assert_same(got, expected)


def test_invalid_ground_truth_rows_may_hold_anything(tiny, tiny_batch, reference):
    batch = tiny_batch()
    junk = batch._replace(gt_boxes=batch.gt_boxes.at[:, 3].set(jnp.array([5., 5., 90., 90.])),
                          gt_labels=batch.gt_labels.at[:, 3].set(2), gt_crowd=batch.gt_crowd.at[:, 3].set(True),
                          gt_has_mask=batch.gt_has_mask.at[:, 3].set(True))
    for got, expected in zip(tiny.losses(junk), reference):
        assert_same(got, expected)


def test_an_object_without_area_is_no_object(tiny, tiny_batch, reference):
    batch = tiny_batch()
    flat = batch._replace(gt_valid=batch.gt_valid.at[:, 3].set(True))      # row 3 is the empty box 7, 7, 7, 7
    for got, expected in zip(tiny.losses(flat), reference):
        assert_same(got, expected)


def test_a_crowd_is_no_positive_and_what_it_covers_no_negative(tiny, tiny_batch, reference):
    batch = tiny_batch()
    crowd = batch._replace(gt_valid=batch.gt_valid.at[:, 3].set(True), gt_crowd=batch.gt_crowd.at[:, 3].set(True),
                           gt_boxes=batch.gt_boxes.at[:, 3].set(jnp.array([0., 0., 128., 128.])))
    terms, metrics = tiny.losses(crowd)     # the crowd covers every proposal, and all anchors but those on the border
    assert metrics['num_positive'] == reference[1]['num_positive']
    assert metrics['num_positive_anchors'] == reference[1]['num_positive_anchors']
    assert metrics['num_rois'][0] == metrics['num_positive'][0] < reference[1]['num_rois'][0]
    assert terms['rpn_cls_p2'][1] < 0.2 * reference[0]['rpn_cls_p2'][1]


def test_losses_do_not_depend_on_the_canvas(tiny, tiny_batch, reference):
    for got, expected in zip(tiny.losses(tiny_batch(canvas=(128, 192))), reference):
        assert_same(got, expected, 2e-5)


def test_sampling_follows_the_image_key_not_the_place_in_the_batch(tiny_model, tiny_batch):
    sampled = tiny_model()
    sampled.model = sampled.model.clone(train=sampled.model.train._replace(rois=8, rpn_samples=16))
    batch = tiny_batch()
    first = sampled.losses(batch)[0]
    swapped = sampled.losses(jax.tree.map(lambda x: x[::-1], batch), sampled.keys[::-1])[0]
    assert_same(swapped, first)
    assert first['loss_cls'][1] == 16 and first['rpn_cls_p2'][1] == 32
    other = sampled.losses(batch, jax.random.split(jax.random.key(7), 2))[0]
    assert other['rpn_cls_p2'][0] != first['rpn_cls_p2'][0]


# ---- detections ----

def test_detections_keep_their_contract(detections):
    valid = np.asarray(detections.valid)
    assert [leaf.shape for leaf in detections] == [(2, 12, 4), (2, 12), (2, 12), (2, 12), (2, 12, 28, 28)]
    assert [str(leaf.dtype) for leaf in detections] == ['float32', 'float32', 'int32', 'bool', 'float32']
    assert valid.any()
    scores = np.where(valid, detections.scores, 0)
    assert (np.diff(scores, axis=1) <= 0).all() and (scores[valid] > 0.02).all()
    assert set(np.asarray(detections.labels)[valid]) <= {1, 2, 3}
    boxes = np.asarray(detections.boxes)
    assert (boxes >= 0).all() and (boxes <= 128).all() and (boxes[valid][:, 2:] > boxes[valid][:, :2]).all()
    assert (np.asarray(detections.masks) >= 0).all() and (np.asarray(detections.masks) <= 1).all()
    assert not np.isnan(boxes).any()


@pytest.mark.parametrize('canvas', [(128, 192), (192, 192)])
def test_detections_do_not_depend_on_the_canvas(tiny, tiny_batch, detections, canvas):
    assert_same_detections(tiny.detect(tiny_batch(canvas=canvas)), detections, 1e-5)


def test_detections_of_an_odd_sized_image_do_not_depend_on_the_canvas(tiny, tiny_batch):
    small, large = (tiny.detect(tiny_batch(size=(101, 87), canvas=canvas)) for canvas in ((128, 128), (192, 192)))
    assert_same_detections(large, small, 1e-5)
    assert (np.asarray(small.boxes) <= np.array([87, 101, 87, 101])).all()


def test_computing_on_the_padding_matters_only_where_there_is_padding(tiny, tiny_batch, detections):
    batch, model = tiny_batch(), tiny.model.clone(image=tiny.model.image._replace(mask_padding=False))
    detect = jax.jit(lambda image, size: model.apply({'params': tiny.params}, image, size))
    assert_same_detections(detect(batch.image, batch.image_size), detections, 1e-5)
    odd = tiny_batch(size=(101, 87))
    assert np.abs(detect(odd.image, odd.image_size).scores - tiny.detect(odd).scores).max() > 1e-5


def test_an_image_of_nothing_but_padding_gives_finite_values(tiny, tiny_batch):
    batch = tiny_batch()
    out = tiny.detect(batch._replace(image_size=jnp.zeros((2, 2))))
    assert not out.valid.any()
    assert all(np.isfinite(leaf).all() for leaf in out)


def test_bfloat16_features_are_close_to_float32_and_losses_stay_float32(tiny, tiny_batch, reference):
    half = tiny.model.clone(dtype=jnp.bfloat16)
    batch = tiny_batch()
    terms, _ = jax.jit(lambda p: half.apply({'params': p}, batch, tiny.keys, method='losses'))(tiny.params)
    assert {value.dtype for pair in terms.values() for value in pair} == {jnp.dtype('float32')}
    for name in ('loss_cls', 'rpn_cls_p2', 'rpn_cls_p3'):
        mean, expected = (float(total / count) for total, count in (terms[name], reference[0][name]))
        assert mean == pytest.approx(expected, rel=0.02), name

    def features(model):
        return model.apply({'params': tiny.params}, batch.image, batch.image_size, method='features')[0]

    maps, exact = jax.jit(lambda: (features(half), features(tiny.model)))()
    for got, want in zip(maps, exact):
        assert got.dtype == jnp.bfloat16
        assert np.abs(got.astype(jnp.float32) - want).mean() < 0.02 * np.abs(want).mean() + 0.01


def test_without_mask_head_there_are_no_masks_and_no_mask_loss(tiny_batch):
    config = load('configs/base.py')
    with config.unlocked():
        config.model.mask_head = False
        config.model.backbone = 'tiny'
    model, batch = build(config, 4), tiny_batch()
    out, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), batch.image, batch.image_size)
    assert out.masks.shape == (2, 100, 0, 0) and 'mask_head' not in variables['params']
    keys = jax.random.split(jax.random.key(0), 2)
    terms, _ = jax.eval_shape(lambda v: model.apply(v, batch, keys, method='losses'), variables)
    assert terms.keys() == LOSSES - {'loss_mask'}


@pytest.mark.parametrize('neck, cells', [('fpn', 56), ('c4', 14)])
def test_masks_have_twice_the_cells_of_mask_pool_with_the_same_parameters(tiny_batch, neck, cells):
    sizes = dict(neck='c4', anchor_sizes=((16, 32, 64),)) if neck == 'c4' else {}
    plain, fine = (build(make_config(mask_pool=pool, **sizes), 4) for pool in (14, 28))
    batch, keys = tiny_batch(), jax.random.split(jax.random.key(0), 2)
    (_, before), (out, variables) = (jax.eval_shape(
        model.init_with_output, jax.random.key(0), batch.image, batch.image_size) for model in (plain, fine))
    assert out.masks.shape == (2, 12, cells, cells) and variables == before
    terms, _ = jax.eval_shape(lambda v: fine.apply(v, batch, keys, method='losses'), variables)
    assert 'loss_mask' in terms


# ---- small pieces of the whole ----

def test_masks_are_the_same_for_any_number_of_detections(tiny, tiny_batch):
    """On CPU they are made by chunks of used rows; a used row must not notice."""
    batch = tiny_batch()
    pyramid, _ = tiny.model.apply({'params': tiny.params}, batch.image, batch.image_size, method='features')
    maps = tiny.model.roi_maps(pyramid, batch.image_size)
    boxes = jnp.tile(batch.gt_boxes, (1, 4, 1)).at[:, 0].set(jnp.array([3., 4., 60., 80.]))
    labels = jnp.tile(batch.gt_labels, (1, 4))

    @jax.jit
    def logits(used):
        detections = Detections(boxes, jnp.ones(labels.shape), labels, used, jnp.zeros((2, 16, 0, 0)))
        return tiny.model.apply({'params': tiny.params}, maps, detections,
                                method=lambda model, *args: model.roi_heads.masks(*args))

    whole = logits(jnp.ones((2, 16), bool))
    for count in (1, 2, 3, 8, 9):
        got = logits(jnp.arange(16)[None].repeat(2, 0) < count)
        np.testing.assert_allclose(got[:, :count], whole[:, :count], atol=1e-5)
        assert not got[:, count:].any()
    assert whole.any() and not logits(jnp.zeros((2, 16), bool)).any()


def test_dropout_is_off_at_inference_and_follows_the_image_keys_in_training(tiny, tiny_batch):
    batch, model = tiny_batch(), tiny.model.clone(heads=tiny.model.heads._replace(box_dropout=0.5))
    pyramid, _ = tiny.model.apply({'params': tiny.params}, batch.image, batch.image_size, method='features')
    maps = tiny.model.roi_maps(pyramid, batch.image_size)

    rois = Proposals(batch.gt_boxes, jnp.zeros(batch.gt_labels.shape), batch.gt_valid)

    def logits(model, keys=None):
        return model.apply({'params': tiny.params}, 0, maps, rois, batch.image_size, keys,
                           method=lambda model, *args: model.roi_heads.box_stage(*args)).logits

    features = jax.jit(functools.partial(logits, model))
    plain = logits(tiny.model)
    np.testing.assert_allclose(features(None), plain, atol=1e-6)
    dropped = features(tiny.keys)
    assert np.abs(dropped - plain).max() > 1e-6
    np.testing.assert_array_equal(dropped, features(tiny.keys))
    other = features(jnp.stack([tiny.keys[0], jax.random.key(99)]))
    np.testing.assert_array_equal(other[0], dropped[0])
    assert np.abs(other[1] - dropped[1]).max() > 1e-6


def test_canvas_that_is_no_multiple_of_64_is_refused(tiny):
    with pytest.raises(ValueError, match='multiples of 64, got 96 x 128'):
        jax.eval_shape(tiny.model.init, jax.random.key(0), jnp.zeros((1, 96, 128, 3), jnp.uint8), jnp.full((1, 2), 96.))


def test_anchor_sizes_must_fit_the_levels(tiny, tiny_batch):
    batch = tiny_batch()
    model = tiny.model.clone(rpn=tiny.model.rpn._replace(anchor_sizes=(32, 64)))
    with pytest.raises(ValueError, match='expected 5 entries alike, one per level, got'):
        jax.eval_shape(model.init, jax.random.key(0), batch.image, batch.image_size)


def test_class_weights_and_focal_loss_of_the_config_reach_the_classifier_alone(tiny_batch):
    batch, rng = tiny_batch(), np.random.default_rng(0)
    logits, deltas = (jnp.asarray(rng.normal(size=(2, 4, *shape)), jnp.float32) for shape in ((4,), (4, 4)))
    sample = RoISample(batch.gt_boxes, jnp.tile(jnp.arange(4), (2, 1)), batch.gt_labels, batch.gt_valid, batch.gt_valid,
                       batch.gt_valid, jnp.zeros((2, 4)))

    def terms(**keys):
        config = load('configs/base.py')
        with config.unlocked():
            config.model.update(dict(backbone='tiny', norm='group_norm', frozen_stages=0) | keys)
        model = build(config, 4)
        return model.apply({}, logits, deltas, sample, batch,
                           method=lambda model, *args: model.roi_heads.box_terms(*args)[0])

    plain, weighted, focal = terms(), terms(class_weights=(0.0, 2.0, 3.0)), terms(focal_gamma=2.0)
    assert float(plain['loss_cls'][1]) == 6
    weights = np.array([0, 0, 2, 3])[np.asarray(batch.gt_labels)]
    assert float(weighted['loss_cls'][1]) == weights.sum()
    assert 0 < focal['loss_cls'][0] < plain['loss_cls'][0] and focal['loss_cls'][1] == 6
    for other in (weighted, focal):
        np.testing.assert_array_equal(other['loss_bbox'], plain['loss_bbox'])
    with pytest.raises(ValueError, match='class_weights: expected one per class, 3, got 2'):
        terms(class_weights=(1.0, 2.0))
