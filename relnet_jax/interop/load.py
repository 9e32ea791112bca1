"""Weights of other projects into parameters of `MaskRCNN`: all that fits, or an error that says what does not.

The model has five parts: backbone, fpn, rpn, box and mask heads. A part is loaded whole, kept at init whole, or left
out whole. A file that holds half of a part, or more of it than the model has, is taken for a mistake. The only
exception are the three layers that depend on the classes (class logits, boxes, mask logits): other names take their
rows by name, and another number without names keeps them at init.
"""
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from relnet_jax.errors import UserError
from relnet_jax.interop.coco_table import COCO
from relnet_jax.interop.families import LOGITS, Family, to_torchvision
from relnet_jax.interop.read import read_weights
from relnet_jax.interop.torchvision import CONVNEXT_STEM, RESNET_STEM, STEMS, from_state_dict
from relnet_jax.interop.torchvision_out import entries
from relnet_jax.models.backbones import convnext, resnet
from relnet_jax.models.class_rows import carry_over, namesakes, rows_of, what_differs
from relnet_jax.trees import compact

MODULES = {'backbone': 'backbone.body.', 'fpn': 'backbone.fpn.', 'rpn': 'rpn.', 'box head': 'roi_heads.box_',
         'mask head': 'roi_heads.mask_'}


class WeightsError(UserError):
    """Weights do not fit the model or its config."""


class Report(NamedTuple):
    """What became of each parameter. `loaded`, `kept`: our paths; `unused`: the file's names, in torchvision's form."""
    source: str
    loaded: tuple[str, ...]
    kept: tuple[str, ...]       # at their initial value
    unused: tuple[str, ...]
    classes: dict[str, list[str]]       # 'taken by name', 'new' and 'left out' -> names; {} where rows went in order
    notes: tuple[str, ...]

    def __str__(self) -> str:
        everything = {*self.loaded, *self.kept}
        lines = [f"weights from '{self.source}'"]
        for title, names, short in (('loaded', self.loaded, compact(set(self.loaded), everything)),
                                    ('kept at init', self.kept, compact(set(self.kept), everything)),
                                    ('unused', self.unused, list(self.unused))):
            lines += [f'  {title}: {len(names)}', *(f'    {name}' for name in short[:12])]
            lines += [f'    ... ({len(short)} lines)'] if len(short) > 12 else []
        for title, names in self.classes.items():
            lines += [f'  classes {title}: {len(names)}', *([f'    {", ".join(names[:12])}'] if names else [])]
        return '\n'.join([*lines, *(f'  note: {note}' for note in self.notes)])

    @property
    def complete(self) -> bool:
        """Nothing stays at init, nothing of the file is unused."""
        return not (self.kept or self.unused or self.classes.get('new') or self.classes.get('left out'))


def read_family(path: str | Path) -> tuple[dict[str, np.ndarray], Family]:
    """`families.to_torchvision` of a file; ValueError names the file."""
    weights = read_weights(path)
    try:
        return to_torchvision(weights)
    except ValueError as error:
        raise WeightsError(f'{path}: {error}') from error


def load_weights(path: str | Path, params_template: Any, config: ConfigDict,
                 classes: Sequence[str] = ()) -> tuple[Any, Report]:
    """(parameters, what became of each). `path` as for `read.read_weights`.

    `params_template`: nested dicts of arrays, from which comes what the file does not have. The returned tree has its
    structure, with float32 numpy arrays where loaded. The input of the network is adapted exactly: channel order and
    config.model.pixel_std go into the first convolution. `classes`: names of the model's, without background; where
    those of the file are known and others, what belongs to a class is taken by its name (and what belongs to a new one
    stays as in the template); without them, in order.
    Raises WeightsError (a ValueError) listing what should fit and does not, and which config keys the weights ask for.
    """
    state, family = read_family(path)
    named, without = entries(params_template)
    wanted = {name: value.shape for name, (_, value) in named.items()}
    _check_config(path, config, family, state)
    notes = [f'names of {family.name}'] + _adapt_input(state, family, config)
    state, differ, more = _fit_classes(state, named, family.classes, tuple(classes))
    _check_parts(path, state, wanted, skip=_per_class(named).keys() if LOGITS not in state else ())

    taken = {name for name in state if name in wanted}
    filled = {name: state[name] if name in taken else value for name, (_, value) in named.items()}
    loaded = {named[name][0] for name in taken}
    known = {ours for ours, _ in named.values()}
    tree = from_state_dict(filled, _subtree(params_template, known))
    report = Report(str(path), tuple(sorted(loaded)), tuple(sorted((known - loaded) | set(without))),
                    tuple(sorted(set(state) - taken)), differ, tuple(notes + more + _hints(family, config, loaded)))
    return _merge(params_template, tree, loaded), report


def start_from_weights(params: Any, path: str | Path, config: ConfigDict, classes: Sequence[str]) -> Any:
    """`load_weights` for the start of a run: logs the report. Raises WeightsError also where config.train.init_strict
    is set and anything stays at init or unused."""
    params, report = load_weights(path, params, config, classes)
    if config.train.init_strict and not report.complete:
        raise WeightsError(f'config.train.init_strict: the file and this model differ\n{report}')
    logging.info('%s', report)
    return params


def adjusted(config: ConfigDict, path: str | Path) -> tuple[ConfigDict, int, tuple[str, ...]]:
    """(copy of `config` with the keys the weights at `path` ask for, number of their outputs with background, 0 without
    class logits; names of the classes, without those that have none, () where unknown)."""
    state, family = read_family(path)
    fitted = ConfigDict(config.to_dict())
    fitted.model.update(backbone=_backbone(path, state), pixel_mean=family.pixel_mean,
                        stride_in_1x1=_strided_1x1(state, family))
    if RESNET_STEM in state:
        fitted.model.norm = 'frozen_bn'
    elif LOGITS in state or config.model.norm != 'group_norm':      # a ConvNeXt alone leaves neck and heads open
        fitted.model.norm = 'layer_norm'
    if LOGITS in state:
        fitted.model.roi_aligned = family.roi_aligned
        fitted.model.mask_head = any(name.startswith(MODULES['mask head']) for name in state)
    names = tuple(name for name in family.classes if name)
    return fitted.lock(), len(names) + 1 if names else state[LOGITS].shape[0] if LOGITS in state else 0, names


def _backbone(path: str | Path, state: dict) -> str:
    """Name in config.model.backbone of the body whose weights `state` holds."""
    def blocks(*stages: str) -> tuple[int, ...]:
        return tuple(len({name.split('.')[3] for name in state if name.startswith(f'backbone.body.{stage}.')})
                     for stage in stages)

    if CONVNEXT_STEM in state:
        kind, layouts = 'ConvNeXt', convnext.LAYOUTS
        found = blocks('1', '3', '5', '7')
        layout = [name for name, known in layouts.items()
                  if (known.blocks, known.widths[:1]) == (found, state[CONVNEXT_STEM].shape[:1])]
    else:
        bottleneck = 'backbone.body.layer1.0.conv3.weight' in state
        kind, layouts = 'bottleneck' if bottleneck else 'basic', resnet.LAYOUTS
        found = blocks('layer1', 'layer2', 'layer3', 'layer4')
        layout = [name for name, known in layouts.items()
                  if name != 'tiny' and (known.bottleneck, known.blocks) == (bottleneck, found)]
    if not layout:
        raise WeightsError(f'{path}: a body of {found} {kind} blocks is none of ' + ', '.join(layouts))
    return layout[0]


def _strided_1x1(state: dict, family: Family) -> bool:
    return family.stride_in_1x1 and 'backbone.body.layer1.0.conv3.weight' in state  # basic blocks have no 1x1


def _check_config(path, config: ConfigDict, family: Family, state: dict) -> None:
    m, wrong = config.model, []
    if m.norm != 'frozen_bn' and RESNET_STEM in state:
        wrong.append(f"config.model.norm='frozen_bn' (here '{m.norm}'): the weights come with batch norm")
    stride = _strided_1x1(state, family)
    if bool(m.stride_in_1x1) != stride and 'backbone.body.layer1.0.conv3.weight' in state:
        wrong.append(f'config.model.stride_in_1x1={stride} (here {m.stride_in_1x1})')
    if not np.allclose(m.pixel_mean, family.pixel_mean, rtol=0, atol=1e-3):
        # A difference of means is a constant input, which the zero padding of the first convolution breaks at the edge.
        wrong.append(f'config.model.pixel_mean={tuple(family.pixel_mean)} (here {tuple(m.pixel_mean)})')
    if wrong:
        raise WeightsError(f'{path}: weights of {family.name} need ' + '; '.join(wrong))


def _adapt_input(state: dict, family: Family, config: ConfigDict) -> list[str]:
    """First convolution to RGB and config.model.pixel_std: conv(W, x) = conv(W std / std_file, x std_file / std)."""
    stem = next(name for name in STEMS if name in state)
    notes, kernel = [], state[stem]
    if kernel.ndim != 4 or kernel.shape[1] != 3:
        raise WeightsError(f'{stem}: expected [out, 3, k, k], got {list(kernel.shape)}')
    if family.bgr:
        kernel = kernel[:, ::-1]
        notes.append('first convolution turned from BGR to RGB')
    if tuple(config.model.pixel_std) != family.pixel_std:
        factor = np.asarray(config.model.pixel_std, np.float64) / np.asarray(family.pixel_std)
        kernel = (kernel * factor[None, :, None, None]).astype(np.float32)
        notes.append(f'pixel_std {tuple(config.model.pixel_std)} folded into the first convolution (the file: '
                     f'{family.pixel_std})')
    state[stem] = kernel
    return notes


def _fit_classes(state: dict, named: dict, theirs: tuple[str, ...],
                 classes: tuple[str, ...]) -> tuple[dict, dict[str, list[str]], list[str]]:
    """(`state` with the rows of the class-dependent layers as the model has them, or without these layers where that
    cannot be; how the classes differ, where rows went by name; notes). `theirs`, `classes`: names, () where unknown."""
    if LOGITS not in state or LOGITS not in named:
        return state, {}, []
    got, expected = state[LOGITS].shape[0], named[LOGITS][1].shape[0]
    if len(theirs) == 90 and expected == len(COCO) + 1:
        classes = classes or tuple(COCO.values())
    if got == expected and (theirs == classes or not (theirs and classes)):
        note = f'the file does not name its classes: its {got} rows are taken in order, background first'
        return state, {}, [note] if classes and not theirs else []
    names, others = ('background', *classes), ('background', *theirs)
    same, per_class = namesakes(names, others), _per_class(named)
    if len(same) < 2:
        left = {name: value for name, value in state.items() if name not in per_class}
        why = ("none of the file's classes is one of the model's" if classes and theirs else
               f'the file has {got} classes with background, the model {expected}')
        return left, {}, [f'{why}: class logits, box and mask outputs kept at init']
    state = dict(state)
    for name in per_class.keys() & state.keys():
        rows, initial = per_class[name] * got, named[name][1]
        if state[name].shape == (rows, *initial.shape[1:]):     # else `_check_parts` says so
            state[name] = np.moveaxis(carry_over(np.moveaxis(initial, 0, -1), np.moveaxis(state[name], 0, -1), same,
                                                 numbers=per_class[name]), -1, 0)
    return state, what_differs(names, others, same), []


def _per_class(named: dict) -> dict[str, int]:
    """Name in the state dict -> numbers of each class in it, of the layers that depend on the classes."""
    found = {name: rows_of(ours) for name, (ours, _) in named.items()}
    return {name: rows.numbers for name, rows in found.items() if rows and rows.kind == 'classes'}


def _part(name: str) -> str | None:
    return next((part for part, prefix in MODULES.items() if name.startswith(prefix)), None)


def _check_parts(path, state: dict, wanted: dict, skip: tuple[str, ...]) -> None:
    """A part in the file and in the model must be the same in both; WeightsError lists every difference."""
    shared = {_part(name) for name in state} & {_part(name) for name in wanted} - {None}
    problems = []
    for name in sorted(state.keys() | wanted.keys()):
        if _part(name) not in shared or name in skip:
            continue
        got = state[name].shape if name in state else 'nothing'
        expected = wanted.get(name, 'nothing')
        if got != expected:
            problems.append(f'{name}: expected {expected}, got {got}')
    if not shared:
        raise WeightsError(f'{path}: no part of the model ({", ".join(MODULES)}) is in the file')
    if problems:
        raise WeightsError(f'{path}: {len(problems)} arrays do not fit the model:\n  ' + '\n  '.join(problems[:10])
                           + ('\n  ...' if len(problems) > 10 else ''))


def _hints(family: Family, config: ConfigDict, loaded: set[str]) -> list[str]:
    if not any(path.startswith('box_head/') for path in loaded):
        return []
    hints = []
    if family.roi_aligned != bool(config.model.roi_aligned):
        hints.append(f'the heads were trained with config.model.roi_aligned={family.roi_aligned}, here '
                     f'{config.model.roi_aligned}: boxes shift by half a cell')
    if family.name.startswith('Detectron'):
        hints.append('Detectron2 does not round its anchors to whole pixels, and Detectron counts the last pixel of a '
                     'box: detections differ slightly from theirs')
    return hints


def _subtree(tree: Any, paths: set[str], prefix: str = '') -> dict:
    """The part of nested dicts that leads to `paths`."""
    found = {}
    for key, value in tree.items():
        path = f'{prefix}{key}'
        if isinstance(value, dict):
            if below := _subtree(value, paths, f'{path}/'):
                found[key] = below
        elif path in paths:
            found[key] = value
    return found


def _merge(tree: Any, new: dict, loaded: set[str], prefix: str = '') -> dict:
    """`tree` with the leaves in `loaded` from `new`; the others stay the very same arrays."""
    return {key: _merge(value, new.get(key, {}), loaded, f'{prefix}{key}/') if isinstance(value, dict)
            else new[key] if f'{prefix}{key}' in loaded else value for key, value in tree.items()}
