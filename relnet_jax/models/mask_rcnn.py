"""Mask R-CNN: the one place that knows all rooms of the model.

Reads top to bottom: `MaskRCNN`: features, proposals, RoI features, box and mask branch, parts and relations,
`losses`, `detect`; `build`. Without relations, cascade, anatomy head and with the FPN it is the plain detector.
"""
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from relnet_jax.models import relation_head as relate
from relnet_jax.models.anatomy_head import AnatomyHead, anatomy_losses, choose_parts
from relnet_jax.models.backbones.resnet import ResNet, stage_channels
from relnet_jax.models.box_head import (
    FOREGROUND_IOU,
    BoxHead,
    BoxPredictor,
    RoISample,
    box_losses,
    sample_rois,
    select_detections,
)
from relnet_jax.models.cascade import mean_scores, refine
from relnet_jax.models.fpn import FPN
from relnet_jax.models.layers import valid_map, zero_padding
from relnet_jax.models.mask_head import MaskHead, MaskPredictor, mask_losses, mask_rois, on_used_rows
from relnet_jax.models.relations import RELATIONS, PartWindow, RelationContext
from relnet_jax.models.rpn import Anchors, RPNHead, at_index, make_anchors, rpn_losses, select_proposals
from relnet_jax.models.settings import RelationSettings, TestSettings, TrainSettings, check
from relnet_jax.ops.anchors import NECK_STRIDES
from relnet_jax.ops.geometry import append_cells
from relnet_jax.ops.roi_align import assign_levels, roi_align
from relnet_jax.types import Array, Batch, Detections, Proposals

ROI_LEVELS = 4                  # RoIs look at P2..P5
CONTEXT_LEVEL, CONTEXT_STRIDE = 2, 16       # of the FPN's maps, the one that relations and the anatomy head look at: P4
BOX_POOL, MASK_POOL = 7, 14     # the C4 head pools MASK_POOL and halves it itself


class RoIMaps(NamedTuple):
    """What RoIs read."""
    levels: list[Array]         # P2..P5 or C4, [B, h, w, C] each
    image_size: Array | None    # float32 [B, 2], where their images end; None: with the canvas


class MaskRCNN(nn.Module):
    """Detector for uint8 images [B, H, W, 3]; fields as the keys of config.model.

    The canvas H x W is a multiple of 64 with FPN, of 16 with C4. mask_padding True: nothing outside the true image
    takes part, so that a result does not depend on the canvas. False: the network computes on the padding, as
    torchvision does on its own (to a multiple of 32), for comparisons with it.
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
    neck: str = 'fpn'
    deformable: str = ''
    cascade: tuple[float, ...] = ()
    cascade_weights: tuple[float, ...] = ()
    relation: RelationSettings = RelationSettings()
    anatomy: bool = False
    adjacency: tuple[tuple[float, ...], ...] | None = None     # class graph [K, K], a constant of the model

    def setup(self):
        check(self)
        c4 = self.neck == 'c4'
        self.body = ResNet(self.backbone, norm=self.norm, stride_in_1x1=self.stride_in_1x1, dtype=self.dtype,
                           frozen_stages=self.frozen_stages, deformable=self.deformable, stages=3 if c4 else 4,
                           name='backbone')
        if not c4:
            self.fpn = FPN(self.fpn_channels, norm=self.norm, dtype=self.dtype)
        sizes = self.anchor_sizes[0] if isinstance(self.anchor_sizes[0], tuple) else (0,)
        self.rpn = RPNHead(len(sizes) * len(self.anchor_ratios),
                           stage_channels(self.backbone, 2) if c4 else self.fpn_channels, dtype=self.dtype)
        # The first stage has the plain names, so that a plain detector's weights fit; the others are `box_head_2`, ...
        names = ['', *(f'_{i}' for i in range(2, self.stages + 1))]
        if not c4:
            self.box_heads = [BoxHead(self.box_head_dim, dropout=self.box_dropout, dtype=self.dtype,
                                      name=f'box_head{name}') for name in names]
        self.box_predictors = [BoxPredictor(self.num_classes, dtype=self.dtype, name=f'box_predictor{name}')
                               for name in names]
        if self.with_masks:
            if not c4:
                self.mask_head = MaskHead(self.mask_channels, self.mask_convs, norm=self.norm, dtype=self.dtype)
            self.mask_predictor = MaskPredictor(self.num_classes, self.mask_channels, dtype=self.dtype)
        options = self.relation_options
        if relate.IN_BOX_HEAD in options:
            self.object_attentions = [
                RELATIONS[relate.IN_BOX_HEAD](**options[relate.IN_BOX_HEAD], features=None, dtype=self.dtype,
                                              name=f'{relate.IN_BOX_HEAD}_{i}') for i in (1, 2)]
        if self.second_pass:
            r = self.relation
            self.relation_head = relate.RelationHead(
                self.num_classes, tuple(pair for pair in r.relations if pair[0] != relate.IN_BOX_HEAD), r.fusion,
                r.fusion_order, boxes=r.boxes_from == 'second', dtype=self.dtype)
        if options.get('context', {}).get('window'):
            self.part_window = PartWindow()
        if self.anatomy:
            self.anatomy_head = AnatomyHead(CONTEXT_STRIDE, dtype=self.dtype)

    @property
    def strides(self) -> tuple[int, ...]:
        return NECK_STRIDES[self.neck]

    @property
    def stages(self) -> int:
        return max(len(self.cascade), 1)

    @property
    def relation_options(self) -> dict[str, dict]:
        return {name: dict(options) for name, options in self.relation.relations}

    @property
    def second_pass(self) -> bool:
        return any(name != relate.IN_BOX_HEAD for name in self.relation_options)

    def __call__(self, image: Array, image_size: Array, part_boxes: Array | None = None,
                 part_valid: Array | None = None) -> Detections:
        return self.detect(image, image_size, part_boxes, part_valid)

    # ---- maps and proposals ----
    def features(self, image: Array, image_size: Array) -> tuple[list[Array], dict]:
        """uint8 [B, H, W, 3] -> ([P2..P6] or [C4], valid maps per stride; None where padding is not masked)."""
        height, width = image.shape[1:3]
        coarsest = self.strides[-1]
        if height % coarsest or width % coarsest:
            raise ValueError(f'canvas: expected multiples of {coarsest}, got {height} x {width}')
        x = (image.astype(jnp.float32) - jnp.asarray(self.pixel_mean)) / jnp.asarray(self.pixel_std)
        x = jnp.where(valid_map(image_size, 1, (height, width)), x, 0).astype(self.dtype)
        valid = dict.fromkeys(stride for stride in (1, 2, *NECK_STRIDES['fpn']) if stride <= coarsest)
        if self.mask_padding:
            valid = {stride: valid_map(image_size, stride, (height // stride, width // stride)) for stride in valid}
        maps = self.body(x, valid)
        return (self.fpn(maps, valid) if self.neck == 'fpn' else [zero_padding(maps[-1], valid[coarsest])]), valid

    def propose(self, pyramid: list[Array], valid: dict, image_size: Array, *, pre_nms: int,
                post_nms: int) -> tuple[Proposals, list[Array], list[Array], Anchors]:
        """(proposals, RPN logits, RPN deltas, anchors), the last three per level."""
        logits, deltas = self.rpn(pyramid, [valid[stride] for stride in self.strides])
        canvas = tuple(self.strides[0] * side for side in pyramid[0].shape[1:3])
        anchors = make_anchors(image_size, canvas, strides=self.strides, sizes=self.anchor_sizes,
                               ratios=self.anchor_ratios, mask_padding=self.mask_padding)
        proposals = select_proposals(logits, deltas, anchors, image_size, pre_nms=pre_nms, post_nms=post_nms)
        return proposals, logits, deltas, anchors

    def rpn_at(self, pyramid: list[Array], valid: dict, logits: list[Array], deltas: list[Array]) -> Callable:
        """What the RPN's losses ask for the outputs at the sampled anchors."""
        if self.train.rpn_samples < sum(features.shape[1] * features.shape[2] for features in pyramid):
            return partial(self.rpn.at_anchors, pyramid, [valid[stride] for stride in self.strides])
        return partial(at_index, logits, deltas)

    # ---- RoI features ----
    def roi_maps(self, pyramid: list[Array], image_size: Array) -> RoIMaps:
        return RoIMaps(pyramid[:ROI_LEVELS], image_size if self.mask_padding else None)

    def pool(self, maps: RoIMaps, boxes: Array, size: int) -> Array:
        """Boxes [B, N, 4] -> RoI features [B, N, size, size, C], each from the level its size asks for."""
        levels = assign_levels(boxes) - 2 if self.neck == 'fpn' else jnp.zeros(boxes.shape[:2], jnp.int32)
        return roi_align(maps.levels, boxes, levels, strides=self.strides[:ROI_LEVELS], output_size=size,
                         image_size=maps.image_size, aligned=self.roi_aligned)

    def conv5(self, pooled: Array) -> Array:
        """The C4 head on RoIs [B, N, 14, 14, C4] -> [B, N, 7, 7, C5]."""
        out = self.body.head(pooled.reshape(-1, *pooled.shape[2:]))
        return out.reshape(*pooled.shape[:2], *out.shape[1:])

    def roi_features(self, maps: RoIMaps, rois: Proposals, image_size: Array, stage: int = 0,
                     keys: Array | None = None) -> tuple[Array, Array | None]:
        """RoIs N of a stage -> (features [B, N, D], conv5 [B, N, 7, 7, D] that masks share, None with FPN)."""
        if self.neck == 'c4':
            conv5 = self.conv5(self.pool(maps, rois.boxes, MASK_POOL))
            return conv5.mean((2, 3), dtype=jnp.float32).astype(self.dtype), conv5
        residuals = ()
        if relate.IN_BOX_HEAD in self.relation_options and stage == self.stages - 1:
            context = relate.context_of_objects(rois, image_size)
            residuals = [lambda x, module=module: module(context._replace(roi_features=x))
                         for module in self.object_attentions]
        return self.box_heads[stage](self.pool(maps, rois.boxes, BOX_POOL), keys, residuals), None

    def box_branch(self, maps: RoIMaps, boxes: Array, keys: Array | None = None) -> tuple[Array, Array]:
        """Boxes [B, N, 4] -> class logits [B, N, K] and deltas [B, N, K, 4] of the plain (FPN) box branch."""
        return self.box_predictors[0](self.box_heads[0](self.pool(maps, boxes, BOX_POOL), keys))

    def mask_features(self, maps: RoIMaps, boxes: Array) -> Array:
        """Boxes [B, N, 4] -> what the mask predictor reads, [B * N, m, m, C]."""
        pooled = self.pool(maps, boxes, MASK_POOL)
        pooled = pooled.reshape(-1, *pooled.shape[2:])
        return self.mask_head(pooled) if self.neck == 'fpn' else self.body.head(pooled)

    def mask_branch(self, maps: RoIMaps, boxes: Array, labels: Array, used: Array) -> Array:
        """Boxes [B, N, 4] with classes [B, N] -> mask logits [B, N, 2m, 2m] of those classes where `used` bool [B, N].

        2m is 28 with FPN, 14 with C4. Used rows come first; what the others get is unspecified (see `on_used_rows`: on
        CPU this branch would be half of all arithmetic at 100 RoIs, and a film has few objects).
        """
        def run(model: MaskRCNN, maps: RoIMaps, boxes: Array, labels: Array) -> Array:
            logits = model.mask_predictor(model.mask_features(maps, boxes), labels.reshape(-1))
            return logits.reshape(*labels.shape, *logits.shape[1:])
        return on_used_rows(self, run, used, maps, boxes, labels)

    # ---- parts and relations ----
    def find_parts(self, pyramid: list[Array], image_size: Array, parts: int) -> tuple[Array, Array]:
        """Boxes [B, P, 4] and presence logits [B, P] of the anatomy head. Raises ValueError without parts to find."""
        if not parts:
            raise ValueError('model.anatomy_head: expected data.parts to name the parts to find, got none')
        return self.anatomy_head(pyramid[self.context_level], image_size, parts)

    def parts(self, image: Array, image_size: Array, parts: int) -> tuple[Array, Array]:
        """The anatomy alone: uint8 images -> part boxes [B, P, 4] in canvas pixels and their probabilities [B, P]."""
        boxes, presence = self.find_parts(self.features(image, image_size)[0], image_size, parts)
        return boxes, nn.sigmoid(presence)

    @property
    def context_level(self) -> int:
        return CONTEXT_LEVEL if self.neck == 'fpn' else 0

    def relate(self, maps: RoIMaps, image_map: Array, image_size: Array, features: Array, rois: Proposals,
               logits: Array, parts: tuple[Array, Array], keys: Array | None = None) -> tuple[Array, Array | None]:
        """Second pass: RoI features [B, N, D], RoIs and logits [B, N, K] of the first pass, parts (boxes [B, P, 4],
        valid [B, P]) -> logits [B, N, K] and deltas [B, N, K, 4], None where config.model.boxes_from is 'first'."""
        part_boxes, part_valid = parts
        count, options = part_boxes.shape[1], self.relation_options
        rows, columns = options.get('context', {}).get('grid', (0, 0))
        if rows * columns:
            part_boxes, part_valid = append_cells(part_boxes, part_valid, parts=options['context']['parts'], rows=rows,
                                                  cols=columns)
        classifier = self.box_predictors[-1].get_variable('params', 'cls_score')
        context = RelationContext(
            roi_features=features, boxes=rois.boxes, roi_valid=rois.valid, class_logits=logits,
            class_weights=classifier['kernel'].T, class_bias=classifier['bias'], image_map=image_map,
            image_size=image_size, part_boxes=part_boxes, part_valid=part_valid,
            part_features=self.part_features(maps, part_boxes, features.shape[-1]),
            adjacency=None if self.adjacency is None else jnp.asarray(self.adjacency, jnp.float32), dropout_keys=keys)
        return self.relation_head(context, count)

    def part_features(self, maps: RoIMaps, boxes: Array, width: int) -> Array:
        """Part boxes [B, P, 4] -> what the last stage's box head makes of them, pooled from P4 or C4: [B, P, width]."""
        if not any(name in relate.WITH_PART_FEATURES for name in self.relation_options):
            return jnp.zeros((*boxes.shape[:2], width), self.dtype)
        level = self.context_level
        pooled = roi_align([maps.levels[level]], boxes, jnp.zeros(boxes.shape[:2], jnp.int32),
                           strides=(self.strides[level],), output_size=BOX_POOL if self.neck == 'fpn' else MASK_POOL,
                           image_size=maps.image_size, aligned=self.roi_aligned)
        if self.relation_options.get('context', {}).get('window'):
            pooled = self.part_window(pooled)
        if self.neck == 'c4':
            return self.conv5(pooled).mean((2, 3), dtype=jnp.float32).astype(self.dtype)
        return self.box_heads[-1](pooled)

    def seen_parts(self, pyramid: list[Array], image_size: Array, part_boxes: Array | None,
                   part_valid: Array | None) -> tuple[tuple[Array, Array], tuple[Array, Array] | None]:
        """(the parts that the relations see, those of the anatomy head or None): boxes [B, P, 4] with their masks, or
        presence logits, [B, P]. Raises ValueError where the model works with parts and is given no arrays of them."""
        works = self.anatomy or any(name in relate.WITH_PARTS for name in self.relation_options)
        if part_boxes is None:
            if works:
                raise ValueError('this model works with anatomical parts: expected part_boxes [B, P, 4] and part_valid '
                                 '[B, P] (False where unknown), got none')
            return (jnp.zeros((len(image_size), 0, 4)), jnp.zeros((len(image_size), 0), bool)), None
        predicted = self.find_parts(pyramid, image_size, part_boxes.shape[1]) if self.anatomy else None
        return choose_parts(self.relation.parts, (part_boxes, part_valid), predicted), predicted

    # ---- training ----
    def losses(self, batch: Batch, keys: Array) -> tuple[dict, dict]:
        """(losses, metrics), each a dict name -> (local sum, local count), float32 scalars; `keys`: PRNG keys [B].

        A loss is psum(sum) / max(psum(count), 1), the whole loss their sum. Losses: loss_cls, loss_bbox, loss_mask (if
        with_masks), rpn_cls_p2..p6, rpn_bbox_p2..p6 (C4: rpn_cls, rpn_bbox); of earlier stages loss_cls_stage1, ...; of
        a first pass loss_cls_first and loss_bbox_first (see `relation_head.joint_terms`); of the anatomy head
        loss_part_box and loss_part_presence. Metrics: accuracy_cls (share of sampled RoIs classified right; also
        _stage1, ... and _first), and per image num_positive and num_rois (of the last box head) and
        num_positive_anchors; part_iou.
        """
        rpn_keys, roi_keys, dropout_keys = (fold(keys, tag) for tag in range(3))
        t, size = self.train, batch.image_size
        pyramid, valid = self.features(batch.image, size)
        proposals, rpn_logits, rpn_deltas, anchors = self.propose(pyramid, valid, size, pre_nms=t.pre_nms,
                                                                  post_nms=t.proposals)
        terms, metrics = rpn_losses(self.rpn_at(pyramid, valid, rpn_logits, rpn_deltas), anchors, batch, rpn_keys,
                                    samples=t.rpn_samples, max_positive=int(t.rpn_samples * t.rpn_positive),
                                    beta=self.rpn_beta)
        maps = self.roi_maps(pyramid, size)
        parts, predicted = self.seen_parts(pyramid, size, batch.part_boxes, batch.part_valid)
        if self.anatomy:
            part_terms, part_metrics = anatomy_losses(*predicted, batch)
            terms, metrics = terms | part_terms, metrics | part_metrics

        max_positive = int(t.rois * t.roi_positive)
        for stage, iou in enumerate(self.cascade or (FOREGROUND_IOU,)):
            if stage > 0:
                proposals = refine(logits, deltas, relate.as_rois(sample), size)
                roi_keys, dropout_keys = fold(roi_keys, stage), fold(dropout_keys, stage)
            sample = sample_rois(proposals, batch, roi_keys, num=t.rois, max_positive=max_positive, iou=iou)
            rois = relate.as_rois(sample, gt_boxes=self.relation.gt_boxes)
            features, conv5 = self.roi_features(maps, rois, size, stage, dropout_keys)
            logits, deltas = self.box_predictors[stage](features)
            last = stage == self.stages - 1
            found, counts = box_losses(logits, deltas, sample, batch, beta=self.box_beta,
                                       background_weight=self.background_weight)
            if last and self.second_pass:
                found, counts = self.second_losses(maps, pyramid, batch, sample, features, logits, parts,
                                                   fold(keys, 3), (found, counts))
            if self.cascade:
                found = {name: (self.cascade_weights[stage] * total, count) for name, (total, count) in found.items()}
            if not last:
                found = relate.renamed(found, f'_stage{stage + 1}')
                counts = {f'accuracy_cls_stage{stage + 1}': counts['accuracy_cls']}
            terms, metrics = terms | found, metrics | counts

        if self.with_masks:
            mask_sample, teaches = mask_rois(sample, batch, num=max_positive)
            if conv5 is None:
                mask_logits = self.mask_branch(maps, mask_sample.boxes, mask_sample.labels, mask_sample.positive)
            else:   # positives come first, and what conv5 makes of them is there already
                shared = conv5[:, :max_positive]
                mask_logits = self.mask_predictor(shared.reshape(-1, *shared.shape[2:]), mask_sample.labels.reshape(-1))
                mask_logits = mask_logits.reshape(*mask_sample.labels.shape, *mask_logits.shape[1:])
            terms |= mask_losses(mask_logits, mask_sample, teaches, batch, aligned=self.roi_aligned)
        return terms, metrics

    def second_losses(self, maps: RoIMaps, pyramid: list[Array], batch: Batch, sample: RoISample, features: Array,
                      logits: Array, parts: tuple[Array, Array], keys: Array,
                      first: tuple[dict, dict]) -> tuple[dict, dict]:
        """Losses and metrics of both passes together; `first`: those of the first pass alone."""
        r = self.relation
        second = relate.second_pass_sample(sample, gt_boxes=r.gt_boxes)
        logits, deltas = self.relate(maps, pyramid[self.context_level], batch.image_size, features,
                                     relate.as_rois(second, gt_boxes=r.gt_boxes), logits, parts, keys)
        found, counts = box_losses(logits, deltas, second, batch, beta=self.box_beta,
                                   background_weight=self.background_weight)
        terms, idle = relate.joint_terms(first[0], found, both=r.loss == 'published',
                                         second_boxes=r.boxes_from == 'second')
        counts = first[1] | {'accuracy_cls': counts['accuracy_cls'], 'accuracy_cls_first': first[1]['accuracy_cls']}
        return terms, counts | idle

    # ---- inference ----
    def detect(self, image: Array, image_size: Array, part_boxes: Array | None = None,
               part_valid: Array | None = None) -> Detections:
        """uint8 [B, H, W, 3], float32 [B, 2] -> final detections in canvas pixels, masks as probabilities.

        part_boxes [B, P, 4], part_valid [B, P]: known parts, all False where none is; needed by a model that works with
        parts. Sown under 'intermediates': the relations' weights, and 'part_boxes' and 'part_valid' as they saw them.
        """
        t = self.test
        pyramid, valid = self.features(image, image_size)
        rois, *_ = self.propose(pyramid, valid, image_size, pre_nms=t.pre_nms, post_nms=t.boxes)
        maps = self.roi_maps(pyramid, image_size)
        scores = []
        for stage in range(self.stages):
            rois = refine(logits, deltas, rois, image_size) if stage > 0 else rois
            features, _ = self.roi_features(maps, rois, image_size, stage)
            logits, deltas = self.box_predictors[stage](features)
            scores.append(logits)
        logits = mean_scores(scores)
        if self.second_pass or self.anatomy:
            parts, _ = self.seen_parts(pyramid, image_size, part_boxes, part_valid)
            self.sow('intermediates', 'part_boxes', parts[0])
            self.sow('intermediates', 'part_valid', parts[1])
        if self.second_pass:    # its scores are the detection's alone: they rest on the last stage's already
            logits, moved = self.relate(maps, pyramid[self.context_level], image_size, features, rois, scores[-1],
                                        parts)
            deltas = deltas if moved is None else moved
        detections = select_detections(logits, deltas, rois, image_size, score_threshold=t.score_threshold,
                                       nms_iou=t.nms, num=t.detections)
        if not self.with_masks:
            return detections
        logits = self.mask_branch(maps, detections.boxes, detections.labels, detections.valid)
        return detections._replace(masks=nn.sigmoid(logits))


def fold(keys: Array, tag: int) -> Array:
    """One new PRNG key for each of `keys` [B]."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, tag)


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
    sizes = tuple(tuple(size) if isinstance(size, (tuple, list)) else size for size in m.anchor_sizes)
    return MaskRCNN(
        num_classes=num_classes, backbone=m.backbone, norm=m.norm, stride_in_1x1=m.stride_in_1x1,
        frozen_stages=m.frozen_stages, pixel_mean=tuple(m.pixel_mean), pixel_std=tuple(m.pixel_std),
        dtype=jnp.dtype(m.dtype), fpn_channels=m.fpn_channels, anchor_sizes=sizes,
        anchor_ratios=tuple(m.anchor_ratios), box_head_dim=m.box_head_dim, box_dropout=m.box_dropout,
        with_masks=m.mask_head, mask_channels=m.mask_channels, mask_convs=m.mask_convs, roi_aligned=m.roi_aligned,
        rpn_beta=m.rpn_beta, box_beta=m.box_beta, background_weight=m.background_weight,
        train=TrainSettings(t.pre_nms, t.proposals, t.rpn_samples, t.rpn_positive, t.rois, t.roi_positive),
        test=TestSettings(e.pre_nms, e.boxes, e.score_threshold, e.nms, e.detections),
        neck=m.neck, deformable=m.deformable, cascade=tuple(m.cascade), cascade_weights=tuple(m.cascade_weights),
        relation=RelationSettings(relate.relation_options(m), m.fusion, tuple(m.fusion_order), m.relation_loss,
                                  m.boxes_from, m.relation_gt_boxes, m.parts),
        anatomy=m.anatomy_head, adjacency=adjacency)
