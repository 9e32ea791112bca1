"""A small module with the contract of MaskRCNN (`losses`, `detect`), so that tests compile in a second."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax import config as config_lib
from relnet_jax.types import Batch, Detections

DETECT_TRACES = []


class FrozenNorm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return (x * self.param('scale', nn.initializers.ones, (x.shape[-1],))
                + self.param('bias', nn.initializers.zeros, (x.shape[-1],)))


class Body(nn.Module):
    def setup(self):
        self.conv1 = nn.Dense(8, use_bias=False)
        self.bn1 = FrozenNorm()
        self.layer1_0 = nn.Dense(8)
        self.layer2_0 = nn.Dense(8)

    def __call__(self, x):
        return self.layer2_0(nn.tanh(self.layer1_0(nn.tanh(self.bn1(self.conv1(x))))))


class Standin(nn.Module):
    num_classes: int
    relation: bool = False

    def setup(self):
        self.backbone = Body()
        self.rpn = nn.Dense(2)
        self.head = nn.Dense(self.num_classes)
        if self.relation:
            self.relation_head = nn.Dense(self.num_classes)

    def logits(self, image):
        means = jnp.mean(image.astype(jnp.float32) / 255, axis=1)[:, :8].reshape(len(image), -1)
        features = nn.tanh(self.backbone(means))
        logits = self.head(features)
        if self.relation:
            logits += self.relation_head(features)
        return logits, self.rpn(features)

    def losses(self, batch: Batch, keys):
        """Every term has another count per image, some images have none, and every image draws from its key."""
        logits, objectness = self.logits(batch.image)
        noise = jax.vmap(lambda key: jax.random.normal(key, (self.num_classes,)))(keys)
        log_p = jax.nn.log_softmax(logits + noise)
        valid = batch.gt_valid.astype(jnp.float32)
        masked = valid * batch.gt_has_mask
        picked = jnp.take_along_axis(log_p, batch.gt_labels, axis=-1)
        right = (jnp.argmax(log_p, -1)[:, None] == batch.gt_labels) * valid
        losses = dict(loss_cls=(-jnp.sum(picked * valid), jnp.sum(valid)),
                      loss_mask=(jnp.sum(masked * jnp.square(logits[:, :1])), jnp.sum(masked)),
                      rpn_cls_p2=(jnp.sum(jnp.square(objectness[:, 0] - 1)), jnp.float32(len(logits))),
                      rpn_cls_p3=(jnp.sum(jnp.square(objectness[:, 1])), jnp.float32(len(logits))))
        return losses, dict(accuracy_cls=(jnp.sum(right), jnp.sum(valid)))

    def detect(self, image, image_size, part_boxes, part_valid):
        DETECT_TRACES.append(image.shape)
        scores = jax.nn.softmax(self.logits(image)[0])[:, 1:3]
        half = image_size[:, None, ::-1] / 2
        boxes = jnp.concatenate([jnp.zeros_like(half), half], -1)
        b = len(image)
        return Detections(jnp.repeat(boxes, 2, axis=1), scores, jnp.tile(jnp.array([1, 2], jnp.int32), (b, 1)),
                          jnp.ones((b, 2), bool), jnp.zeros((b, 2, 0, 0)))


BUILT = []      # the configs that a loop built a model for


def build(config, num_classes, adjacency=None):
    """In place of mask_rcnn.build."""
    BUILT.append(config)
    return Standin(num_classes=num_classes, relation=bool(config.model.relations))


def small_config():
    c = config_lib.load('configs/base.py')
    c.data.canvas = (64, 64)
    c.data.scale = c.data.max_size = 64
    c.data.max_objects, c.data.mask_size = 4, 8
    c.model.frozen_stages = 0
    c.train.batch_size = c.train.base_batch_size = 4
    c.train.learning_rate, c.train.warmup_steps, c.train.steps = 0.1, 2, 6
    return c


def make_batch(size: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    g, m = 4, 8
    valid = np.arange(g) < rng.integers(0, g + 1, (size, 1))
    valid[0] = False
    return Batch(image=rng.integers(0, 256, (size, 64, 64, 3), np.uint8),
                 image_size=np.full((size, 2), 64, np.float32), image_valid=np.ones(size, bool),
                 image_index=np.arange(size, dtype=np.int32), original_size=np.full((size, 2), 64, np.float32),
                 gt_boxes=np.zeros((size, g, 4), np.float32), gt_labels=rng.integers(1, 4, (size, g), np.int32),
                 gt_valid=valid, gt_crowd=np.zeros((size, g), bool), gt_masks=np.zeros((size, g, m, m), np.uint8),
                 gt_has_mask=rng.random((size, g)) < 0.5, part_boxes=np.zeros((size, 0, 4), np.float32),
                 part_valid=np.zeros((size, 0), bool))
