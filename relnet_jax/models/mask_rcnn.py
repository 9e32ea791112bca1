"""Mask R-CNN with FPN: the one place that knows all rooms of the model.

Reads top to bottom: settings; `MaskRCNN`: features, proposals, box and mask branch, `losses`, `detect`; `build`.
"""
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from relnet_jax.models.box_head import BoxHead, BoxPredictor, box_losses, sample_rois, select_detections
from relnet_jax.models.fpn import FPN
from relnet_jax.models.layers import extent, repeat_edge, valid_map
from relnet_jax.models.mask_head import MaskHead, MaskPredictor, mask_losses, mask_rois
from relnet_jax.models.resnet import ResNet
from relnet_jax.models.rpn import Anchors, RPNHead, make_anchors, rpn_losses, select_proposals
from relnet_jax.ops.roi_align import assign_levels, roi_align
from relnet_jax.types import Batch, Detections, Proposals

STRIDES = (4, 8, 16, 32, 64)    # P2..P6
ROI_LEVELS = 4                  # RoIs look at P2..P5
BOX_POOL, MASK_POOL = 7, 14


class TrainSettings(NamedTuple):
    """Counts per image; meaning as the keys of config.train."""
    pre_nms: int
    proposals: int
    rpn_samples: int
    rpn_positive: float
    rois: int
    roi_positive: float


class TestSettings(NamedTuple):
    """As the keys of config.test."""
    pre_nms: int
    boxes: int
    score_threshold: float
    nms: float
    detections: int


class MaskRCNN(nn.Module):
    """Detector for uint8 images [B, H, W, 3] on a canvas of multiples of 64; fields as the keys of config.model.

    mask_padding True: nothing outside the true image takes part, so that a result does not depend on the canvas. False:
    the network computes on the padding as torchvision does on its own (to a multiple of 32), for comparisons with it.
    """
    num_classes: int            # K, with background
    backbone: str
    norm: str
    stride_in_1x1: bool
    frozen_stages: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    dtype: jnp.dtype
    fpn_channels: int
    anchor_sizes: tuple
    anchor_ratios: tuple[float, ...]
    box_head_dim: int
    box_dropout: float
    with_masks: bool
    mask_channels: int
    mask_convs: int
    roi_aligned: bool
    rpn_beta: float
    box_beta: float
    background_weight: float
    train: TrainSettings
    test: TestSettings
    mask_padding: bool = True

    def setup(self):
        self.body = ResNet(self.backbone, norm=self.norm, stride_in_1x1=self.stride_in_1x1, dtype=self.dtype,
                           frozen_stages=self.frozen_stages, name='backbone')
        self.fpn = FPN(self.fpn_channels, norm=self.norm, dtype=self.dtype)
        sizes = [len(size) if isinstance(size, tuple) else 1 for size in self.anchor_sizes]
        if len(sizes) != len(STRIDES) or len(set(sizes)) != 1:
            raise ValueError(f'model.anchor_sizes: expected {len(STRIDES)} entries alike, one per level, '
                             f'got {self.anchor_sizes}')
        self.rpn = RPNHead(sizes[0] * len(self.anchor_ratios), self.fpn_channels, dtype=self.dtype)
        self.box_head = BoxHead(self.box_head_dim, dropout=self.box_dropout, dtype=self.dtype)
        self.box_predictor = BoxPredictor(self.num_classes, dtype=self.dtype)
        if self.with_masks:
            self.mask_head = MaskHead(self.mask_channels, self.mask_convs, norm=self.norm, dtype=self.dtype)
            self.mask_predictor = MaskPredictor(self.num_classes, self.mask_channels, dtype=self.dtype)

    def __call__(self, image: jax.Array, image_size: jax.Array) -> Detections:
        return self.detect(image, image_size)

    # ---- pieces ----
    def features(self, image: jax.Array, image_size: jax.Array) -> tuple[list[jax.Array], dict]:
        """uint8 [B, H, W, 3] -> ([P2..P6], valid maps per stride; None where padding is not masked)."""
        height, width = image.shape[1:3]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise ValueError(f'canvas: expected multiples of {STRIDES[-1]}, got {height} x {width}')
        x = (image.astype(jnp.float32) - jnp.asarray(self.pixel_mean)) / jnp.asarray(self.pixel_std)
        x = jnp.where(valid_map(image_size, 1, (height, width)), x, 0).astype(self.dtype)
        valid = dict.fromkeys((1, 2, *STRIDES))
        if self.mask_padding:
            valid = {stride: valid_map(image_size, stride, (height // stride, width // stride)) for stride in valid}
        return self.fpn(self.body(x, valid), valid), valid

    def propose(self, pyramid: list[jax.Array], valid: dict, image_size: jax.Array, *, pre_nms: int,
                post_nms: int) -> tuple[Proposals, list[jax.Array], list[jax.Array], Anchors]:
        """(proposals, RPN logits, RPN deltas, anchors), the last three per level."""
        logits, deltas = self.rpn(pyramid, [valid[stride] for stride in STRIDES])
        canvas = tuple(STRIDES[0] * side for side in pyramid[0].shape[1:3])
        anchors = make_anchors(image_size, canvas, strides=STRIDES, sizes=self.anchor_sizes, ratios=self.anchor_ratios,
                               mask_padding=self.mask_padding)
        proposals = select_proposals(logits, deltas, anchors, image_size, pre_nms=pre_nms, post_nms=post_nms)
        return proposals, logits, deltas, anchors

    def roi_maps(self, pyramid: list[jax.Array], image_size: jax.Array) -> list[jax.Array]:
        """P2..P5 as RoIAlign wants them: the image's edge clamps, wherever the canvas ends."""
        maps = pyramid[:ROI_LEVELS]
        if not self.mask_padding:
            return maps
        return [repeat_edge(features, extent(image_size, stride)) for features, stride in zip(maps, STRIDES)]

    def pool(self, maps: list[jax.Array], boxes: jax.Array, size: int) -> jax.Array:
        """Boxes [B, N, 4] -> RoI features [B, N, size, size, C], each from the level its size asks for."""
        return roi_align(maps, boxes, assign_levels(boxes) - 2, strides=STRIDES[:ROI_LEVELS], output_size=size,
                         aligned=self.roi_aligned)

    def box_branch(self, maps: list[jax.Array], boxes: jax.Array, keys: jax.Array | None = None):
        """Boxes [B, N, 4] -> class logits [B, N, K] and deltas [B, N, K, 4]."""
        return self.box_predictor(self.box_head(self.pool(maps, boxes, BOX_POOL), keys))

    def mask_branch(self, maps: list[jax.Array], boxes: jax.Array, labels: jax.Array, used: jax.Array) -> jax.Array:
        """Boxes [B, N, 4] with classes [B, N] -> mask logits [B, N, 28, 28] of those classes where `used` bool [B, N].

        Used rows come first. On CPU the branch runs on the smallest of a few static counts that holds them all, as a
        film has few objects, and this branch is half of all arithmetic at 100 of them. Other rows then get zeros.
        """
        b, n = labels.shape

        def first(count: int):
            def run(model: MaskRCNN, maps, boxes, labels):
                pooled = model.pool(maps, boxes[:, :count], MASK_POOL).reshape(b * count, MASK_POOL, MASK_POOL, -1)
                logits = model.mask_predictor(model.mask_head(pooled), labels[:, :count].reshape(-1))
                return jnp.pad(logits.reshape(b, count, *logits.shape[1:]), ((0, 0), (0, n - count), (0, 0), (0, 0)))
            return run

        if jax.default_backend() != 'cpu' or self.is_initializing():
            return first(n)(self, maps, boxes, labels)
        counts = sorted({-(-n // 8), -(-n // 2), n})
        choice = jnp.searchsorted(jnp.asarray(counts), used.sum(1).max())
        return nn.switch(choice, [first(count) for count in counts], self, maps, boxes, labels)

    # ---- training ----
    def losses(self, batch: Batch, keys: jax.Array) -> tuple[dict, dict]:
        """(losses, metrics), each a dict name -> (local sum, local count), float32 scalars; `keys`: PRNG keys [B].

        A loss is psum(sum) / max(psum(count), 1), the whole loss their sum. Losses: loss_cls, loss_bbox, loss_mask (if
        with_masks), rpn_cls_p2..p6, rpn_bbox_p2..p6. Metrics: accuracy_cls (share of sampled RoIs classified right),
        and per image num_positive and num_rois (of the box head) and num_positive_anchors.
        """
        rpn_keys, roi_keys, dropout_keys = (jax.vmap(jax.random.fold_in, (0, None))(keys, tag) for tag in range(3))
        t = self.train
        pyramid, valid = self.features(batch.image, batch.image_size)
        proposals, rpn_logits, rpn_deltas, anchors = self.propose(pyramid, valid, batch.image_size, pre_nms=t.pre_nms,
                                                                  post_nms=t.proposals)
        terms, metrics = rpn_losses(rpn_logits, rpn_deltas, anchors, batch, rpn_keys, samples=t.rpn_samples,
                                    max_positive=int(t.rpn_samples * t.rpn_positive), beta=self.rpn_beta)

        max_positive = int(t.rois * t.roi_positive)
        sample = sample_rois(proposals, batch, roi_keys, num=t.rois, max_positive=max_positive)
        maps = self.roi_maps(pyramid, batch.image_size)
        logits, deltas = self.box_branch(maps, sample.boxes, dropout_keys)
        box_terms, box_metrics = box_losses(logits, deltas, sample, batch, beta=self.box_beta,
                                            background_weight=self.background_weight)
        terms, metrics = terms | box_terms, metrics | box_metrics

        if self.with_masks:
            mask_sample, teaches = mask_rois(sample, batch, num=max_positive)
            mask_logits = self.mask_branch(maps, mask_sample.boxes, mask_sample.labels, mask_sample.positive)
            terms |= mask_losses(mask_logits, mask_sample, teaches, batch, aligned=self.roi_aligned)
        return terms, metrics

    # ---- inference ----
    def detect(self, image: jax.Array, image_size: jax.Array) -> Detections:
        """uint8 [B, H, W, 3], float32 [B, 2] -> final detections in canvas pixels, masks as probabilities."""
        t = self.test
        pyramid, valid = self.features(image, image_size)
        proposals, *_ = self.propose(pyramid, valid, image_size, pre_nms=t.pre_nms, post_nms=t.boxes)
        maps = self.roi_maps(pyramid, image_size)
        logits, deltas = self.box_branch(maps, proposals.boxes)
        detections = select_detections(logits, deltas, proposals, image_size, score_threshold=t.score_threshold,
                                       nms_iou=t.nms, num=t.detections)
        if not self.with_masks:
            return detections
        logits = self.mask_branch(maps, detections.boxes, detections.labels, detections.valid)
        return detections._replace(masks=nn.sigmoid(logits))


def build(config: ConfigDict, num_classes: int) -> MaskRCNN:
    """The detector a config describes; `num_classes` counts the background."""
    m, t, e = config.model, config.train, config.test
    return MaskRCNN(
        num_classes=num_classes, backbone=m.backbone, norm=m.norm, stride_in_1x1=m.stride_in_1x1,
        frozen_stages=m.frozen_stages, pixel_mean=tuple(m.pixel_mean), pixel_std=tuple(m.pixel_std),
        dtype=jnp.dtype(m.dtype), fpn_channels=m.fpn_channels, anchor_sizes=tuple(m.anchor_sizes),
        anchor_ratios=tuple(m.anchor_ratios), box_head_dim=m.box_head_dim, box_dropout=m.box_dropout,
        with_masks=m.mask_head, mask_channels=m.mask_channels, mask_convs=m.mask_convs, roi_aligned=m.roi_aligned,
        rpn_beta=m.rpn_beta, box_beta=m.box_beta, background_weight=m.background_weight,
        train=TrainSettings(t.pre_nms, t.proposals, t.rpn_samples, t.rpn_positive, t.rois, t.roi_positive),
        test=TestSettings(e.pre_nms, e.boxes, e.score_threshold, e.nms, e.detections))
