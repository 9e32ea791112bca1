"""The whole detector against torchvision's maskrcnn_resnet50_fpn with the same weights: features, losses, gradients."""
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.weight_rule import draw_weight
from relnet_jax.config import load
from relnet_jax.interop.torchvision import from_state_dict
from relnet_jax.models import backbones, layers
from relnet_jax.models.mask_rcnn import build
from relnet_jax.ops.masks import crop_mask, paste_mask
from relnet_jax.types import Batch

SIZE = np.array([[256.0, 256.0]], np.float32)

class BatchStatisticsNorm(nn.Module):
    """Batch norm in training mode, as the golden losses were computed with (their backbone was not frozen)."""
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, valid=None):
        scale, bias = (self.param(name, nn.initializers.ones, (x.shape[-1],)) for name in ('scale', 'bias'))
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + bias


@pytest.fixture(scope='module')
def state(golden):
    shapes, seed = json.loads(str(golden['model/state_dict_shapes_json'])), int(golden['seed'])
    return {name: draw_weight(name, shape, seed) for name, shape in shapes.items()}


@pytest.fixture(scope='module')
def model():
    return build(load('configs/base.py'), num_classes=14)


@pytest.fixture(scope='module')
def image(golden):
    return golden['model/image_uint8_hwc'][None]


def template(model, image):
    return jax.eval_shape(model.init, jax.random.key(0), image, SIZE)['params']


@pytest.fixture(scope='module')
def outputs(model, state, image):
    """(pyramid, proposals, RPN logits, RPN deltas, detections) in one compilation."""
    def run(model, image):
        pyramid, valid = model.features(image, SIZE)
        proposals, logits, deltas, _ = model.propose(pyramid, valid, SIZE, pre_nms=1000, post_nms=1000)
        return pyramid, proposals, logits, deltas, model.detect(image, SIZE)

    params = from_state_dict(state, template(model, image))
    return jax.jit(lambda params, image: nn.apply(run, model)({'params': params}, image))(params, image)


def test_features_are_torchvisions(golden, outputs):
    for name, features in zip(('0', '1', '2', '3', 'pool'), outputs[0]):
        expected = golden[f'model/fpn_{name}_slice_8x8x8']
        rows, columns, channels = expected.shape
        np.testing.assert_allclose(features[0, :rows, :columns, :channels], expected, atol=5e-5)
        np.testing.assert_allclose([features.mean(), features.std()], golden[f'model/fpn_{name}_mean_std'], atol=1e-5)


def test_rpn_outputs_are_torchvisions(golden, outputs):
    _, _, logits, deltas, _ = outputs
    np.testing.assert_allclose(logits[3].reshape(8, 8, 3), golden['model/rpn_objectness_p5'], atol=2e-4)
    np.testing.assert_allclose(deltas[3].reshape(8, 8, 12), golden['model/rpn_deltas_p5'], atol=1e-4)


def test_proposals_are_torchvisions(golden, outputs):
    """As a set: torchvision sorts by sigmoid, which is 1 for the best hundreds of these logits."""
    proposals, expected = outputs[1], golden['model/proposals']
    assert proposals.valid.all() and proposals.boxes.shape[1:] == expected.shape
    distance = np.abs(np.asarray(proposals.boxes[0])[:, None] - expected[None]).max(-1)
    assert (distance.min(0) < 1e-2).all() and (distance.min(1) < 1e-2).all()


def test_detections_are_torchvisions(golden, outputs):
    detections = outputs[4]
    assert detections.valid.all()
    np.testing.assert_array_equal(detections.labels[0], golden['model/labels'])
    np.testing.assert_allclose(detections.scores[0], golden['model/scores'], atol=1e-4)
    np.testing.assert_allclose(detections.boxes[0], golden['model/boxes'], atol=2e-3)


def test_pasted_masks_are_torchvisions(golden, outputs):
    detections = outputs[4]
    for mask, box, expected in zip(detections.masks[0], detections.boxes[0], golden['model/masks_u8_first10']):
        pasted = paste_mask(np.asarray(mask), np.asarray(box), (256, 256))
        assert np.abs(pasted * 255 - expected).max() < 1.5     # rounding to uint8, and its edge


@pytest.fixture(scope='module')
def training(golden, model, state, image):
    """(loss per term, gradient of four layers) with everything sampled, so that nothing is random."""
    boxes, labels = golden['model/train_gt_boxes'], golden['model/train_gt_labels']
    n = len(boxes)
    masks = np.unpackbits(golden['model/train_gt_masks_packed'])[:n * 256 * 256].reshape(n, 256, 256)
    crops = np.stack([crop_mask(mask, box, 224) for mask, box in zip(masks, boxes)])
    yes = np.ones((1, n), bool)
    batch = jax.tree.map(
        jnp.asarray,
        Batch(
            image=image,
            image_size=SIZE,
            image_valid=yes[:, 0],
            image_index=np.zeros(1, np.int32),
            original_size=SIZE,
            gt_boxes=boxes[None],
            gt_labels=labels[None].astype(np.int32),
            gt_valid=yes,
            gt_crowd=~yes,
            gt_masks=crops[None],
            gt_has_mask=yes,
            part_boxes=np.zeros((1, 0, 4), np.float32),
            part_valid=np.zeros((1, 0), bool),
        ),
    )
    rois, positives = 2000 + n, 16      # the proposals hold 11 positives
    model = model.clone(backbone=model.backbone._replace(norm='batch_statistics', frozen_stages=0),
                        train=model.train._replace(pre_nms=2000, proposals=2000, rpn_samples=17_000, rpn_positive=0.5,
                                                   rois=rois, roi_positive=positives / rois + 1e-6))
    watched = {'fpn/inner_3': 'backbone.fpn.inner_blocks.3.0', 'rpn/conv': 'rpn.head.conv.0.0',
               'box_head/fc7': 'roi_heads.box_head.fc7', 'mask_predictor/mask_fcn_logits':
               'roi_heads.mask_predictor.mask_fcn_logits'}

    @jax.jit
    def run(params, batch):
        def loss(kernels):
            changed = jax.tree.map(lambda x: x, params)
            for path, value in kernels.items():
                room, layer = path.split('/')
                changed[room][layer]['kernel'] = value
            keys = jax.random.split(jax.random.key(0), 1)
            terms, metrics = model.apply({'params': changed}, batch, keys, method='losses')
            terms = {name: total / jnp.maximum(count, 1) for name, (total, count) in terms.items()}
            return sum(terms.values()), (terms, metrics)
        kernels = {path: params[path.split('/')[0]][path.split('/')[1]]['kernel'] for path in watched}
        return jax.grad(loss, has_aux=True)(kernels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(layers.NORMS, 'batch_statistics', BatchStatisticsNorm)
        patch.setitem(backbones.BACKBONES['resnet50'].takes, 'norm', ('batch_statistics',))
        unfolded = {name: value for name, value in state.items() if 'running' not in name}
        gradient, (terms, metrics) = run(from_state_dict(unfolded, template(model, image)), batch)
    assert metrics['num_positive'][0] < positives
    return terms, {watched[path]: float(jnp.linalg.norm(value.ravel())) for path, value in gradient.items()}


@pytest.mark.parametrize('names, expected, tolerance', [
    (['loss_cls'], 'classifier', 1e-4), (['loss_bbox'], 'box_reg', 1e-4), (['loss_mask'], 'mask', 1e-2),
    ([f'rpn_cls_p{level}' for level in range(2, 7)], 'objectness', 1e-4),
    ([f'rpn_bbox_p{level}' for level in range(2, 7)], 'rpn_box_reg', 1e-4)])
def test_training_losses_are_torchvisions(golden, training, names, expected, tolerance):
    total = sum(float(training[0][name]) for name in names)
    assert total == pytest.approx(float(golden[f'model/train_loss_{expected}']), rel=tolerance)


def test_gradient_norms_are_torchvisions(golden, training):
    for module, norm in training[1].items():
        assert norm == pytest.approx(float(golden[f'model/grad_norm/{module}.weight']), rel=5e-3), module


# ---- the conversion itself ----

def test_weights_without_running_statistics_are_taken_as_folded(model, state, image):
    scale, mean, var = (state[f'backbone.body.bn1.{name}'] for name in ('weight', 'running_mean', 'running_var'))
    shapes = template(model, image)
    folded = from_state_dict(state, shapes)['backbone']['bn1']
    plain = from_state_dict({k: v for k, v in state.items() if 'running' not in k}, shapes)['backbone']['bn1']
    np.testing.assert_array_equal(plain['scale'], scale)
    np.testing.assert_allclose(folded['scale'], scale / np.sqrt(var + 1e-5), rtol=1e-6)
    bias = state['backbone.body.bn1.bias'] - mean * folded['scale']
    np.testing.assert_allclose(folded['bias'], bias, rtol=1e-5, atol=1e-6)
    exact = from_state_dict(state, shapes, eps=0.0)['backbone']['bn1']
    np.testing.assert_allclose(exact['scale'], scale / np.sqrt(var), rtol=1e-6)


def test_names_of_older_checkpoints_are_understood(model, state, image):
    def older(name):
        name = name.replace('rpn.head.conv.0.0.', 'rpn.head.conv.')
        for i in range(4):
            name = name.replace(f'_blocks.{i}.0.', f'_blocks.{i}.')
            name = name.replace(f'mask_head.{i}.0.', f'mask_head.mask_fcn{i + 1}.')
        return name
    renamed = {older(name): value for name, value in state.items()}
    assert set(renamed) != set(state)
    shapes = template(model, image)
    jax.tree.map(np.testing.assert_array_equal, from_state_dict(renamed, shapes), from_state_dict(state, shapes))


def test_a_state_dict_that_does_not_fit_lists_everything_wrong(model, state, image):
    broken = dict(state, surplus=np.zeros(3, np.float32))
    del broken['roi_heads.box_head.fc7.bias'], broken['backbone.body.layer2.1.conv2.weight']
    broken['rpn.head.cls_logits.bias'] = np.zeros(5, np.float32)
    with pytest.raises(ValueError) as error:
        from_state_dict(broken, template(model, image))
    message = str(error.value)
    for part in ('missing: backbone.body.layer2.1.conv2.weight, roi_heads.box_head.fc7.bias', 'unexpected: surplus',
                 'rpn.head.cls_logits as rpn/cls_logits/bias: expected (3,), got (5,)'):
        assert part in message
