"""What a detector is told, grouped by its parts, and which settings go together. Meanings: configs/base.py."""
from typing import NamedTuple

from relnet_jax.errors import UserError
from relnet_jax.models import backbones
from relnet_jax.models.relations import RELATIONS, Chosen, needs
from relnet_jax.ops.anchors import NECK_STRIDES

PARTS = ('given', 'predicted', 'given_or_predicted')
LOSSES = ('published', 'second_only')       # both passes are trained | the second alone


class ImageSettings(NamedTuple):
    """mask_padding True: nothing outside the true image takes part, so that a result does not depend on the canvas.
    False: the network computes on the padding, as torchvision does on its own (to a multiple of 32), for comparisons.
    """
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    mask_padding: bool = True


class RPNSettings(NamedTuple):
    """anchor_sizes: one entry per level, numbers or tuples of them."""
    anchor_sizes: tuple
    anchor_ratios: tuple[float, ...]
    beta: float


class HeadSettings(NamedTuple):
    """Of the heads on RoIs."""
    box_dim: int
    box_dropout: float
    box_beta: float
    background_weight: float
    class_weights: tuple[float, ...]            # one per class without background; () = all 1
    focal_gamma: float
    masks: bool
    mask_channels: int
    mask_convs: int
    roi_aligned: bool
    cascade: tuple[float, ...] = ()             # IoU of each box stage; () = one stage
    cascade_weights: tuple[float, ...] = ()
    mask_pool: int = 14                         # cells a side of RoIs for masks, which have twice as many; FPN


class RelationSettings(NamedTuple):
    chosen: Chosen = ()                         # of `relations.chosen`
    fusion: str = 'cat'
    fusion_order: tuple[str, ...] = ()
    loss: str = 'published'
    boxes_from: str = 'second'
    scores_from: str = 'second'
    gt_boxes: bool = False
    stop_gradient: bool = False
    detached: bool = False
    parts: str = 'given'

    @property
    def needs(self) -> set[str]:
        return needs(self.chosen)

    def acting_in(self, place: str) -> Chosen:
        return tuple((name, fields) for name, fields in self.chosen if RELATIONS[name].acts_in == place)


class TrainSettings(NamedTuple):
    """Counts per image."""
    pre_nms: int
    proposals: int
    rpn_samples: int
    rpn_positive: float
    rois: int
    roi_positive: float

    @property
    def positive_rois(self) -> int:
        """At most so many of the RoIs."""
        return int(self.rois * self.roi_positive)


class TestSettings(NamedTuple):
    pre_nms: int
    boxes: int
    score_threshold: float
    nms: float
    detections: int


def validate(model) -> None:
    """Raises ValueError, naming the config key, for fields of a MaskRCNN that are unknown or do not go together."""
    relation, heads = model.relation, model.heads
    for key, value, known in (('neck', model.neck, tuple(NECK_STRIDES)), ('relation_loss', relation.loss, LOSSES),
                              ('boxes_from', relation.boxes_from, ('first', 'second')),
                              ('scores_from', relation.scores_from, ('mean', 'second')),
                              ('parts', relation.parts, PARTS)):
        if value not in known:
            raise UserError(f'config.model.{key}: expected one of {known}, got {value!r}')
    if relation.detached and relation.loss == 'second_only':
        raise UserError("config.model.relation_detached: with config.model.relation_loss 'second_only' nothing would "
                        'train the first pass')
    backbones.validate(model.backbone, model.neck)
    if len(heads.cascade_weights) < len(heads.cascade):
        raise UserError('config.model.cascade_weights: expected one per stage of config.model.cascade '
                         f'{heads.cascade}, got {heads.cascade_weights}')
    if heads.class_weights and len(heads.class_weights) != model.num_classes - 1:
        raise UserError(f'config.model.class_weights: expected one per class, {model.num_classes - 1}, '
                        f'got {len(heads.class_weights)}')
    in_box_head = [name for name, _ in relation.acting_in('box_head')]
    if model.neck == 'c4' and (len(heads.cascade) > 1 or in_box_head):
        wanted = 'config.model.cascade' if len(heads.cascade) > 1 else in_box_head[0]
        raise UserError("config.model.neck 'c4' has one RoI head and no fully connected layers: "
                        f'{wanted} needs the FPN')
    if relation.parts != 'given' and not model.anatomy:
        raise UserError(f'config.model.parts {relation.parts!r} needs config.model.anatomy_head')
    sizes = [len(size) if isinstance(size, tuple) else 1 for size in model.rpn.anchor_sizes]
    levels = len(NECK_STRIDES[model.neck])
    if len(sizes) != levels or len(set(sizes)) != 1:
        raise UserError(f'config.model.anchor_sizes: expected {levels} entries alike, one per level, '
                         f'got {model.rpn.anchor_sizes}')
