"""What a detector is told besides its layers, and which settings go together."""
from typing import NamedTuple

from relnet_jax.errors import UserError
from relnet_jax.models.relation_head import IN_BOX_HEAD, LOSSES
from relnet_jax.ops.anchors import NECK_STRIDES

PARTS = ('given', 'predicted', 'given_or_predicted')


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


class RelationSettings(NamedTuple):
    """As the keys of config.model; `relations` holds (name, options) pairs of `relation_head.relation_options`."""
    relations: tuple = ()
    fusion: str = 'cat'
    fusion_order: tuple[str, ...] = ()
    loss: str = 'published'
    boxes_from: str = 'second'
    gt_boxes: bool = False
    parts: str = 'given'


def check(model) -> None:
    """Raises ValueError, naming the config key, for fields of a MaskRCNN that are unknown or do not go together."""
    r, relations = model.relation, model.relation_options
    for key, value, known in (('neck', model.neck, tuple(NECK_STRIDES)), ('relation_loss', r.loss, LOSSES),
                              ('boxes_from', r.boxes_from, ('first', 'second')), ('parts', r.parts, PARTS)):
        if value not in known:
            raise UserError(f'model.{key}: expected one of {known}, got {value!r}')
    if len(model.cascade_weights) < len(model.cascade):
        raise UserError(f'model.cascade_weights: expected one per stage of model.cascade {model.cascade}, '
                         f'got {model.cascade_weights}')
    if model.neck == 'c4' and (len(model.cascade) > 1 or IN_BOX_HEAD in relations):
        raise UserError("model.neck 'c4' has one RoI head and no fully connected layers: model.cascade and "
                         'object_attention need the FPN')
    if r.parts != 'given' and not model.anatomy:
        raise UserError(f'model.parts {r.parts!r} needs model.anatomy_head')
    sizes = [len(size) if isinstance(size, tuple) else 1 for size in model.anchor_sizes]
    if len(sizes) != len(model.strides) or len(set(sizes)) != 1:
        raise UserError(f'model.anchor_sizes: expected {len(model.strides)} entries alike, one per level, '
                         f'got {model.anchor_sizes}')
