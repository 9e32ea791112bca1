"""Relation head: relations on the first pass's results, fused with the RoI features, second-pass predictor."""
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax.models.box_head import BoxPredictor, RoISample
from relnet_jax.models.relations import RELATIONS, Chosen, RelationContext, fuse
from relnet_jax.types import Array, Proposals


class RelationHead(nn.Module):
    """Relations in order -> fusion -> predictor. Parameters: a module per relation, under its name, and `predictor`."""
    num_classes: int
    relations: Chosen
    fusion: str = 'cat'                 # 'cat' | 'add'
    fusion_order: tuple[str, ...] = ()  # names and 'roi'; () = 'roi', then the relations
    boxes: bool = True                  # False: class scores only, the boxes are those of the first pass
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, context: RelationContext,
                 features_of: Callable[[Array], Array]) -> tuple[Array, Array | None]:
        """-> class logits [B, N, K] and deltas [B, N, K, 4] (None without `boxes`), float32.

        features_of: boxes [B, Q, 4] -> [B, Q, F], asked for the context's part_features if a relation needs them.
        """
        modules = {name: RELATIONS[name](**dict(fields), dtype=self.dtype, name=name)
                   for name, fields in self.relations}
        contexts = own_contexts(context, modules, features_of)
        enhanced = {name: module(contexts[name]) for name, module in modules.items()}
        fused = fuse(context.roi_features, enhanced, fusion=self.fusion, order=self.fusion_order)
        return BoxPredictor(self.num_classes, self.boxes, dtype=self.dtype, name='predictor')(fused)


def own_contexts(context: RelationContext, relations: Mapping[str, nn.Module],
                 features_of: Callable[[Array], Array]) -> dict[str, RelationContext]:
    """What each relation sees: the parts of `context`, or the boxes into which it divides them, with their features."""
    parts = {'': (context.part_boxes, context.part_valid)}
    for name, relation in relations.items():
        if hasattr(relation, 'divide_parts') and (divided := relation.divide_parts(*parts[''])):
            parts[name] = divided
    features = {name: context.part_features for name in parts}
    if any('part_features' in relation.needs for relation in relations.values()):
        ends = np.cumsum([boxes.shape[1] for boxes, _ in parts.values()])[:-1]
        together = features_of(jnp.concatenate([boxes for boxes, _ in parts.values()], axis=1))
        features = dict(zip(parts, jnp.split(together, ends, axis=1), strict=True))
    seen = {name: context._replace(part_boxes=boxes, part_valid=valid, part_features=features[name])
            for name, (boxes, valid) in parts.items()}
    return {name: seen.get(name, seen['']) for name in relations}


def as_rois(sample: RoISample, *, gt_boxes: bool = False) -> Proposals:
    """The sampled RoIs as what a stage or a relation sees; ground truths among them are valid only with `gt_boxes`."""
    return Proposals(sample.boxes, sample.scores, sample.valid if gt_boxes else sample.proposed)


def context_of_objects(rois: Proposals, image_size: Array) -> RelationContext:
    """Context of a relation within the box head: objectness ranks the keys, as no class score is there yet.

    Only its RoI features, to be filled in, boxes, validity and logits [B, N, 2] (background, object) mean anything.
    """
    b, n = rois.scores.shape
    return RelationContext(
        roi_features=jnp.zeros((b, n, 0)), boxes=rois.boxes, roi_valid=rois.valid,
        class_logits=jnp.stack([jnp.zeros_like(rois.scores), rois.scores], -1), class_weights=jnp.zeros((2, 0)),
        class_bias=jnp.zeros(2), image_map=jnp.zeros((b, 0, 0, 0)), image_size=image_size,
        part_boxes=jnp.zeros((b, 0, 4)), part_features=jnp.zeros((b, 0, 0)), part_valid=jnp.zeros((b, 0), bool))


def second_pass_sample(sample: RoISample, *, gt_boxes: bool) -> RoISample:
    """The RoIs that the relation pass sees: without the ground truths that joined the sample, unless `gt_boxes`.

    At test time there are none, and relations between boxes would learn to lean on them (Hu et al., CVPR 2018).
    """
    if gt_boxes:
        return sample
    return sample._replace(valid=sample.proposed, positive=sample.positive & sample.proposed,
                           labels=jnp.where(sample.proposed, sample.labels, 0))


def renamed(terms: dict, suffix: str) -> dict:
    return {f'{name}{suffix}': value for name, value in terms.items()}


def joint_terms(first: dict, second: dict, *, both: bool, second_boxes: bool) -> tuple[dict, dict]:
    """(losses, metrics) of the two passes, each name -> (sum, count); `first` and `second` are terms of `box_losses`.

    Losses: loss_cls of the second pass and loss_bbox of the pass whose boxes are the detections' (`second_boxes`). The
    first pass's own terms, loss_cls_first and loss_bbox_first, join them if `both` passes are trained, else they are
    metrics, without gradient. A loss_bbox that is the first pass's anyway appears once.
    """
    own = renamed(first if second_boxes else {'loss_cls': first['loss_cls']}, '_first')
    losses = dict(second) if second_boxes else {'loss_cls': second['loss_cls'], 'loss_bbox': first['loss_bbox']}
    if both:
        return losses | own, {}
    return losses, jax.lax.stop_gradient(own)
