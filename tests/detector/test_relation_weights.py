"""Relation weights of a small detector that is made of the real relation modules on made-up contexts."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.detector import explain, relation_weights
from relnet_jax.models.box_head import BoxPredictor, select_detections
from relnet_jax.models.relations import RELATIONS, RelationContext, fuse
from relnet_jax.models.relations.attention import best_rois
from relnet_jax.types import Proposals

N, K, P, D = 12, 14, 5, 16
SIZE = np.float32([[64, 64]])


def made_context(image_size=SIZE):
    rng = np.random.default_rng(3)

    def boxes(count):
        corner = rng.uniform(0, 40, (1, count, 2))
        return np.concatenate([corner, corner + rng.uniform(5, 20, (1, count, 2))], -1).astype(np.float32)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)
    return RelationContext(
        roi_features=normal(1, N, D), boxes=boxes(N), roi_valid=np.ones((1, N), bool), class_logits=normal(1, N, K),
        class_weights=normal(K, D), class_bias=normal(K), image_map=normal(1, 4, 4, 8), image_size=image_size,
        part_boxes=boxes(P), part_features=normal(1, P, D), part_valid=np.ones((1, P), bool),
        adjacency=np.abs(normal(K, K)))


class Toy(nn.Module):
    """Relations -> fusion -> predictor -> detections, with the names and calls of the detector."""
    relations: tuple

    def setup(self):
        self.modules = [RELATIONS[name](**options, name=name) for name, options in self.relations]
        self.box_predictor = BoxPredictor(K)

    def detect(self, image, image_size, part_boxes=None, part_valid=None):
        context = jax.tree.map(jnp.asarray, made_context(image_size))
        enhanced = {module.name: module(context) for module in self.modules}
        logits, deltas = self.box_predictor(fuse(context.roi_features, enhanced))
        proposals = Proposals(context.boxes, jnp.zeros((1, N)), context.roi_valid)
        return select_detections(logits, deltas, proposals, image_size, score_threshold=0.01, nms_iou=0.5, num=6)


def init(toy):
    return jax.jit(lambda key: toy.init(key, None, SIZE, method='detect')['params'])(jax.random.key(0))


def softmax(logits):
    return np.asarray(nn.softmax(logits))


@pytest.fixture(scope='module')
def seen(data):
    """What a detector with all kinds of weights makes of image 1, what its modules themselves sow, and the data."""
    source, config = data
    toy = Toy(relations=(('class', {}), ('context', {}), ('region', dict(kernel='relu', similarity=True)),
                         ('object_attention', dict(keys=3))))
    params = init(toy)
    params['box_predictor']['cls_score']['kernel'] *= 100
    params['box_predictor']['bbox_pred']['kernel'] *= 0     # a detection is its RoI, clipped
    sown = jax.device_get(jax.jit(lambda params: toy.apply({'params': params}, None, SIZE, method='detect',
                                                           mutable=['intermediates'])[1]['intermediates'])(params))
    return relation_weights.make_observer(toy, config)(params, source, 1), sown, source


def by_title(seen, detection, **options):
    return {(v.title, v.relation): v for v in relation_weights.evidence(seen, detection, **options)}


def test_the_roi_of_a_detection_has_its_score_and_its_box(seen):
    seen, _, _ = seen
    context = made_context()
    assert len(seen.detections.scores) == 6
    for d in range(6):
        roi = relation_weights.roi_of(seen, d)
        assert seen.scores[0, roi, seen.detections.labels[d]] == pytest.approx(seen.detections.scores[d], abs=1e-6)
        assert np.clip(context.boxes[0, roi], 0, 64) == pytest.approx(seen.detections.boxes[d], abs=1e-3)


def test_a_detection_of_no_roi_is_refused(seen):
    seen, _, _ = seen
    moved = seen._replace(detections=seen.detections._replace(scores=seen.detections.scores + 2))
    with pytest.raises(ValueError, match='detection 0: no RoI has its score'):
        relation_weights.roi_of(moved, 0)


def test_evidence_is_the_weights_of_the_detections_own_row(seen):
    seen, sown, source = seen
    context = made_context()
    found, roi = by_title(seen, 2, top=99), relation_weights.roi_of(seen, 2)
    assert {relation for _, relation in found} == {'class/messages', 'context', 'region/graph', 'object_attention'}

    parts = found['parts it looked at', 'context']
    weights = sown['context']['box_to_part'][0][0].mean(0)[roi]
    assert set(parts.names) == {'Left Lung', 'Right Lung'} and parts.shares.sum() == pytest.approx(1, abs=1e-5)
    assert dict(zip(parts.names, parts.shares))['Left Lung'] == pytest.approx(weights[0], abs=1e-5)
    row = source.parts.index(parts.names[0])
    assert np.array_equal(parts.boxes[0], context.part_boxes[0, row])

    asked = found['classes the image asks for', 'class/messages']
    weights = sown['class']['messages']['class_attention'][0][0]
    assert asked.names[0] == ['background', *source.classes][int(weights.argmax())]
    assert asked.shares == pytest.approx(np.sort(weights)[::-1], abs=1e-5)

    got = found['classes whose features it got', 'class/messages']
    weights = softmax(context.class_logits[0, roi]) @ sown['class']['messages']['class_to_class'][0][0]
    assert got.shares == pytest.approx(np.sort(weights / weights.sum())[::-1], abs=1e-5)


def test_regions_are_named_by_their_class_and_the_best_rois_are_found_again(seen):
    seen, sown, source = seen
    context = made_context()
    roi = relation_weights.roi_of(seen, 0)
    regions = by_title(seen, 0)['regions it looked at', 'object_attention']
    best = best_rois(context, 3, foreground_first=False)[0][0]
    weights = sown['object_attention']['box_to_box'][0][0].mean(0)[roi]
    heaviest = int(best[weights.argmax()])
    assert len(regions.names) == 3 and np.array_equal(regions.boxes[0], context.boxes[0, heaviest])
    scores = softmax(context.class_logits[0, heaviest])[1:]
    assert regions.names[0] == f'{source.classes[int(scores.argmax())]} {scores.max():.2f}'

    everywhere = by_title(seen, 0)['regions it looked at', 'region/graph']
    weights = sown['region']['graph']['box_to_box'][0][0][roi]
    assert len(everywhere.names) == min(5, np.count_nonzero(weights)) and np.all(np.diff(everywhere.shares) <= 0)
    assert np.array_equal(everywhere.boxes[0], context.boxes[0, weights.argmax()])
    assert everywhere.shares[0] == pytest.approx(weights.max() / weights.sum(), rel=1e-4)


def test_what_has_no_weight_is_no_evidence(seen):
    seen, _, _ = seen
    weights = {key: np.zeros_like(value) for key, value in seen.weights.items()}
    weights['context', 'box_to_part'][..., 1] = 0.5
    parts = {v.title: v for v in relation_weights.evidence(seen._replace(weights=weights), 0)}['parts it looked at']
    assert parts.names == ('Right Lung',) and parts.shares == pytest.approx([1.0])


def test_cells_of_a_grid_are_numbered(seen):
    seen, _, _ = seen
    contexts = {path: c._replace(part_boxes=c.part_boxes[:, :4]) for path, c in seen.contexts.items()}
    weights = {('context', 'box_to_part'): np.broadcast_to(np.float32([0.1, 0.4, 0.2, 0.3]), (1, 16, N, 4))}
    cells = seen._replace(options=seen.options | {'context': seen.options['context'] | dict(grid=(1, 2))},
                          contexts=contexts, weights=weights)
    found, = relation_weights.evidence(cells, 0)
    assert found.names == ('cell 2', 'cell 4', 'cell 3', 'cell 1')
    assert np.array_equal(found.boxes, made_context().part_boxes[0, [1, 3, 2, 0]])


def test_within_the_box_head_a_region_has_objectness_and_no_class(seen):
    seen, _, _ = seen
    contexts = {path: c._replace(class_logits=c.class_logits[..., :2]) for path, c in seen.contexts.items()}
    inside = seen._replace(contexts=contexts, weights={k: v for k, v in seen.weights.items() if k[1] == 'box_to_box'})
    found = relation_weights.evidence(inside, 0)
    assert len(found) == 2 and all(name.startswith('region 0.') for relation in found for name in relation.names)


def explained(seen, detection, scale=1, **options):
    """What `explain` says of a detection in an image that is `scale` times as large as the detector saw it."""
    seen = seen._replace(original_size=scale * np.float32(seen.image.shape[:2]))
    label, score, box = (x[detection] for x in (seen.detections.labels, seen.detections.scores, seen.detections.boxes))
    return explain.explain(seen, label, score, scale * box, **dict(top=5) | options)


def test_the_explanation_is_of_the_nearest_finding_of_its_class_in_pixels_of_the_image(seen):
    seen, _, source = seen
    for d in range(6):
        found = explained(seen, d, scale=3)
        assert found.name == source.classes[seen.detections.labels[d] - 1]
        for item, own in zip(found.weights, relation_weights.evidence(seen, d), strict=True):
            assert item.names == own.names and np.array_equal(item.shares, own.shares)
            if own.boxes is not None:
                assert item.boxes == pytest.approx(np.clip(3 * own.boxes, 0, 3 * 64), abs=1e-3)
    absent = next(label for label in range(1, K) if label not in seen.detections.labels)
    with pytest.raises(ValueError, match=f'finds no {source.classes[absent - 1]} in the image now'):
        explain.explain(seen, absent, 0.5, np.zeros(4), top=5)


def test_the_picture_shows_the_image_and_a_panel_for_each_relation(seen):
    seen, _, source = seen
    picture, *bars = explain.figure(explained(seen, 1, scale=2, top=2)).axes
    assert np.array_equal(picture.images[0].get_array(), seen.image) and len(bars) == 5
    assert picture.images[0].get_extent() == [0, 128, 128, 0]
    assert picture.get_title().startswith(source.classes[seen.detections.labels[1] - 1])
    assert len(picture.patches) == 2 + 3 * 2      # the finding and its rim, two parts, two regions of two relations
    assert sorted(text.get_text() for text in picture.texts) == ['1', '1', '1', '2', '2', '2']
    assert explained(seen, 1).plot().size[0] > 600


def test_the_text_says_what_each_relation_weighed(seen):
    seen, _, _ = seen
    text = str(explained(seen, 2, top=1)).splitlines()
    assert len(text) == 1 + 5 + 1 and text[-1] == explain.CAUTION
    parts = next(v for v in relation_weights.evidence(seen, 2) if v.relation == 'context')
    assert f'  parts it looked at (context): {parts.names[0]} {100 * parts.shares[0]:.0f} %' in text


def test_a_detector_without_relations_has_no_evidence(data):
    source, config = data
    toy = Toy(relations=())
    params = init(toy)
    seen = relation_weights.make_observer(toy, config)(params, source, 0)
    assert relation_weights.evidence(seen, 0) == []
    with pytest.raises(ValueError, match='no relations'):
        relation_weights.roi_of(seen, 0)
    found = explained(seen, 0)
    assert 'no relation' in str(found) and 'no relation' in explain.figure(found).axes[0].get_title()
    assert np.array_equal(seen.image, source.load(0).image)
