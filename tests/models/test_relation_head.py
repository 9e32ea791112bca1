"""Relations, cascade, C4 and anatomy head inside the detector: terms, gradients, what may and what must not matter."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from relnet_jax.detector.relation_weights import watch
from relnet_jax.models.mask_rcnn import build
from relnet_jax.models.relation_head import own_contexts
from relnet_jax.models.relations import RELATIONS, RelationContext, chosen
from relnet_jax.models.settings import RelationSettings
from relnet_jax.ops.geometry import divide_boxes
from relnet_jax.runs.state import init_params
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


# ---- config ----

def test_options_without_relations_change_nothing(tiny_batch):
    """Parameters, program and PRNG use of the plain detector: the same traced computation, operation by operation."""
    batch, keys = tiny_batch(), jax.random.split(jax.random.key(1), 2)

    def program(model):
        shapes = jax.eval_shape(lambda key: init_params(model, batch, key), jax.random.key(0))
        losses = lambda params: model.apply({'params': params}, batch, keys, method='losses')
        return shapes, str(jax.make_jaxpr(losses)(shapes))

    shapes, plain = program(make_model())
    assert set(shapes) == {'backbone', 'fpn', 'rpn', 'box_head', 'box_predictor', 'mask_head', 'mask_predictor'}
    other = make_model(fusion='add', relation_loss='second_only', boxes_from='first', scores_from='mean',
                       relation_gt_boxes=True, cascade_weights=(0.5,))
    assert program(other) == (shapes, plain)


def make_model(**changes):
    config = base.get_config().copy_and_resolve_references()
    with config.unlocked():
        config.model.update(dict(backbone='tiny') | changes)
    return build(config, 4)


@pytest.mark.parametrize('changes, message', [
    (dict(neck='c5'), r"model\.neck: expected one of \('fpn', 'c4'\), got 'c5'"),
    (dict(relation_loss='first'), r"model\.relation_loss: expected one of .*got 'first'"),
    (dict(scores_from='first'), r"model\.scores_from: expected one of .*got 'first'"),
    (dict(parts='guessed'), r"model\.parts: expected one of .*got 'guessed'"),
    (dict(parts='predicted'), r"'predicted' needs config\.model\.anatomy_head"),
    (dict(cascade=(0.5, 0.6), cascade_weights=(1.0,)), r'model\.cascade_weights: expected one per stage'),
    (dict(neck='c4', anchor_sizes=((32, 64),), cascade=(0.5, 0.6)), r'config\.model\.cascade needs the FPN'),
    (dict(neck='c4', anchor_sizes=((32, 64),), relations=('object_attention',)), r'object_attention needs the FPN'),
    (dict(backbone='vgg'), r"model\.backbone: expected one of \[.*'resnet50'.*got 'vgg'"),
    (dict(norm='batch_norm'), r"model\.norm: tiny takes one of \('frozen_bn', 'group_norm'\), got 'batch_norm'"),
    (dict(frozen_stages=6), r'model\.frozen_stages must be 0 to 5, got 6'),
    (dict(relations=('part',)), r'works with anatomical parts: expected part_boxes'),
    (dict(deformable='v3'), r"model\.deformable: tiny takes one of \('', 'v1', 'v2'\), got 'v3'"),
])
def test_settings_that_do_not_go_together_are_named(changes, message):
    model = make_model(**changes)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3), jnp.uint8), jnp.full((1, 2), 64.))


def test_relations_are_known_and_named_once():
    with pytest.raises(ValueError, match=r"model\.relations: expected names of .*got 'spatial'"):
        make_model(relations=('spatial',))
    with pytest.raises(ValueError, match='each relation at most once'):
        make_model(relations=('class', 'class'))
    with pytest.raises(ValueError, match=r'adjacency: expected \[4, 4\], got \[3, 3\]'):
        build(base.get_config(), 4, adjacency=np.eye(3))


def test_a_relation_that_divides_the_parts_sees_its_cells_alone_and_the_others_the_parts():
    boxes = jnp.asarray(np.random.default_rng(0).uniform(0, 50, (2, 5, 2)).repeat(2, -1) + [0., 0, 20, 30])
    empty = jnp.zeros((2, 0, 4))
    context = RelationContext(*[empty] * 8, part_boxes=boxes, part_features=jnp.zeros((2, 5, 4)),
                              part_valid=jnp.ones((2, 5), bool))
    asked = []

    def features_of(found):     # a box stands for its features
        asked.append(found.shape)
        return found

    relations = {name: RELATIONS[kind](**options) for name, kind, options in (
        ('part', 'part', {}), ('a', 'context', dict(grid=(3, 2))), ('lung_feature', 'lung_feature', {}),
        ('b', 'context', dict(grid=(1, 2), parts=(4,))), ('whole', 'context', {}))}
    contexts = own_contexts(context, relations, features_of)
    assert asked == [(2, 5 + 12 + 2, 4)]
    for name, cells in (('part', boxes), ('lung_feature', boxes), ('whole', boxes),
                        ('a', divide_boxes(boxes[:, 2:4], rows=3, cols=2).reshape(2, 12, 4)),
                        ('b', divide_boxes(boxes[:, 4], rows=1, cols=2))):
        np.testing.assert_array_equal(contexts[name].part_boxes, cells)
        np.testing.assert_array_equal(contexts[name].part_features, cells)
        assert contexts[name].part_valid.shape == cells.shape[:2]
    own_contexts(context, {'part': relations['part']}, features_of)
    assert len(asked) == 1      # none needs features, none are made


def test_a_relation_turns_options_into_its_fields_and_knows_their_names():
    config = base.get_config().model.copy_and_resolve_references()
    with config.unlocked():
        config.relations, config.neck = ('class', 'object_attention'), 'c4'
    fields = {name: dict(values) for name, values in chosen(config)}
    assert fields['class']['reduction'] == 16 and fields['object_attention']['features'] == 0
    with config.unlocked():
        config.relation.class_.reduction = 8
    assert dict(chosen(config)[0][1])['reduction'] == 8
    with config.unlocked():
        config.relation.class_ = dict(forms='early')
    with pytest.raises(ValueError, match=r"config\.model\.relation\.class_: ClassRelation has no field 'forms'"):
        chosen(config)
    with config.unlocked():
        del config.relation['class_']
        config.neck = 'fpn'
    assert chosen(config)[0] == ('class', ())


def test_every_relation_has_options_in_the_config_that_its_module_knows():
    config = base.get_config().model.copy_and_resolve_references()
    assert {name.rstrip('_') for name in config.relation} == set(RELATIONS)
    config.relations = tuple(RELATIONS)
    for name, fields in chosen(config):
        key = 'class_' if name == 'class' else name
        assert set(config.relation[key]) <= set(dict(fields)) <= set(RELATIONS[name].__dataclass_fields__)
