"""Small relation contexts and the golden cases of tests/golden/relations.npz."""
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.models.relations import RelationContext

GOLDEN = Path(__file__).resolve().parents[2] / 'golden' / 'relations.npz'


def random_boxes(rng, *shape):
    """Boxes of 8 to 96 pixels in a 224 x 256 image, on eighths of a pixel, which stay exact when mirrored."""
    corner = rng.integers(0, 8 * 120, (*shape, 2))
    return np.concatenate([corner, corner + rng.integers(8 * 8, 8 * 96, (*shape, 2))], -1).astype(np.float32) / 8


def make_context(seed=0, *, batch=2, rois=12, valid=9, width=16, classes=5, parts=5, **given):
    """Images of 224 x 256 on a canvas of 240 x 272. RoIs from `valid` on are padding, one part is missing."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    presence = rng.uniform(size=(40, classes)) < 0.4
    graph = (presence.T @ presence.astype(np.float32)) / 20
    part_boxes, part_valid = random_boxes(rng, batch, parts), np.ones((batch, parts), bool)
    part_valid[-1, -1] = False
    fields = dict(
        roi_features=normal(batch, rois, width), boxes=random_boxes(rng, batch, rois),
        roi_valid=np.tile(np.arange(rois) < valid, (batch, 1)), class_logits=2 * normal(batch, rois, classes),
        class_weights=normal(classes, width), class_bias=normal(classes), image_map=normal(batch, 15, 17, 16),
        image_size=np.tile(np.float32([224, 256]), (batch, 1)), part_boxes=part_boxes,
        part_features=normal(batch, part_boxes.shape[1], width), part_valid=part_valid,
        adjacency=graph.astype(np.float32))
    return RelationContext(**{k: jnp.asarray(v) for k, v in (fields | given).items()})


@pytest.fixture(scope='session')
def context_factory():
    return make_context


@pytest.fixture(scope='session')
def random_params():
    """(module, context) -> parameters off their start values, drawn with numpy, which needs no compilation."""
    def draw(module, context, seed=3):
        rng = np.random.default_rng(seed)
        shapes = jax.eval_shape(module.init, jax.random.key(0), context).get('params', {})

        def one(path, leaf):
            normal = rng.normal(size=leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
            around_one = path[-1].key in ('scale', 'precision_rho', 'precision_theta')
            return jnp.asarray(1 + 0.2 * np.tanh(normal) if around_one else normal, jnp.float32)
        return jax.tree_util.tree_map_with_path(one, shapes)
    return draw


@pytest.fixture(scope='session')
def run():
    """(module, params, context) -> the result, compiled as a whole, which is quicker than operation by operation."""
    return lambda module, params, context, **options: jax.jit(
        lambda p, c: module.apply({'params': p}, c, **options))(params, context)


@pytest.fixture(scope='session')
def golden_case():
    """name -> (inputs, params, expected) of a golden relation case."""
    file = np.load(GOLDEN)

    def case(name):
        part = lambda kind: {k.split('/')[2]: file[k] for k in file.files if k.startswith(f'{name}/{kind}/')}
        return part('input'), part('param'), file[f'{name}/expected']
    return case


@pytest.fixture(scope='session')
def golden_context():
    """Golden inputs -> a context; what a case leaves out is filled with ones of the right shape, all rows valid."""
    def build(inputs):
        batch = len(next(inputs[k] for k in ('boxes', 'class_logits', 'roi_features') if k in inputs))
        shapes = dict(roi_features=(batch, 40, 24), boxes=(batch, 40, 4), class_logits=(batch, 40, 9),
                      class_weights=(9, 24), class_bias=(9,), image_map=(batch, 13, 17, 16), part_boxes=(batch, 5, 4),
                      part_features=(batch, 5, 24), adjacency=(9, 9))
        fields = {k: inputs.get(k, np.ones(shape, np.float32)) for k, shape in shapes.items()}
        fields['image_size'] = inputs.get('image_size', np.full((batch, 2), 1024, np.float32))
        fields['roi_valid'] = np.ones(fields['boxes'].shape[:2], bool)
        fields['part_valid'] = np.ones(fields['part_boxes'].shape[:2], bool)
        return RelationContext(**{k: jnp.asarray(v) for k, v in fields.items()})
    return build


@pytest.fixture(scope='session')
def assert_close():
    """Largest difference relative to the largest expected magnitude."""
    def check(got, expected, tolerance=1e-4):
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        assert got.shape == expected.shape, f'expected shape {expected.shape}, got {got.shape}'
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert error <= tolerance, f'relative error {error:.2e} > {tolerance:.0e}'
    return check


@pytest.fixture(scope='session')
def attention_params():
    """Golden parameters of an attention case -> those of GeometricAttention; a key bias has no effect and no place."""
    def convert(p):
        heads = (16, 64)
        return dict(
            query=dict(kernel=p['q_w'].reshape(-1, *heads), bias=p['q_b'].reshape(heads)),
            key=dict(kernel=p['k_w'].reshape(-1, *heads)),
            geometry=dict(kernel=p['geo_w'], bias=p['geo_b']),
            output=dict(kernel=p['out_w'].transpose(1, 0, 2)), output_bias=p['out_b'].reshape(heads))
    return convert
