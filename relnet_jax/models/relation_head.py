"""Relation head: relations on the first pass's results, fused with the RoI features, second-pass predictor.

`object_attention` is not part of it: it acts between the layers of the box head (see `MaskRCNN.roi_features`).
"""
import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from relnet_jax.errors import UserError
from relnet_jax.models.box_head import BoxPredictor, RoISample
from relnet_jax.models.relations import RELATIONS, RelationContext, fuse
from relnet_jax.types import Array, Proposals

IN_BOX_HEAD = 'object_attention'
WITH_PARTS = ('part', 'context', 'lung_feature')            # look at part boxes
WITH_PART_FEATURES = ('context', 'lung_feature')            # and at what the box head makes of them
LOSSES = ('published', 'second_only')       # both passes are trained | the second alone
C4_REDUCTION = 16       # channels of the C4 map / those of the class attention, as Reasoning-RCNN has it

Options = tuple[tuple[str, object], ...]    # a module's fields, hashable as a field of a module must be


def relation_options(model: ConfigDict) -> tuple[tuple[str, Options], ...]:
    """(name, options) of the relations that config.model asks for, in order; zeros that mean None become None.

    Raises ValueError for an unknown or repeated relation.
    """
    chosen = []
    for name in model.relations:
        if name not in RELATIONS:
            raise UserError(f'model.relations: expected names of {tuple(RELATIONS)}, got {name!r}')
        options = dict(model.relation['class_' if name == 'class' else name])
        for key in ('reduction', 'features', 'keys'):
            if options.get(key) == 0:
                options[key] = None
        if name == 'class' and model.neck == 'c4' and options['form'] == 'published':
            options['reduction'] = options['reduction'] or C4_REDUCTION
        chosen.append((name, tuple(options.items())))
    if len(set(model.relations)) != len(chosen):
        raise UserError(f'model.relations: each relation at most once, got {tuple(model.relations)}')
    return tuple(chosen)


class RelationHead(nn.Module):
    """Relations in order -> fusion -> predictor. Parameters: a module per relation, under its name, and `predictor`."""
    num_classes: int
    relations: tuple[tuple[str, Options], ...]
    fusion: str = 'cat'                 # 'cat' | 'add'
    fusion_order: tuple[str, ...] = ()  # names and 'roi'; () = 'roi', then the relations
    boxes: bool = True                  # False: class scores only, the boxes are those of the first pass
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, context: RelationContext, parts: int) -> tuple[Array, Array | None]:
        """-> class logits [B, N, K] and deltas [B, N, K, 4] (None without `boxes`), float32.

        `parts` P: rows of context.part_* that are parts; those after them are grid cells, which 'context' alone sees.
        """
        rows = context.part_boxes.shape[1]
        only_parts = context._replace(**{field: getattr(context, field)[:, :parts]
                                         for field in ('part_boxes', 'part_valid', 'part_features')})
        enhanced = {}
        for name, options in self.relations:
            options, given = dict(options), only_parts
            if name == 'context':
                given = context
                del options['grid'], options['window']
                if rows > parts:
                    options['parts'] = tuple(range(parts, rows))
            enhanced[name] = RELATIONS[name](**options, dtype=self.dtype, name=name)(given)
        fused = fuse(context.roi_features, enhanced, how=self.fusion, order=self.fusion_order)
        return BoxPredictor(self.num_classes, self.boxes, dtype=self.dtype, name='predictor')(fused)


def as_rois(sample: RoISample, *, gt_boxes: bool = False) -> Proposals:
    """The sampled RoIs as what a stage or a relation sees; ground truths among them are valid only with `gt_boxes`."""
    return Proposals(sample.boxes, sample.scores, sample.valid if gt_boxes else sample.proposed)


def context_of_objects(rois: Proposals, image_size: Array) -> RelationContext:
    """Context of the object attention within the box head: objectness ranks the keys, as no class score is there yet.

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
