"""What every key of a config may hold. `check` stops with the key's own message, before any work has begun.

A new key of configs/base.py joins the table here. Names that a room keeps in a table of its own (formats, backbones)
are looked up there when a config is checked, so that a new one is a line in that table alone.
"""
import importlib
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from relnet_jax.errors import UserError, hint

COARSEST = {'fpn': 64, 'c4': 16}        # stride that the canvas is a multiple of, by neck


class Rule(NamedTuple):
    expected: str                       # as in 'expected ..., got ...'
    holds: Callable[[Any], bool]
    names: Callable[[], Iterable[str]] | None = None    # of a rule that chooses among them


def _is_whole(v: Any) -> bool:
    return isinstance(v, int) and not isinstance(v, bool)


def _is_number(v: Any) -> bool:
    return (_is_whole(v) or isinstance(v, float)) and math.isfinite(v)


def _whole(low: int, high: int, expected: str = '') -> Rule:
    return Rule(expected or f'a whole number from {low} to {high}', lambda v: _is_whole(v) and low <= v <= high)


def _each(expected: str, holds: Callable[[Any], bool], *, length: int | None = None) -> Rule:
    return Rule(expected, lambda v: isinstance(v, tuple) and length in (None, len(v)) and all(map(holds, v)))


def _one_of(*names: str) -> Rule:
    return _choice(lambda: names)


def _key_of(module: str, table: str) -> Rule:
    """A name in the table (a dict) of a module of this package."""
    return _choice(lambda: getattr(importlib.import_module(f'relnet_jax.{module}'), table))


def _choice(names: Callable[[], Iterable[str]]) -> Rule:
    return Rule('one of these names', lambda v: isinstance(v, str) and v in names(), names)


def _is_text(v: Any) -> bool:
    return isinstance(v, str)


def _is_pattern(v: Any) -> bool:
    try:
        return isinstance(v, str) and bool(re.compile(v))
    except re.error:
        return False


def _is_pair_of(first: Callable, second: Callable) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, tuple) and len(v) == 2 and first(v[0]) and second(v[1])


def _is_positive(v: Any) -> bool:
    return _is_number(v) and v > 0


def _is_share(v: Any) -> bool:
    return _is_number(v) and 0 <= v <= 1


def _is_side(v: Any) -> bool:
    return _is_whole(v) and 16 <= v <= 1 << 15


def _is_row(v: Any) -> bool:
    return _is_whole(v) and v >= 0


def _is_size(v: Any) -> bool:
    return _is_positive(v) or isinstance(v, tuple) and bool(v) and all(map(_is_positive, v))


COUNT = _whole(1, 1 << 30, 'a whole number of 1 or more')
COUNT_OR_NONE = _whole(0, 1 << 30, 'a whole number of 0 or more')
LENGTH = _whole(1, 100_000)             # of an array
LENGTH_OR_NONE = _whole(0, 100_000)
POSITIVE = Rule('a number above 0', _is_positive)
NOT_NEGATIVE = Rule('a number of 0 or more', lambda v: _is_number(v) and v >= 0)
SHARE = Rule('a number from 0 to 1', _is_share)
BELOW_ONE = Rule('a number from 0 to below 1', lambda v: _is_share(v) and v < 1)
SWITCH = Rule('True or False', lambda v: isinstance(v, bool))
TEXT = Rule('a text', _is_text)
PATH = Rule('a path', _is_text)
NAMES = _each('names', _is_text)
PAIRS = _each('pairs of names', _is_pair_of(_is_text, _is_text))
ROWS = _each('whole numbers of 0 or more', _is_row)
PATTERNS = _each('regular expressions', _is_pattern)

KERNELS = _one_of('gaussian_random', 'gaussian_norm', 'gaussian_zero', 'relu', 'none')
SCALES = _one_of('lab', 'published')

SECTIONS = {
    '': {
        'name': TEXT, 'seed': _whole(0, (1 << 32) - 1), 'scale_schedule': POSITIVE},
    'data': {
        'format': _key_of('data.formats', 'FORMATS'), 'subset': TEXT, 'graph': PATH, 'graph_classes': NAMES,
        'meta': PATH, 'parts_file': PATH, 'rename': PAIRS, 'min_box': NOT_NEGATIVE,
        'fusion': _one_of('none', 'majority', 'wbf'), 'fusion_iou': SHARE, 'classes': NAMES, 'parts': NAMES,
        'flip_pairs': PAIRS, 'repeat_threshold': SHARE,
        'canvas': _each('two whole numbers, height and width', _is_side, length=2),
        'scale': LENGTH, 'max_size': LENGTH, 'max_objects': LENGTH, 'mask_size': LENGTH, 'flip': SHARE,
        'scale_jitter': Rule('two numbers above 0, the smaller one first',
                             lambda v: _is_pair_of(_is_positive, _is_positive)(v) and v[0] <= v[1]),
        'brightness': SHARE, 'contrast': SHARE, 'gamma': NOT_NEGATIVE,
        'rotation': Rule('degrees from 0 to 180', lambda v: _is_number(v) and 0 <= v <= 180),
        'window': Rule('two percentages, the smaller one first',
                       lambda v: _is_pair_of(_is_number, _is_number)(v) and 0 <= v[0] < v[1] <= 100),
        'max_pixels': COUNT, 'exif': _one_of('auto', 'apply', 'ignore'), 'dicom_overrides': PATH, 'crowds': SWITCH,
        'allow_outside': SWITCH, 'check_geometry': SWITCH, 'max_unreadable': SHARE, 'max_dropped': SHARE,
        'cache': SWITCH, 'threads': COUNT_OR_NONE, 'prefetch': COUNT_OR_NONE},
    'data.train': {'annotations': PATH, 'images': PATH, 'max_images': COUNT_OR_NONE},
    'data.val': {'annotations': PATH, 'images': PATH, 'max_images': COUNT_OR_NONE},
    'data.split': {'by': TEXT, 'folds': _whole(2, 1 << 30, 'a whole number of 2 or more'), 'hold_out': COUNT_OR_NONE},
    'data.phantom': {'seed': COUNT_OR_NONE, 'ambiguity': SHARE, 'size': _whole(32, 1 << 15), 'train_images': COUNT,
                     'val_images': COUNT},
    'model': {
        'backbone': _key_of('models.backbones', 'BACKBONES'),
        'norm': _one_of('frozen_bn', 'group_norm', 'layer_norm'), 'stride_in_1x1': SWITCH,
        'frozen_stages': _whole(0, 5), 'remat': SWITCH,
        'pixel_mean': _each('three numbers', _is_number, length=3),
        'pixel_std': _each('three numbers above 0', _is_positive, length=3), 'dtype': _one_of('float32', 'bfloat16'),
        'fpn_channels': LENGTH, 'anchor_sizes': _each('sizes above 0, a number or several for each level', _is_size),
        'anchor_ratios': _each('numbers above 0', _is_positive), 'box_head_dim': LENGTH, 'box_dropout': BELOW_ONE,
        'mask_head': SWITCH, 'mask_channels': LENGTH, 'mask_convs': LENGTH_OR_NONE,
        'mask_pool': LENGTH, 'roi_aligned': SWITCH,
        'rpn_beta': NOT_NEGATIVE, 'box_beta': NOT_NEGATIVE, 'background_weight': NOT_NEGATIVE,
        'class_weights': _each('numbers of 0 or more', lambda v: _is_number(v) and v >= 0), 'focal_gamma': NOT_NEGATIVE,
        'neck': _one_of(*COARSEST), 'deformable': _one_of('', 'v1', 'v2'), 'cascade': _each('shares', _is_share),
        'cascade_weights': _each('numbers', _is_number), 'relations': NAMES, 'fusion': _one_of('cat', 'add'),
        'fusion_order': NAMES, 'relation_loss': _one_of('published', 'second_only'),
        'boxes_from': _one_of('second', 'first'), 'scores_from': _one_of('second', 'mean'),
        'relation_gt_boxes': SWITCH,
        'relation_stop_gradient': SWITCH, 'relation_detached': SWITCH,
        'parts': _one_of('given', 'predicted', 'given_or_predicted'), 'anatomy_head': SWITCH},
    'model.relation.class_': {'form': _one_of('published', 'early'), 'graph': SWITCH, 'attention': SWITCH,
                              'background': SWITCH, 'norm': SWITCH, 'reduction': LENGTH_OR_NONE},
    'model.relation.region': {'kernel': KERNELS, 'similarity': SWITCH},
    'model.relation.gaussian_mixture': {'neighbours': LENGTH},
    'model.relation.class_region': {'kernel': KERNELS, 'graph': SWITCH, 'attention': SWITCH, 'background': SWITCH,
                                    'reduction': LENGTH_OR_NONE},
    'model.relation.part': {'parts': ROWS, 'norm': SWITCH},
    'model.relation.context': {
        'parts': ROWS, 'grid': _each('two whole numbers, rows and columns', _is_row, length=2), 'window': SWITCH,
        'norm': SWITCH, 'scale': SCALES, 'features': LENGTH_OR_NONE},
    'model.relation.lung_feature': {'parts': ROWS, 'norm': SWITCH},
    'model.relation.object_attention': {'keys': LENGTH_OR_NONE, 'scale': SCALES},
    'model.relation.object_position': {'keys': LENGTH_OR_NONE, 'em_dim': LENGTH, 'features': LENGTH_OR_NONE},
    'model.relation.presence': {'features': LENGTH, 'iou': POSITIVE, 'keys': LENGTH_OR_NONE, 'graph': SWITCH,
                                'gradient': SWITCH, 'gt_boxes': SWITCH},
    'train': {
        'steps': COUNT, 'phases': _each('dicts, see training/phases.py', lambda v: isinstance(v, (dict, ConfigDict))),
        'batch_size': LENGTH, 'accumulate': LENGTH, 'optimizer': _one_of('sgd', 'adamw'), 'learning_rate': NOT_NEGATIVE,
        'base_batch_size': LENGTH, 'momentum': BELOW_ONE, 'weight_decay': NOT_NEGATIVE, 'bias_lr_factor': NOT_NEGATIVE,
        'lr_factors': _each('pairs of a regular expression and a factor', _is_pair_of(_is_pattern, _is_number)),
        'warmup_steps': COUNT_OR_NONE, 'warmup_factor': SHARE, 'schedule': _one_of('step', 'cosine'),
        'decay_at': _each('shares of train.steps', _is_share), 'decay_factor': NOT_NEGATIVE, 'clip_norm': NOT_NEGATIVE,
        'ema': BELOW_ONE, 'freeze': PATTERNS, 'init_from': PATH, 'plain_from': PATH, 'init_strict': SWITCH,
        'pre_nms': LENGTH, 'proposals': LENGTH, 'rpn_samples': LENGTH, 'rpn_positive': SHARE, 'rois': LENGTH,
        'roi_positive': SHARE, 'log_every': COUNT, 'eval_every': COUNT_OR_NONE, 'checkpoint_every': COUNT,
        'keep': COUNT, 'best': TEXT, 'allow_changed_data': SWITCH, 'parallel': _one_of('pmap', 'shard_map')},
    'test': {
        'batch_size': LENGTH, 'pre_nms': LENGTH, 'boxes': LENGTH, 'score_threshold': SHARE, 'nms': SHARE,
        'detections': LENGTH, 'mask_threshold': SHARE}}

RULES = {f'{section}.{key}'.lstrip('.'): rule for section, keys in SECTIONS.items() for key, rule in keys.items()}
PATHS = tuple(key for key, rule in RULES.items() if rule is PATH)


def value_of(config: ConfigDict, key: str) -> Any:
    """config[key] for a key such as 'train.steps'. Raises KeyError."""
    for name in key.split('.'):
        config = config[name]
    return config


def check(config: ConfigDict) -> None:
    """Raises UserError, naming the key, unless every key of configs/base.py is there and holds what its rule says."""
    for key, rule in RULES.items():
        try:
            value = value_of(config, key)
        except (KeyError, TypeError):
            raise UserError(f'config.{key} is missing: was this config made by another version?') from None
        if not rule.holds(value):
            _refuse(key, rule, value)

    coarsest = COARSEST[config.model.neck]
    if any(side % coarsest for side in config.data.canvas):
        raise UserError(f'config.data.canvas: expected multiples of {coarsest}, got {config.data.canvas}')
    folds, hold_out = config.data.split.folds, config.data.split.hold_out
    if hold_out >= folds:
        raise UserError(f'config.data.split.hold_out: expected a fold below data.split.folds = {folds}, got {hold_out}')
    for name in config.model.relations:
        known = importlib.import_module('relnet_jax.models.relations').RELATIONS
        if name not in known or config.model.relations.count(name) > 1:
            raise UserError(f"config.model.relations: expected different relations, got '{name}'"
                            f'{"" if name in known else hint(name, known)}')


def _refuse(key: str, rule: Rule, value: Any) -> None:
    expected, near = rule.expected, ''
    if rule.names:
        expected = f'one of {", ".join(map(repr, rule.names()))}'
        near = hint(str(value), rule.names(), all_known=False)
    raise UserError(f'config.{key}: expected {expected}, got {value!r}{near}')
