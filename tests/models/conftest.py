"""A detector small enough to compile in seconds, and batches for it."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relnet_jax.config import load
from relnet_jax.models.mask_rcnn import build
from relnet_jax.runs.state import init_params
from relnet_jax.types import Batch

CLASSES = 4


def make_config(**model):
    """configs/base.py with the smallest parts; every candidate is sampled, so that nothing is random."""
    config = load('configs/base.py')
    with config.unlocked():
        config.model.update(dict(backbone='tiny', norm='group_norm', frozen_stages=0, fpn_channels=16, box_head_dim=32,
                                 mask_channels=16, mask_convs=2) | model)
        config.train.update(dict(pre_nms=40, proposals=60, rpn_samples=10_000, rois=68, roi_positive=0.25))
        config.test.update(dict(pre_nms=40, boxes=60, score_threshold=0.02, detections=12))
    return config


def make_batch(seed=0, *, canvas=(128, 128), size=(128, 128), objects=4):
    """Two images of `size` = (height, width) with three objects each, in `objects` rows; noise all over."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    image = np.random.default_rng(9).integers(0, 256, (2, *canvas, 3), dtype=np.uint8)
    image[:, :size[0], :size[1]] = pixels
    corner, side = rng.uniform(0, 50, (2, 3, 2)), rng.uniform(20, 45, (2, 3, 2))
    boxes, labels = np.full((2, objects, 4), 7.0, np.float32), np.zeros((2, objects), np.int32)
    boxes[:, :3], labels[:, :3] = np.concatenate([corner, corner + side], -1), rng.integers(1, CLASSES, (2, 3))
    masks = np.zeros((2, objects, 28, 28), np.uint8)
    masks[:, :3, 4:24, 4:24] = 255
    valid = np.broadcast_to(np.arange(objects) < 3, (2, objects))
    sizes = np.broadcast_to(np.array(size, np.float32), (2, 2))
    return jax.tree.map(jnp.asarray, Batch(
        image=image, image_size=sizes, image_valid=np.ones(2, bool), image_index=np.arange(2, dtype=np.int32),
        original_size=sizes, gt_boxes=boxes, gt_labels=labels, gt_valid=valid, gt_crowd=np.zeros_like(valid),
        gt_masks=masks, gt_has_mask=valid, part_boxes=np.zeros((2, 0, 4), np.float32),
        part_valid=np.zeros((2, 0), bool)))


class Detector:
    """A model with its parameters; jitted `losses` (means, metrics, gradient) and `detect`.

    What they return is NumPy's: looked at as JAX's, every operation on it would be compiled for every shape.
    """

    def __init__(self, config):
        self.model = build(config, CLASSES)
        batch = make_batch()
        self.params = jax.jit(self.model.init)(jax.random.key(0), batch.image, batch.image_size)['params']
        self.keys = jax.random.split(jax.random.key(1), 2)
        self._losses = jax.jit(self._total)
        self._gradient = jax.jit(jax.grad(self._total, has_aux=True))
        self.detect_from = jax.jit(lambda params, image, size: self.model.apply({'params': params}, image, size))

    def _total(self, params, batch, keys):
        terms, metrics = self.model.apply({'params': params}, batch, keys, method='losses')
        return sum(total / jnp.maximum(count, 1) for total, count in terms.values()), (terms, metrics)

    def losses(self, batch, keys=None):
        """(losses, metrics), name -> (sum, count) as floats."""
        _, parts = self._losses(self.params, batch, self.keys if keys is None else keys)
        return tuple({name: (float(total), float(count)) for name, (total, count) in part.items()} for part in parts)

    def gradient(self, batch):
        return jax.device_get(self._gradient(self.params, batch, self.keys)[0])

    def detect(self, batch):
        return jax.device_get(self.detect_from(self.params, batch.image, batch.image_size))


@pytest.fixture(scope='session')
def tiny():
    return Detector(make_config())


@pytest.fixture(scope='session')
def tiny_model():
    """(config changes of the model) -> Detector; not compiled until used."""
    return lambda **model: Detector(make_config(**model))


@pytest.fixture(scope='session')
def tiny_batch():
    return make_batch


PARTS = 5


class RelationalDetector(Detector):
    """The same with relations, cascade, C4 or an anatomy head, and with known parts."""

    def __init__(self, options, **model):
        config = make_config(**dict(mask_head=False) | model)
        with config.unlocked():
            config.model.relation.context.features = 0
            for name, fields in options.items():
                config.model.relation[name].update(fields)
        graph = np.random.default_rng(4).uniform(0.1, 1, (CLASSES, CLASSES))
        self.model = build(config, CLASSES, adjacency=graph + graph.T)
        self.batch = self.with_parts(make_batch())
        self.keys = jax.random.split(jax.random.key(1), 2)
        self.params = self._draw(jax.eval_shape(lambda key: init_params(self.model, self.batch, key),
                                                jax.random.key(0)))
        self._gradient = jax.jit(jax.grad(self._total, has_aux=True))
        self._losses = self._gradient       # one compilation for both
        self.detect_from = jax.jit(lambda params, batch: self.model.apply(
            {'params': params}, batch.image, batch.image_size, batch.part_boxes, batch.part_valid))

    @staticmethod
    def _draw(shapes):
        """Parameters by numpy, which needs no compilation, and off the zeros at which some of them start."""
        rng = np.random.default_rng(2)

        def one(path, leaf):
            normal = rng.normal(size=leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
            offset = path[-1].key in ('scale', 'window', 'precision_rho', 'precision_theta')
            return jnp.asarray(offset + normal * (0.2 if leaf.ndim < 2 else 1.0), jnp.float32)
        return jax.tree_util.tree_map_with_path(one, shapes)

    @staticmethod
    def with_parts(batch, seed=5):
        corner, side = np.random.default_rng(seed).uniform(5, 50, (2, 2, PARTS, 2))
        boxes = jnp.asarray(np.concatenate([corner, corner + side], -1), jnp.float32)
        valid = jnp.ones((2, PARTS), bool).at[1, 4].set(False)
        return batch._replace(part_boxes=boxes, part_valid=valid)

    def detect(self, batch):
        return jax.device_get(self.detect_from(self.params, batch))


@pytest.fixture(scope='session')
def relational():
    """(options of relations, config changes of the model) -> RelationalDetector, one for each."""
    made = {}

    def make(options=None, **model):
        key = repr((options, model))
        if key not in made:
            made[key] = RelationalDetector(options or {}, **model)
        return made[key]
    return make
