"""Relations, cascade, C4 and anatomy head inside the detector: terms, gradients, what may and what must not matter."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.detector.relation_weights import watch
from relnet_jax.models.settings import RelationSettings
from relnet_jax.types import Parts, Proposals

RPN = {f'rpn_{kind}_p{i}' for kind in ('cls', 'bbox') for i in range(2, 7)}

# Together they hold every relation, both losses, both sources of boxes, both necks, and every option of the model.
PUBLISHED = dict(relations=('class', 'part', 'context', 'object_attention', 'object_position'))
SECOND_ONLY = dict(relations=('region', 'class_region'), relation_loss='second_only', boxes_from='first')
CASCADE = dict(relations=('gaussian_mixture', 'lung_feature', 'context', 'presence'), cascade=(0.5, 0.6, 0.7),
               cascade_weights=(1.0, 0.5, 0.25), anatomy_head=True, parts='given_or_predicted', relation_gt_boxes=True,
               deformable='v2',
               fusion_order=('context', 'roi', 'lung_feature', 'presence', 'gaussian_mixture'))
C4 = dict(neck='c4', anchor_sizes=((16, 32, 64, 128),), relations=('class', 'context'), relation_loss='second_only',
          relation_gt_boxes=True, mask_head=True)
VARIANTS = {
    'published': ({}, PUBLISHED),
    'second_only': (dict(region=dict(kernel='gaussian_norm')), SECOND_ONLY),
    'cascade': (dict(context=dict(grid=(2, 1))), CASCADE),
    'c4': (dict(class_=dict(form='early')), C4)}
LOSSES = {
    'published': RPN | {'loss_cls', 'loss_bbox', 'loss_cls_first', 'loss_bbox_first'},
    'second_only': RPN | {'loss_cls', 'loss_bbox'},
    'cascade': RPN | {f'loss_{kind}{pass_}' for kind in ('cls', 'bbox')
                      for pass_ in ('', '_first', '_stage1', '_stage2')}
               | {'loss_part_box', 'loss_part_presence'},
    'c4': {'rpn_cls', 'rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'}}
# Second-only training with boxes of the second pass leaves the first pass's box regression as it was fine-tuned.
IDLE = {'c4': {"['box_predictor']['bbox_pred']['bias']", "['box_predictor']['bbox_pred']['kernel']"}}
variants = pytest.mark.parametrize('name', VARIANTS)


@pytest.fixture
def detector(relational):
    return lambda name: relational(VARIANTS[name][0], **VARIANTS[name][1])


def assert_same_terms(got, expected, tolerance=2e-5):
    """(losses, metrics) of two runs, name -> (sum, count)."""
    for part, reference in zip(got, expected):
        assert part.keys() == reference.keys()
        for name in part:
            np.testing.assert_allclose(part[name], reference[name], rtol=tolerance, atol=tolerance, err_msg=name)


# ---- losses ----

@variants
def test_every_parameter_gets_a_gradient(detector, name):
    model = detector(name)
    leaves = jax.tree_util.tree_leaves_with_path(model.gradient(model.batch))
    assert all(np.isfinite(leaf).all() for _, leaf in leaves)
    assert {jax.tree_util.keystr(path) for path, leaf in leaves if not leaf.any()} == IDLE.get(name, set())


@variants
def test_every_pass_and_stage_is_reported_and_only_what_is_trained_is_a_loss(detector, name):
    model = detector(name)
    losses, metrics = model.losses(model.batch)
    assert losses.keys() == LOSSES[name]
    assert all(np.isfinite(total) and count > 0 for total, count in losses.values())
    assert 'accuracy_cls_first' in metrics
    assert {'loss_cls_first', 'loss_bbox_first'} & metrics.keys() == {
        'published': set(), 'second_only': {'loss_cls_first'}, 'cascade': set(),
        'c4': {'loss_cls_first', 'loss_bbox_first'}}[name]


def test_stage_losses_are_weighed_and_counted_in_the_total(detector):
    """The lab's first cascade forgot the losses of its own stages."""
    model = detector('cascade')
    losses, _ = model.losses(model.batch)
    plain = model.model.clone(heads=model.model.heads._replace(cascade_weights=(1.0, 1.0, 1.0)))
    run = jax.jit(lambda p: plain.apply({'params': p}, model.batch, model.keys, method='losses'))
    terms, _ = run(model.params)
    for suffix, weight in (('_stage1', 1.0), ('_stage2', 0.5), ('_first', 0.25), ('', 0.25)):
        for kind in ('cls', 'bbox'):
            total, count = terms[f'loss_{kind}{suffix}']
            np.testing.assert_allclose(losses[f'loss_{kind}{suffix}'], (weight * total, count), rtol=1e-4)
    gradient = model.gradient(model.batch)
    for head in ('box_head', 'box_head_2', 'box_head_3'):
        assert gradient[head]['fc6']['kernel'].any()


def test_the_first_pass_is_the_plain_detector(detector):
    """Same parameters: same first-pass losses, as the relation pass samples nothing of its own."""
    model = detector('second_only')
    plain = model.model.clone(relation=RelationSettings())
    own = {name: leaf for name, leaf in model.params.items() if name != 'relation_head'}
    terms, metrics = jax.jit(lambda p: plain.apply({'params': p}, model.batch, model.keys, method='losses'))(own)
    losses, extra = model.losses(model.batch)
    first = {name: losses[name] for name in losses if name != 'loss_cls'} | {'loss_cls': extra['loss_cls_first']}
    assert first.keys() == terms.keys()
    for name, value in terms.items():
        np.testing.assert_allclose(first[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(extra['accuracy_cls_first'], metrics['accuracy_cls'])


def test_ground_truths_stay_out_of_the_relation_pass(detector):
    model = detector('published')
    losses, metrics = model.losses(model.batch)
    joined = losses['loss_cls_first'][1] - losses['loss_cls'][1]
    assert joined == 6 and metrics['num_rois'][0] == losses['loss_cls_first'][1]
    with_them = detector('cascade')
    losses, _ = with_them.losses(with_them.batch)
    assert losses['loss_cls_first'][1] == losses['loss_cls'][1]


@pytest.mark.parametrize('neck', ['fpn', 'c4'])
def test_relations_that_read_maps_leave_these_alone_where_the_gradient_stops(relational, neck):
    """Second pass on given RoI features: what reaches the maps has come through the class and the context relation."""
    shape = dict(neck='c4', anchor_sizes=((16, 32, 64, 128),)) if neck == 'c4' else {}
    results = {}
    for stop in (False, True):
        model = relational({}, relations=('class', 'part', 'context'), relation_stop_gradient=stop, **shape)
        b, size = model.batch, model.batch.image_size

        def losses(params, levels, model=model, b=b, size=size):
            def second_pass(detector, levels):
                maps = detector.roi_maps(levels, size)
                rois = Proposals(b.gt_boxes, jnp.zeros(b.gt_valid.shape), b.gt_valid)
                stage = jax.lax.stop_gradient(detector.roi_heads.box_stage(0, maps, rois, size))
                return detector.roi_heads.relate(maps, rois, stage, Parts(b.part_boxes, b.part_valid), size)
            logits, deltas = model.model.apply({'params': params}, levels, method=second_pass)
            return jnp.sum(logits ** 2) + jnp.sum(deltas ** 2)
        levels, _ = model.model.apply({'params': model.params}, b.image, size, method='features')
        total, (params, levels) = jax.jit(jax.value_and_grad(losses, argnums=(0, 1)))(model.params, levels)
        results[stop] = total, params, levels
        read = levels[2 if neck == 'fpn' else 0]        # P4 or C4
        assert bool(np.any(read)) != stop, 'the relations read no map, or their gradient was not stopped'
    assert results[True][0] == results[False][0]
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(results[False][1]),
                                  jax.tree.leaves(results[True][1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=jax.tree_util.keystr(path))
    assert np.any(results[True][1]['relation_head']['context']['attention']['output']['kernel'])


@pytest.mark.parametrize('cascade', [(), (0.5, 0.6)], ids=['one stage', 'cascade'])
def test_a_detached_relation_pass_leaves_the_detector_under_it_as_it_is(relational, cascade):
    """Same parameters: the gradient of all but the relation head is that of the detector without relations."""
    model = relational({}, relations=('class', 'part', 'context', 'presence'), relation_detached=True,
                       relation_gt_boxes=True, cascade=cascade, cascade_weights=(1.0, 1.0))
    plain = model.model.clone(relation=RelationSettings())
    own = {name: leaf for name, leaf in model.params.items() if name != 'relation_head'}

    def total(params):
        terms, _ = plain.apply({'params': params}, model.batch, model.keys, method='losses')
        return sum(value / jnp.maximum(count, 1) for value, count in terms.values())
    expected, got = jax.jit(jax.grad(total))(own), model.gradient(model.batch)
    idle = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(got.pop('relation_head'))
            if not leaf.any()]
    assert not idle
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(other, leaf, rtol=1e-4, atol=1e-6 + 1e-5 * float(np.abs(leaf).max()),
                                   err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize('scores_from', ['second', 'mean'])
@pytest.mark.parametrize('cascade', [(), (0.5, 0.6)], ids=['one stage', 'cascade'])
def test_scores_are_the_second_passs_or_the_mean_of_all_predictors(relational, cascade, scores_from):
    model = relational({}, relations=('part', 'presence'), scores_from=scores_from, boxes_from='first', cascade=cascade,
                       cascade_weights=(1.0, 1.0))
    b, predicted = model.batch, []

    def detect(params):
        with watch(lambda *_: None, lambda path, features, out: predicted.append(jax.nn.softmax(out[0]))):
            return model.model.apply({'params': params}, b.image, b.image_size, b.part_boxes, b.part_valid), predicted
    found, predicted = jax.device_get(jax.jit(detect)(model.params))
    assert len(predicted) == max(len(cascade), 1) + 1
    expected = np.mean(predicted, axis=0) if scores_from == 'mean' else predicted[-1]
    assert found.valid.sum() > 4 and np.abs(predicted[0] - predicted[-1]).max() > 0.1
    for image, valid in enumerate(found.valid):
        for label, score in zip(found.labels[image, valid], found.scores[image, valid]):
            assert np.abs(expected[image, :, label] - score).min() < 1e-5


def test_a_detached_relation_pass_cannot_train_alone(relational):
    with pytest.raises(ValueError, match='nothing would train the first pass'):
        relational({}, relations=('part',), relation_detached=True, relation_loss='second_only')


@pytest.mark.parametrize('name', ['cascade', 'c4'])
def test_padding_of_canvas_and_ground_truths_does_not_matter(detector, tiny_batch, name):
    model = detector(name)
    wider = model.with_parts(tiny_batch(canvas=(128, 192), objects=6))
    run = jax.jit(lambda p: model.model.apply({'params': p}, wider, model.keys, method='losses'))
    assert_same_terms(run(model.params), model.losses(model.batch), 1e-4)


# ---- detections ----

@pytest.fixture(scope='module')
def found(relational):
    made = {}

    def detect(name):
        if name not in made:
            model = relational(VARIANTS[name][0], **VARIANTS[name][1])
            made[name] = model, model.detect(model.batch)
        return made[name]
    return detect


@variants
def test_detections_are_finite_and_see_the_second_pass(found, name):
    model, out = found(name)
    assert np.asarray(out.valid).any() and all(np.isfinite(leaf).all() for leaf in out)
    assert out.masks.shape[2:] == ((14, 14) if name == 'c4' else (0, 0))
    params = model.params | {'relation_head': jax.tree.map(lambda leaf: 1.5 * leaf, model.params['relation_head'])}
    other = model.detect_from(params, model.batch)
    assert np.abs(np.asarray(other.scores) - np.asarray(out.scores)).max() > 1e-4


@pytest.mark.parametrize('relations, tolerance', [(('class', 'region'), 1e-5),
                                                  (('context', 'part', 'object_position'), 2e-3)])
def test_detections_do_not_depend_on_the_canvas(relational, tiny_batch, relations, tolerance):
    """The geometry embedding of the last three takes 100 log(distance / width) and so amplifies the rounding of a
    proposal, 1e-5 pixel, by 100 / distance."""
    model = relational({}, relations=relations)
    out, wider = (model.detect(model.with_parts(tiny_batch(canvas=canvas))) for canvas in ((128, 128), (128, 192)))
    valid = np.asarray(out.valid)
    np.testing.assert_array_equal(wider.valid, valid)
    np.testing.assert_array_equal(wider.labels, out.labels)
    np.testing.assert_allclose(np.asarray(wider.scores)[valid], np.asarray(out.scores)[valid], atol=tolerance)
    np.testing.assert_allclose(np.asarray(wider.boxes)[valid], np.asarray(out.boxes)[valid], atol=100 * tolerance)


def test_given_parts_matter_and_missing_ones_are_filled_by_the_head(found):
    model, out = found('published')
    unknown = model.batch._replace(part_valid=jnp.zeros_like(model.batch.part_valid))
    assert np.abs(np.asarray(model.detect(unknown).scores) - np.asarray(out.scores)).max() > 1e-4
    moved = unknown._replace(part_boxes=unknown.part_boxes + 3)
    np.testing.assert_array_equal(model.detect(moved).scores, model.detect(unknown).scores)

    model, out = found('cascade')
    unknown = model.batch._replace(part_valid=jnp.zeros_like(model.batch.part_valid))
    moved = unknown._replace(part_boxes=unknown.part_boxes + 3)
    np.testing.assert_array_equal(model.detect(moved).scores, model.detect(unknown).scores)
    assert all(np.isfinite(leaf).all() for leaf in model.detect(unknown))


def test_relation_weights_and_parts_can_be_seen_and_cost_nothing_unseen(detector):
    model = detector('published')
    args = (model.batch.image, model.batch.image_size, model.batch.part_boxes, model.batch.part_valid)

    def detect(params, mutable):
        return model.model.apply({'params': params}, *args, method='detect', mutable=mutable)

    _, sown = jax.eval_shape(lambda p: detect(p, ['intermediates']), model.params)
    shapes = {'/'.join(str(k.key) for k in path[1:-1]): leaf.shape
              for path, leaf in jax.tree_util.tree_leaves_with_path(sown)}
    assert shapes == {
        'part_boxes': (2, 5, 4), 'part_valid': (2, 5), 'object_attention_1/box_to_box': (2, 16, 60, 60),
        'object_attention_2/box_to_box': (2, 16, 60, 60), 'relation_head/context/box_to_part': (2, 16, 60, 2),
        'relation_head/class/messages/class_attention': (2, 4),
        'relation_head/class/messages/class_to_class': (2, 4, 4)}
    out = jax.eval_shape(lambda p: detect(p, False), model.params)
    assert [leaf.shape for leaf in out] == [(2, 12, 4), (2, 12), (2, 12), (2, 12), (2, 12, 0, 0)]


@variants
def test_bfloat16_traces_and_keeps_losses_and_parameters_float32(detector, name):
    model = detector(name)
    half = model.model.clone(dtype=jnp.bfloat16)
    terms, _ = jax.eval_shape(lambda p: half.apply({'params': p}, model.batch, model.keys, method='losses'),
                              model.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(terms)} == {jnp.dtype('float32')}
    shapes = jax.eval_shape(lambda k: half.init(k, model.batch, model.keys, method='losses')['params'],
                            jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}
