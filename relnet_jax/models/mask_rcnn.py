"""Mask R-CNN: the one place that knows all rooms of the model.

Reads top to bottom: features, proposals, parts; then `losses` and `detect`, whose second halves are those of
`roi_heads.RoIHeads`; `build`. Without relations, cascade, anatomy head and with the FPN it is the plain detector.
"""
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from relnet_jax.errors import UserError
from relnet_jax.models import backbones
from relnet_jax.models.anatomy_head import AnatomyHead, anatomy_losses, choose_parts
from relnet_jax.models.backbones import BackboneSettings
from relnet_jax.models.fpn import FPN
from relnet_jax.models.layers import valid_map, zero_padding
from relnet_jax.models.relations import chosen
from relnet_jax.models.roi_heads import CONTEXT_LEVEL, CONTEXT_STRIDE, RoIHeads, RoIMaps
from relnet_jax.models.rpn import Anchors, RPNHead, at_index, make_anchors, rpn_losses, select_proposals
from relnet_jax.models.settings import (
    HeadSettings,
    ImageSettings,
    RelationSettings,
    RPNSettings,
    TestSettings,
    TrainSettings,
    validate,
)
from relnet_jax.ops.anchors import NECK_STRIDES
from relnet_jax.ops.sampling import fold
from relnet_jax.types import Array, Batch, Detections, Parts, Proposals

ROI_LEVELS = 4          # RoIs look at P2..P5
RPN_SAMPLING = 0        # what an image's key is folded with; roi_heads has the others


class MaskRCNN(nn.Module):
    """Detector for uint8 images [B, H, W, 3]; meanings of the fields as in configs/base.py.

    The canvas H x W is a multiple of 64 with FPN, of 16 with C4.
    """
    num_classes: int            # K, with background
    backbone: BackboneSettings
    image: ImageSettings
    rpn: RPNSettings
    heads: HeadSettings
    train: TrainSettings
    test: TestSettings
    dtype: jnp.dtype
    neck: str = 'fpn'
    fpn_channels: int = 256
    relation: RelationSettings = RelationSettings()
    anatomy: bool = False
    adjacency: tuple[tuple[float, ...], ...] | None = None     # class graph [K, K], a constant of the model

    def setup(self):
        validate(self)
        body, norm = backbones.find(self.backbone.name), self.backbone.norm
        self.body = body.make(self.backbone, self.dtype)
        if self.neck == 'fpn':
            self.fpn = FPN(self.fpn_channels, norm=norm, dtype=self.dtype)
        per_level = np.size(self.rpn.anchor_sizes[0]) * len(self.rpn.anchor_ratios)
        self.rpn_head = RPNHead(per_level, self.fpn_channels if self.neck == 'fpn' else body.channels[2],
                                dtype=self.dtype, name='rpn')
        self.roi_heads = RoIHeads(self.num_classes, self.neck, norm, self.heads, self.relation, self.adjacency,
                                  self.body, self.dtype)
        nn.share_scope(self, self.roi_heads)
        if self.anatomy:
            self.anatomy_head = AnatomyHead(CONTEXT_STRIDE, dtype=self.dtype)

    def __call__(self, image: Array, image_size: Array, part_boxes: Array | None = None,
                 part_valid: Array | None = None) -> Detections:
        return self.detect(image, image_size, part_boxes, part_valid)

    # ---- maps, proposals, parts ----
    def features(self, image: Array, image_size: Array) -> tuple[list[Array], dict]:
        """uint8 [B, H, W, 3] -> ([P2..P6] or [C4], valid maps per stride; None where padding is not masked)."""
        height, width = image.shape[1:3]
        coarsest = NECK_STRIDES[self.neck][-1]
        if height % coarsest or width % coarsest:
            raise ValueError(f'canvas: expected multiples of {coarsest}, got {height} x {width}')
        x = (image.astype(jnp.float32) - jnp.asarray(self.image.pixel_mean)) / jnp.asarray(self.image.pixel_std)
        x = jnp.where(valid_map(image_size, 1, (height, width)), x, 0).astype(self.dtype)
        valid = dict.fromkeys(stride for stride in (1, 2, *NECK_STRIDES['fpn']) if stride <= coarsest)
        if self.image.mask_padding:
            valid = {stride: valid_map(image_size, stride, (height // stride, width // stride)) for stride in valid}
        maps = self.body(x, valid)
        return (self.fpn(maps, valid) if self.neck == 'fpn' else [zero_padding(maps[-1], valid[coarsest])]), valid

    def propose(self, pyramid: list[Array], valid: dict, image_size: Array, *, pre_nms: int,
                post_nms: int) -> tuple[Proposals, list[Array], list[Array], Anchors]:
        """(proposals, RPN logits, RPN deltas, anchors), the last three per level."""
        strides = NECK_STRIDES[self.neck]
        logits, deltas = self.rpn_head(pyramid, [valid[stride] for stride in strides])
        canvas = tuple(strides[0] * side for side in pyramid[0].shape[1:3])
        anchors = make_anchors(image_size, canvas, strides=strides, sizes=self.rpn.anchor_sizes,
                               ratios=self.rpn.anchor_ratios, mask_padding=self.image.mask_padding)
        proposals = select_proposals(logits, deltas, anchors, image_size, pre_nms=pre_nms, post_nms=post_nms)
        return proposals, logits, deltas, anchors

    def rpn_at(self, pyramid: list[Array], valid: dict, logits: list[Array], deltas: list[Array]) -> Callable:
        """What the RPN's losses ask for its outputs at sampled anchors: computed there alone where these are few."""
        if self.train.rpn_samples < sum(level.shape[1] * level.shape[2] for level in pyramid):
            return partial(self.rpn_head.at_anchors, pyramid, [valid[stride] for stride in NECK_STRIDES[self.neck]])
        return partial(at_index, logits, deltas)

    def roi_maps(self, pyramid: list[Array], image_size: Array) -> RoIMaps:
        return RoIMaps(pyramid[:ROI_LEVELS], image_size if self.image.mask_padding else None)

    def find_parts(self, pyramid: list[Array], image_size: Array, parts: int) -> tuple[Array, Array]:
        """Boxes [B, P, 4] and presence logits [B, P] of the anatomy head. Raises ValueError without parts to find."""
        if not parts:
            raise UserError('config.model.anatomy_head: expected data.parts to name the parts to find, got none')
        return self.anatomy_head(pyramid[CONTEXT_LEVEL[self.neck]], image_size, parts)

    def parts(self, image: Array, image_size: Array, parts: int) -> tuple[Array, Array]:
        """The anatomy alone: uint8 images -> part boxes [B, P, 4] in canvas pixels and their probabilities [B, P]."""
        boxes, presence = self.find_parts(self.features(image, image_size)[0], image_size, parts)
        return boxes, nn.sigmoid(presence)

    def related_parts(self, pyramid: list[Array], image_size: Array, part_boxes: Array | None,
                      part_valid: Array | None) -> tuple[Parts, tuple[Array, Array] | None]:
        """(the parts that the relations see, boxes [B, P, 4] and presence logits [B, P] of the anatomy head or None).

        Raises ValueError where the model works with parts and is given no arrays of them.
        """
        if part_boxes is None or part_valid is None:
            if self.anatomy or 'parts' in self.relation.needs:
                raise ValueError('this model works with anatomical parts: expected part_boxes [B, P, 4] and part_valid '
                                 '[B, P] (False where unknown), got none')
            return Parts(jnp.zeros((len(image_size), 0, 4)), jnp.zeros((len(image_size), 0), bool)), None
        predicted = self.find_parts(pyramid, image_size, part_boxes.shape[1]) if self.anatomy else None
        return choose_parts(self.relation.parts, Parts(part_boxes, part_valid), predicted), predicted

    # ---- training ----
    def losses(self, batch: Batch, keys: Array) -> tuple[dict, dict]:
        """(losses, metrics), each a dict name -> (local sum, local count), float32 scalars; `keys`: PRNG keys [B].

        A loss is psum(sum) / max(psum(count), 1), the whole loss their sum. Losses: loss_cls, loss_bbox, loss_mask (if
        there is a mask head), rpn_cls_p2..p6, rpn_bbox_p2..p6 (C4: rpn_cls, rpn_bbox); of earlier stages
        loss_cls_stage1, ...; of a first pass loss_cls_first and loss_bbox_first (see `relation_head.joint_terms`); of
        the anatomy head loss_part_box and loss_part_presence. Metrics: accuracy_cls (share of sampled RoIs classified
        right; also _stage1, ... and _first), and per image num_positive and num_rois (of the last box head) and
        num_positive_anchors; part_iou.
        """
        t, size = self.train, batch.image_size
        pyramid, valid = self.features(batch.image, size)
        proposals, rpn_logits, rpn_deltas, anchors = self.propose(pyramid, valid, size, pre_nms=t.pre_nms,
                                                                  post_nms=t.proposals)
        terms, metrics = rpn_losses(self.rpn_at(pyramid, valid, rpn_logits, rpn_deltas), anchors, batch,
                                    fold(keys, RPN_SAMPLING), samples=t.rpn_samples,
                                    max_positive=int(t.rpn_samples * t.rpn_positive), beta=self.rpn.beta)
        parts, predicted = self.related_parts(pyramid, size, batch.part_boxes, batch.part_valid)
        if predicted is not None:
            part_terms, part_metrics = anatomy_losses(*predicted, batch)
            terms, metrics = terms | part_terms, metrics | part_metrics
        roi_terms, roi_metrics = self.roi_heads.losses(self.roi_maps(pyramid, size), proposals, parts, batch, keys, t)
        return terms | roi_terms, metrics | roi_metrics

    # ---- inference ----
    def detect(self, image: Array, image_size: Array, part_boxes: Array | None = None,
               part_valid: Array | None = None) -> Detections:
        """uint8 [B, H, W, 3], float32 [B, 2] -> final detections in canvas pixels, masks as probabilities.

        part_boxes [B, P, 4], part_valid [B, P]: known parts, all False where none is; needed by a model that works with
        parts. Sown under 'intermediates': the relations' weights, and 'part_boxes' and 'part_valid' as they saw them.
        """
        t = self.test
        pyramid, valid = self.features(image, image_size)
        proposals, *_ = self.propose(pyramid, valid, image_size, pre_nms=t.pre_nms, post_nms=t.boxes)
        parts, predicted = self.related_parts(pyramid, image_size, part_boxes, part_valid)
        if self.roi_heads.second_pass or predicted is not None:
            self.sow('intermediates', 'part_boxes', parts.boxes)
            self.sow('intermediates', 'part_valid', parts.valid)
        return self.roi_heads.detect(self.roi_maps(pyramid, image_size), proposals, parts, image_size, t)


def build(config: ConfigDict, num_classes: int, adjacency=None) -> MaskRCNN:
    """The detector a config describes; `num_classes` counts the background.

    adjacency: class graph [K, K] (anything that numpy reads) for the relations that use one; None = there is none.
    Raises ValueError for another shape, and for config.model keys that are unknown or do not go together (the
    latter when the model is first used).
    """
    m, t, e = config.model, config.train, config.test
    if adjacency is not None:
        adjacency = np.asarray(adjacency, np.float32)
        if adjacency.shape != (num_classes, num_classes):
            raise ValueError(f'adjacency: expected [{num_classes}, {num_classes}], got {list(adjacency.shape)}')
        adjacency = tuple(map(tuple, adjacency.tolist()))
    return MaskRCNN(
        num_classes=num_classes, dtype=jnp.dtype(m.dtype), neck=m.neck, fpn_channels=m.fpn_channels,
        anatomy=m.anatomy_head, adjacency=adjacency,
        backbone=BackboneSettings(
            name=m.backbone, norm=m.norm, stride_in_1x1=m.stride_in_1x1, frozen_stages=m.frozen_stages,
            deformable=m.deformable, stages=3 if m.neck == 'c4' else 4, remat=m.remat),
        image=ImageSettings(pixel_mean=tuple(m.pixel_mean), pixel_std=tuple(m.pixel_std)),
        rpn=RPNSettings(
            anchor_sizes=tuple(tuple(size) if isinstance(size, (tuple, list)) else size for size in m.anchor_sizes),
            anchor_ratios=tuple(m.anchor_ratios), beta=m.rpn_beta),
        heads=HeadSettings(
            box_dim=m.box_head_dim, box_dropout=m.box_dropout, box_beta=m.box_beta,
            background_weight=m.background_weight, class_weights=tuple(m.class_weights), focal_gamma=m.focal_gamma,
            masks=m.mask_head, mask_channels=m.mask_channels, mask_convs=m.mask_convs, roi_aligned=m.roi_aligned,
            cascade=tuple(m.cascade), cascade_weights=tuple(m.cascade_weights), mask_pool=m.mask_pool),
        relation=RelationSettings(
            chosen=chosen(m), fusion=m.fusion, fusion_order=tuple(m.fusion_order), loss=m.relation_loss,
            boxes_from=m.boxes_from, scores_from=m.scores_from, gt_boxes=m.relation_gt_boxes,
            stop_gradient=m.relation_stop_gradient, detached=m.relation_detached, parts=m.parts),
        train=TrainSettings(
            pre_nms=t.pre_nms, proposals=t.proposals, rpn_samples=t.rpn_samples, rpn_positive=t.rpn_positive,
            rois=t.rois, roi_positive=t.roi_positive),
        test=TestSettings(
            pre_nms=e.pre_nms, boxes=e.boxes, score_threshold=e.score_threshold, nms=e.nms,
            detections=e.detections))
