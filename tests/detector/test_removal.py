"""Changes of a score without an input of a relation: they name what decided, and are what the second pass says."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.detector import explain, relation_weights, removal
from relnet_jax.models.box_head import BoxPredictor, select_detections
from relnet_jax.models.cascade import mean_scores
from relnet_jax.models.relation_head import RelationHead, own_contexts
from relnet_jax.models.relations import RELATIONS, RelationContext, fuse
from relnet_jax.types import Proposals

K, P = 14, 5
SIZE = np.float32([[64, 64]])
# Of the finding, of what lies elsewhere (two RoIs on it), of something else, and of something at the finding's place.
BOXES = np.float32([[40, 40, 60, 60], [2, 2, 20, 20], [3, 2, 21, 20], [40, 2, 60, 18], [41, 40, 60, 59]])
LABELS, DECIDES, FINDING, OTHER = (5, 3, 3, 8, 6), 3, 5, 8


def made_context(image_size, width):
    """B = 1: the RoIs above, sure of their class but for the finding, whose features are the logits themselves."""
    rng = np.random.default_rng(0)
    logits = np.zeros((1, len(BOXES), K), np.float32)
    logits[0, np.arange(len(BOXES)), LABELS] = (1, 6, 5, 6, 5)
    corner = rng.uniform(0, 30, (1, P, 2))
    features = rng.normal(size=(1, len(BOXES), width)).astype(np.float32)
    features[..., :K] = logits
    return jax.tree.map(jnp.asarray, RelationContext(
        roi_features=features, boxes=BOXES[None], roi_valid=np.ones((1, len(BOXES)), bool), class_logits=logits,
        class_weights=rng.normal(size=(K, width)).astype(np.float32), class_bias=np.zeros(K, np.float32),
        image_map=rng.normal(size=(1, 4, 4, 8)).astype(np.float32), image_size=image_size,
        part_boxes=np.concatenate([corner, corner + rng.uniform(10, 30, (1, P, 2))], -1).astype(np.float32),
        part_features=np.zeros((1, P, width), np.float32), part_valid=np.array([[True] * 4 + [False]]),
        adjacency=np.full((K, K), 0.2, np.float32)))


class Toy(nn.Module):
    """A relation head on made-up RoIs, with the names and calls of the detector."""
    relations: tuple
    width: int = 16
    mean: bool = False      # of this pass and a first one, whose scores are those of the context

    def setup(self):
        self.relation_head = RelationHead(K, self.relations)
        if self.mean:
            self.box_predictor = BoxPredictor(K)

    def detect(self, image, image_size, part_boxes=None, part_valid=None):
        context = made_context(image_size, self.width)
        logits, deltas = self.relation_head(context, features_of(self.width))
        if self.mean:
            logits = mean_scores([self.box_predictor(context.roi_features)[0], logits])
        rois = Proposals(context.boxes, jnp.zeros(context.boxes.shape[:2]), context.roi_valid)
        return select_detections(logits, 0 * deltas, rois, image_size, score_threshold=0.01, nms_iou=0.5, num=20)


def features_of(width):
    return lambda boxes: jnp.sin(jnp.sum(boxes, axis=-1, keepdims=True) * jnp.arange(1., width + 1))


def drawn(toy):
    """Parameters off their start values."""
    shapes = jax.eval_shape(lambda key: toy.init(key, None, SIZE, method='detect')['params'], jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), jnp.float32), shapes)
    scores = params['relation_head']['predictor']['cls_score']
    widths = np.array([toy.width, 256, 64 * P, 1024, toy.width // 4, 8])     # of the RoI and of RELATIONS_OF
    sizes = np.repeat(np.sqrt(widths) * (1, 1, 1, 1, 200, 1), widths)       # what the region relation sums is large
    scores['kernel'] = scores['kernel'] / sizes[:, None] + 2 * jnp.eye(widths.sum(), K)
    return params


@pytest.fixture(scope='module', params=[False, True], ids=['second pass', 'mean of both'])
def told(request, data):
    """Seen by a detector whose presence relation makes FINDING of everything in a film with DECIDES elsewhere."""
    source, config = data
    config = config.copy_and_resolve_references()
    config.model.scores_from = 'mean' if request.param else 'second'
    toy = Toy((('presence', (('features', 4), ('graph', False))),), mean=request.param)
    kernel, scores = np.zeros((K - 1, 4), np.float32), np.zeros((16 + 4, K), np.float32)
    kernel[DECIDES - 1] = (1, -1, 0, 0)
    scores[:K] = np.eye(K)
    scores[16, FINDING] = 4
    params = {'relation_head': {
        'presence': dict(fc=dict(kernel=kernel, bias=np.zeros(4, np.float32)),
                         norm=dict(scale=np.ones(4, np.float32), bias=np.zeros(4, np.float32))),
        'predictor': dict(cls_score=dict(kernel=scores, bias=np.zeros(K, np.float32)),
                          bbox_pred=dict(kernel=np.zeros((20, 4 * K), np.float32), bias=np.zeros(4 * K, np.float32)))}}
    if toy.mean:
        params['box_predictor'] = jax.tree.map(lambda leaf: leaf[:16] if leaf.ndim == 2 else leaf,
                                               params['relation_head']['predictor'])
    observe = relation_weights.make_observer(toy, config)
    return observe(jax.tree.map(jnp.asarray, params), source, 0), source


def finding(seen, label=FINDING, place=BOXES[0]):
    return next(d for d, (of, box) in enumerate(zip(seen.detections.labels, seen.detections.boxes))
                if of == label and np.abs(box - place).max() < 0.1)


def test_the_class_and_the_region_that_decided_are_named_and_no_other(told):
    seen, source = told
    d = finding(seen)
    passes = len(seen.scores) - 1
    assert seen.detections.scores[d] > (0.7 if passes == 1 else 0.4)
    by_class, by_region = removal.changes(seen, d)
    assert by_class.title == removal.TITLES['classes'] and by_class.relation == 'relation_head/presence'
    assert by_class.names == (source.classes[DECIDES - 1],)
    assert by_region.title == removal.TITLES['rois']
    assert len(by_region.names) == 1 and by_region.names[0].startswith(source.classes[DECIDES - 1])
    # With DECIDES at the floor, LayerNorm and ReLU turn (-6.9, 6.9, 0, 0) into 0 for the first feature.
    logits = np.zeros(K)
    logits[FINDING] = 1
    without = np.exp(logits[FINDING]) / np.exp(logits).sum()    # what a first pass says anyway
    expected = without - seen.detections.scores[d]
    assert by_class.changes == pytest.approx([expected], abs=1e-4)
    assert by_region.changes == pytest.approx([expected], abs=1e-4)      # both RoIs of the place are left out


def test_what_lies_at_the_findings_own_place_is_no_region_elsewhere(told):
    seen, _ = told
    d = finding(seen)
    places = removal.regions(seen, d, relation_weights.roi_of(seen, d))
    assert sorted(map(tuple, places.values())) == [(1, 2), (3,)]


def test_presence_is_told_with_its_probability_and_the_box_that_has_it(told):
    seen, source = told
    found, = relation_weights.evidence(seen, finding(seen), top=2)
    assert found.title == 'what was found elsewhere'
    p = np.exp(6) / (np.exp(6) + K - 1)
    assert set(found.names) == {f'{source.classes[k - 1]} {p:.2f}' for k in (DECIDES, OTHER)}
    assert {tuple(box) for box in found.boxes} == {tuple(BOXES[1]), tuple(BOXES[3])}


def test_the_explanation_says_and_shows_it(told):
    seen, source = told
    d = finding(seen)
    about = explain.explain(seen, FINDING, seen.detections.scores[d], BOXES[0], top=5)
    text = str(about)
    decided = source.classes[DECIDES - 1]
    change = f'{decided} {about.changes[0].changes[0]:+.3f}'
    assert f'  change of the score without a class (relation_head/presence): {change}' in text.splitlines()
    assert text.splitlines()[-1] == explain.MEANING and explain.CAUTION in text
    picture, *panels = explain.figure(about).axes
    assert [axes.get_title('left') for axes in panels] == [
        'what was found elsewhere', removal.TITLES['classes'], removal.TITLES['rois']]
    assert [label.get_text() for label in panels[1].get_yticklabels()] == [decided]
    assert panels[1].patches[0].get_width() == pytest.approx(about.changes[0].changes[0])


RELATIONS_OF = (('class', ()), ('part', ()), ('context', ()), ('region', (('kernel', 'relu'),)),
                ('presence', (('features', 8),)))


@pytest.fixture(scope='module', params=[False, True], ids=['parts', 'cells'])
def everything(request, data):
    source, config = data
    relations = tuple((name, (('grid', (2, 1)),) if name == 'context' and request.param else fields)
                      for name, fields in RELATIONS_OF)
    toy = Toy(relations)
    params = drawn(toy)
    observe = relation_weights.make_observer(toy, config)
    return observe, params, source, relations


def score_without(params, relations, name, change, roi, label):
    """Of the second pass put together by hand, with `change` made to what the relation `name` is given."""
    params = params['relation_head']
    modules = {of: RELATIONS[of](**dict(fields)) for of, fields in relations}
    context = made_context(SIZE, 16)
    contexts = own_contexts(context, modules, features_of(16))
    contexts[name] = change(contexts[name])
    enhanced = {of: module.apply({'params': params.get(of, {})}, contexts[of]) for of, module in modules.items()}
    logits, _ = BoxPredictor(K).apply({'params': params['predictor']}, fuse(context.roi_features, enhanced))
    return float(nn.softmax(logits)[0, roi, label])


def test_each_change_is_what_the_second_pass_makes_without_that_input_of_that_relation(everything):
    observe, params, source, relations = everything
    seen = observe(params, source, 0)
    d = finding(seen)
    roi, score = relation_weights.roi_of(seen, d), seen.detections.scores[d]
    found = {(change.relation, change.title): dict(zip(change.names, change.changes))
             for change in removal.changes(seen, d, top=99)}
    assert {path.split('/')[1] for path, _ in found} == {name for name, _ in relations}

    def off(field, row):
        return lambda context: context._replace(**{field: getattr(context, field).at[:, row].set(False)})

    k = 4
    known = jnp.ones((1, K), bool).at[0, k].set(False)
    for name in ('class', 'presence'):
        less = score_without(params, relations, name, lambda c: c._replace(class_valid=known), roi, FINDING)
        got = found[f'relation_head/{name}', removal.TITLES['classes']]
        assert got.get(source.classes[k - 1], 0) == pytest.approx(less - score, abs=max(2e-5, removal.SMALLEST))
        assert len(got) > 3
    cells = dict(relations)['context'] != ()
    for name, row, called in (('part', 2, 'Left Lung'), ('context', 2, 'cell 3' if cells else 'Left Lung')):
        less = score_without(params, relations, name, off('part_valid', row), roi, FINDING)
        assert found[f'relation_head/{name}', removal.TITLES['parts']][called] == pytest.approx(less - score, abs=2e-5)
        assert source.parts[4] not in found[f'relation_head/{name}', removal.TITLES['parts']]   # is not there anyway
    less = score_without(params, relations, 'region', off('roi_valid', jnp.array([1, 2])), roi, FINDING)
    got = found['relation_head/region', removal.TITLES['rois']]
    changed, = (change for name, change in got.items() if name.startswith(source.classes[DECIDES - 1]))
    assert changed == pytest.approx(less - score, abs=2e-5)


def test_all_inputs_of_all_findings_and_films_are_left_out_by_one_compiled_program(everything):
    observe, params, source, _ = everything
    for index in (0, 1):
        seen = observe(params, source, index)
        for d in range(3):
            assert removal.changes(seen, d)
    assert seen.second_pass.func._cache_size() == 1
