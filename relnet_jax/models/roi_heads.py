"""Second stage, on RoIs: pooling, box stages (a cascade), relation pass, masks; their losses and detections."""
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

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
from relnet_jax.models.mask_head import MaskHead, MaskPredictor, Predict, mask_losses, mask_rois
from relnet_jax.models.relation_head import (
    RelationHead,
    as_rois,
    context_of_objects,
    joint_terms,
    renamed,
    second_pass_sample,
)
from relnet_jax.models.relations import ALL, RELATIONS, PartWindow, RelationContext
from relnet_jax.models.settings import HeadSettings, RelationSettings, TestSettings, TrainSettings
from relnet_jax.models.used_rows import on_used_rows
from relnet_jax.ops.anchors import NECK_STRIDES
from relnet_jax.ops.roi_align import assign_levels, roi_align
from relnet_jax.ops.sampling import fold
from relnet_jax.types import Array, Batch, Detections, Parts, Proposals

CONTEXT_LEVEL, CONTEXT_STRIDE = {'fpn': 2, 'c4': 0}, 16     # the map that relations look at: P4 or C4
C4_POOL = 14                                                # cells a side, of masks too; conv5 halves them
BOX_POOL = {'fpn': 7, 'c4': C4_POOL}
SAMPLING, DROPOUT, RELATIONS_DROPOUT = 1, 2, 3              # what an image's key is folded with; 0 is the RPN's


class RoIMaps(NamedTuple):
    """What RoIs read."""
    levels: list[Array]         # P2..P5 or C4, [B, H_l, W_l, C] each
    image_size: Array | None    # float32 [B, 2], where their images end; None: with the canvas


class BoxStage(NamedTuple):
    """What a box head makes of RoIs."""
    features: Array         # [B, N, F]
    conv5: Array | None     # [B, N, 7, 7, F] that C4's masks share; None with FPN
    logits: Array           # float32 [B, N, K]
    deltas: Array           # float32 [B, N, K, 4]


class RoIHeads(nn.Module):
    """Its submodules lie in the scope of the detector (`nn.share_scope`), under the names that checkpoints have."""
    num_classes: int
    neck: str
    norm: str
    heads: HeadSettings
    relation: RelationSettings
    adjacency: tuple[tuple[float, ...], ...] | None
    body: nn.Module             # of which C4 uses `head`
    dtype: jnp.dtype

    def setup(self):
        heads, relation = self.heads, self.relation
        # The first stage has the plain names, so that a plain detector's weights fit; the others are `box_head_2`, ...
        names = ['', *(f'_{i}' for i in range(2, self.stages + 1))]
        if self.neck == 'fpn':
            self.box_heads = [BoxHead(heads.box_dim, dropout=heads.box_dropout, dtype=self.dtype,
                                      name=f'box_head{name}') for name in names]
        self.box_predictors = [BoxPredictor(self.num_classes, dtype=self.dtype, name=f'box_predictor{name}')
                               for name in names]
        if heads.masks:
            if self.neck == 'fpn':
                self.mask_head = MaskHead(heads.mask_channels, heads.mask_convs, norm=self.norm, dtype=self.dtype)
            self.mask_predictor = MaskPredictor(self.num_classes, heads.mask_channels, dtype=self.dtype)
        self.in_box_head = [[RELATIONS[name](**dict(fields), dtype=self.dtype, name=f'{name}_{layer}')
                             for name, fields in relation.acting_in('box_head')] for layer in (1, 2)]
        if self.second_pass:
            self.relation_head = RelationHead(
                self.num_classes, relation.acting_in('second_pass'), relation.fusion, relation.fusion_order,
                boxes=relation.boxes_from == 'second', dtype=self.dtype)
        if 'part_window' in relation.needs:
            self.part_window = PartWindow()

    @property
    def stages(self) -> int:
        return max(len(self.heads.cascade), 1)

    @property
    def mask_pool(self) -> int:
        return self.heads.mask_pool if self.neck == 'fpn' else C4_POOL

    @property
    def second_pass(self) -> bool:
        return bool(self.relation.acting_in('second_pass'))

    # ---- features of boxes ----
    def pool(self, maps: RoIMaps, boxes: Array, size: int, *, level: int | None = None) -> Array:
        """Boxes [B, N, 4] -> RoI features [B, N, size, size, C] from `level`; None: the one that its size asks for."""
        by_size = self.neck == 'fpn' and level is None
        levels = assign_levels(boxes) - 2 if by_size else jnp.zeros(boxes.shape[:2], jnp.int32)
        read = slice(level, None if level is None else level + 1)
        return roi_align(maps.levels[read], boxes, levels, strides=NECK_STRIDES[self.neck][:len(maps.levels)][read],
                         output_size=size, image_size=maps.image_size, aligned=self.heads.roi_aligned)

    def box_features(self, pooled: Array, stage: int = -1, keys: Array | None = None,
                     residuals: tuple = ()) -> tuple[Array, Array | None]:
        """`pool`ed RoIs of a stage -> (features [B, N, F], conv5 [B, N, 7, 7, F] that masks share, None with FPN)."""
        if self.neck == 'fpn':
            return self.box_heads[stage](pooled, keys, residuals), None
        conv5 = self.body.head(pooled.reshape(-1, *pooled.shape[2:]))
        conv5 = conv5.reshape(*pooled.shape[:2], *conv5.shape[1:])
        return conv5.mean((2, 3), dtype=jnp.float32).astype(self.dtype), conv5

    def part_features(self, maps: RoIMaps, boxes: Array) -> Array:
        """Part boxes [B, P, 4] -> what the last stage's box head makes of them, pooled from P4 or C4: [B, P, F]."""
        pooled = self.pool(maps, boxes, BOX_POOL[self.neck], level=CONTEXT_LEVEL[self.neck])
        if 'part_window' in self.relation.needs:
            pooled = self.part_window(pooled)
        return self.box_features(pooled)[0]

    # ---- branches ----
    def box_stage(self, stage: int, maps: RoIMaps, rois: Proposals, image_size: Array,
                  keys: Array | None = None) -> BoxStage:
        """`keys` [B]: of the dropout; None = none. Relations in the box head act in the last stage."""
        residuals = ()
        if stage == self.stages - 1 and any(self.in_box_head):
            context = context_of_objects(rois, image_size)
            residuals = tuple(lambda x, modules=modules: _sum([module(context._replace(roi_features=x))
                                                               for module in modules]) for modules in self.in_box_head)
        pooled = self.pool(maps, rois.boxes, BOX_POOL[self.neck])
        features, conv5 = self.box_features(pooled, stage, keys, residuals)
        return BoxStage(features, conv5, *self.box_predictors[stage](features))

    def relate(self, maps: RoIMaps, rois: Proposals, stage: BoxStage, parts: Parts, image_size: Array,
               keys: Array | None = None, proposed: Array = ALL) -> tuple[Array, Array | None]:
        """Second pass on RoIs and what the last stage made of them -> logits [B, N, K] and deltas [B, N, K, 4], None
        where config.model.boxes_from is 'first'. proposed bool [B, N]: which RoIs are no ground truths."""
        classifier = self.box_predictors[-1].get_variable('params', 'cls_score')
        if self.relation.stop_gradient:
            maps = maps._replace(levels=jax.lax.stop_gradient(maps.levels))
        context = RelationContext(
            roi_features=stage.features, boxes=rois.boxes, roi_valid=rois.valid, class_logits=stage.logits,
            class_weights=classifier['kernel'].T, class_bias=classifier['bias'],
            image_map=maps.levels[CONTEXT_LEVEL[self.neck]], image_size=image_size, part_boxes=parts.boxes,
            part_features=jnp.zeros((*parts.valid.shape, stage.features.shape[-1]), self.dtype), part_valid=parts.valid,
            adjacency=None if self.adjacency is None else jnp.asarray(self.adjacency, jnp.float32), dropout_keys=keys,
            proposed=proposed)
        passed = jax.lax.stop_gradient if self.relation.detached else lambda x: x
        return self.relation_head(passed(context), lambda boxes: passed(self.part_features(maps, boxes)))

    def mask_function(self, features: Array, *, after_conv5: bool) -> tuple[Predict, dict, int]:
        """(predict(params, features [n, ...], labels [n]) -> mask logits [n, size, size], params, size), for RoI
        features [B, N, s, s, C]: pooled ones, or those that C4's conv5 has made of them.

        A pure function, because its rows are taken in chunks within a loop of the compiled program (`used_rows`).
        """
        layers = {'predictor': self.mask_predictor}
        if not after_conv5:
            layers['head'] = self.mask_head if self.neck == 'fpn' else self.body
        method = '__call__' if self.neck == 'fpn' else 'head'
        if self.is_initializing():
            one = features[:, 0]
            self.mask_predictor(one if after_conv5 else getattr(layers['head'], method)(one), jnp.zeros(len(one), int))
        bound = {name: layer.unbind() for name, layer in layers.items()}

        def predict(params: dict, features: Array, labels: Array) -> Array:
            if 'head' in params:
                features = bound['head'][0].apply({'params': params['head']}, features, method=method)
            return bound['predictor'][0].apply({'params': params['predictor']}, features, labels)

        side = features.shape[2] if after_conv5 or self.neck == 'fpn' else features.shape[2] // 2
        return predict, {name: variables['params'] for name, (_, variables) in bound.items()}, 2 * side

    def masks(self, maps: RoIMaps, detections: Detections) -> Array:
        """Mask logits [B, D, m, m] of the detections' classes, 0 where there is none; m = 2 mask_pool, C4 14."""
        pooled = self.pool(maps, detections.boxes, self.mask_pool)
        predict, params, size = self.mask_function(pooled, after_conv5=False)
        features, labels, valid = (x.reshape(-1, *x.shape[2:]) for x in (pooled, detections.labels, detections.valid))
        logits = on_used_rows(partial(predict, params), valid, (features, labels))
        return logits.reshape(*detections.labels.shape, size, size)

    # ---- training ----
    def losses(self, maps: RoIMaps, proposals: Proposals, parts: Parts, batch: Batch, keys: Array,
               train: TrainSettings) -> tuple[dict, dict]:
        """(losses, metrics) of all box stages, the relation pass and the masks, see `MaskRCNN.losses`."""
        roi_keys, dropout_keys = fold(keys, SAMPLING), fold(keys, DROPOUT)
        terms, metrics = {}, {}
        for stage in range(self.stages - 1):
            sample, out, found, counts = self.train_stage(stage, maps, proposals, batch, roi_keys, dropout_keys, train)
            terms |= renamed(self.weigh(stage, found), f'_stage{stage + 1}')
            metrics[f'accuracy_cls_stage{stage + 1}'] = counts['accuracy_cls']
            proposals = refine(out.logits, out.deltas, as_rois(sample), batch.image_size)
            roi_keys, dropout_keys = fold(roi_keys, stage + 1), fold(dropout_keys, stage + 1)

        last = self.stages - 1
        sample, out, found, counts = self.train_stage(last, maps, proposals, batch, roi_keys, dropout_keys, train)
        if self.second_pass:
            found, counts = self.relation_losses(maps, sample, out, parts, batch, fold(keys, RELATIONS_DROPOUT),
                                                 (found, counts))
        terms |= self.weigh(last, found)
        if self.heads.masks:
            sample, has_mask = mask_rois(sample, batch, num=train.positive_rois)
            # Positives come first. With C4, what conv5 makes of them is there already.
            features = (self.pool(maps, sample.boxes, self.mask_pool) if out.conv5 is None
                        else out.conv5[:, :train.positive_rois])
            predict, params, size = self.mask_function(features, after_conv5=out.conv5 is not None)
            terms |= mask_losses(predict, params, features, sample, has_mask, batch, size=size,
                                 aligned=self.heads.roi_aligned)
        return terms, metrics | counts

    def train_stage(self, stage: int, maps: RoIMaps, proposals: Proposals, batch: Batch, roi_keys: Array,
                    dropout_keys: Array, train: TrainSettings) -> tuple[RoISample, BoxStage, dict, dict]:
        """(RoIs sampled of the proposals, what the stage makes of them, its losses, its metrics)."""
        iou = self.heads.cascade[stage] if self.heads.cascade else FOREGROUND_IOU
        sample = sample_rois(proposals, batch, roi_keys, num=train.rois, max_positive=train.positive_rois, iou=iou)
        rois = as_rois(sample, gt_boxes=self.relation.gt_boxes)
        out = self.box_stage(stage, maps, rois, batch.image_size, dropout_keys)
        return sample, out, *self.box_terms(out.logits, out.deltas, sample, batch)

    def box_terms(self, logits: Array, deltas: Array | None, sample: RoISample, batch: Batch) -> tuple[dict, dict]:
        heads = self.heads
        return box_losses(logits, deltas, sample, batch, beta=heads.box_beta, focal_gamma=heads.focal_gamma,
                          background_weight=heads.background_weight, class_weights=heads.class_weights)

    def weigh(self, stage: int, terms: dict) -> dict:
        if not self.heads.cascade:
            return terms
        return {name: (self.heads.cascade_weights[stage] * total, count) for name, (total, count) in terms.items()}

    def relation_losses(self, maps: RoIMaps, sample: RoISample, out: BoxStage, parts: Parts, batch: Batch, keys: Array,
                        first: tuple[dict, dict]) -> tuple[dict, dict]:
        """Losses and metrics of both passes together; `first`: those of the first pass alone."""
        relation = self.relation
        second = second_pass_sample(sample, gt_boxes=relation.gt_boxes)
        logits, deltas = self.relate(maps, as_rois(second, gt_boxes=relation.gt_boxes), out, parts, batch.image_size,
                                     keys, second.proposed)
        found, counts = self.box_terms(logits, deltas, second, batch)
        terms, idle = joint_terms(first[0], found, both=relation.loss == 'published',
                                  second_boxes=relation.boxes_from == 'second')
        counts = first[1] | {'accuracy_cls': counts['accuracy_cls'], 'accuracy_cls_first': first[1]['accuracy_cls']}
        return terms, counts | idle

    # ---- inference ----
    def detect(self, maps: RoIMaps, proposals: Proposals, parts: Parts, image_size: Array,
               test: TestSettings) -> Detections:
        """Final detections with masks as probabilities."""
        rois, scores = proposals, []
        for stage in range(self.stages - 1):
            out = self.box_stage(stage, maps, rois, image_size)
            scores.append(out.logits)
            rois = refine(out.logits, out.deltas, rois, image_size)

        out = self.box_stage(self.stages - 1, maps, rois, image_size)
        scores, deltas = [*scores, out.logits], out.deltas
        if self.second_pass:
            second, second_deltas = self.relate(maps, rois, out, parts, image_size)
            scores = [*scores, second] if self.relation.scores_from == 'mean' else [second]
            deltas = deltas if second_deltas is None else second_deltas
        detections = select_detections(mean_scores(scores), deltas, rois, image_size, nms_iou=test.nms,
                                       score_threshold=test.score_threshold, num=test.detections)
        if not self.heads.masks:
            return detections
        return detections._replace(masks=nn.sigmoid(self.masks(maps, detections)))


def _sum(arrays: list[Array]) -> Array:
    return sum(arrays[1:], start=arrays[0])
