"""Which class, part or region spoke for a detection: the relations' own weights, sown under 'intermediates'.

`make_observer` gives a function that runs the detector on one image and keeps what the relations were given and what
they weighed; `evidence` ranks that for one detection. A weight says where a feature came from, not that the result
would have been another without it.
"""
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax.data import pipeline
from relnet_jax.data.source import Source, subset
from relnet_jax.detector.devices import on_first
from relnet_jax.detector.second_pass import Kept, make_second_pass
from relnet_jax.models.box_head import BoxPredictor
from relnet_jax.models.relation_head import RelationHead
from relnet_jax.models.relations import RelationContext
from relnet_jax.models.relations.attention import best_rois
from relnet_jax.types import Array, Batch, Detections

TITLES = {'class_attention': 'classes the image asks for', 'class_to_class': 'classes whose features it got',
          'box_to_part': 'parts it looked at', 'box_to_box': 'regions it looked at',
          'presence': 'what was found elsewhere'}
CLOSE = 1e-3    # largest difference between a detection's score and that of its RoI, which are computed apart
EQUAL = 1e-6    # scores no farther apart are the same


class Observation(NamedTuple):
    """One image as the detector saw it; numpy, boxes in canvas pixels, B = 1 where it stands."""
    image: Array                # uint8 [h, w, 3] the true image at the detector's resolution
    original_size: Array        # float32 [2] (height, width) of the image itself
    detections: Detections      # the D valid rows, without B
    scores: Array               # float32 [passes, N, K] class probabilities of every predictor, and their mean
    weights: dict               # (path of the module, name) -> sown array [B, ...]
    contexts: dict              # path of the module -> the RelationContext it was given, with B
    options: dict               # path of the module -> dict(parts, grid, keys, needs), its fields so named, or None
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    head: str                   # path of the module that makes the second pass; '' without one
    second_pass: Callable | None    # (`Kept` by relation, RoI) -> the detector's class probabilities [R, K] of that RoI


class Evidence(NamedTuple):
    """What one relation weighed for one detection, heaviest first."""
    relation: str               # path of the module
    title: str
    names: tuple[str, ...]
    shares: Array               # float [n], above 0 to 1, of all weights of this detection, also of those left out
    boxes: Array | None         # float32 [n, 4] canvas pixels, for parts and regions


# ---- seeing ----
def watch(relation: Callable, predictor: Callable):
    """Context manager within which every call of a relation module and of a box predictor is also shown to a function:
    relation(path of the module, module, RelationContext, result), predictor(path, features [B, N, in], result)."""
    def note(call, args, kwargs, about):
        out = call(*args, **kwargs)
        if about.method_name == '__call__' and args:
            path = '/'.join(about.module.path)
            if isinstance(args[0], RelationContext):
                relation(path, about.module, args[0], out)
            elif isinstance(about.module, BoxPredictor):
                predictor(path, args[0], out)
        return out
    return nn.intercept_methods(note)


def make_observer(model, config) -> Callable[[Any, Source, int], Observation]:
    """Function (params, source, index in `source`) -> Observation; `model` as of `mask_rcnn.build`. Compiled once, and
    so is the second pass without some of its inputs when it is first asked for."""
    options, heads = {}, {}

    def run(params, batch: Batch):
        contexts, scores = {}, []

        def relation(path, module, context, out):
            contexts.setdefault(path, context._replace(dropout_keys=None))      # the first call, as of what is sown
            options[path] = {name: getattr(module, name, None) for name in ('parts', 'grid', 'keys', 'needs')}
            if isinstance(module, RelationHead):
                heads[path] = make_second_pass(module.clone(parent=None, name=None))

        with watch(relation, lambda path, features, out: scores.append(nn.softmax(out[0]))):
            detections, variables = model.apply({'params': params}, batch.image, batch.image_size, batch.part_boxes,
                                                batch.part_valid, method='detect', mutable=['intermediates'])
        return detections, variables.get('intermediates', {}), contexts, jnp.stack([*scores, sum(scores) / len(scores)])

    compiled = jax.jit(run)     # of one image: on one device

    def observe(params: Any, source: Source, index: int) -> Observation:
        params = on_first(params)
        batch = next(pipeline.eval_batches(subset(source, [index], name=source.name), config, 1))
        detections, sown, contexts, scores = jax.device_get(compiled(params, batch))
        height, width = batch.image_size[0].astype(int)
        kept = detections.valid[0]
        head, again = next(iter(heads.items()), ('', None))
        if again is not None:
            inside = {path[len(head) + 1:]: c for path, c in contexts.items() if f'{path}/'.startswith(f'{head}/')}
            again = functools.partial(again, params[head], inside)
            if config.model.scores_from == 'mean':
                again = functools.partial(mean_with, again, scores[:-2, 0])
        return Observation(batch.image[0, :height, :width], batch.original_size[0],
                           Detections(*(x[0][kept] for x in detections)), scores[:, 0], dict(_leaves(sown)), contexts,
                           options, source.classes, source.parts, head, again)
    return observe


def mean_with(second_pass: Callable, others: Array, kept: Mapping[str, Kept], roi: int) -> Array:
    """What `second_pass` gives, in the mean with the class probabilities [passes, N, K] of the other predictors."""
    return (others[:, roi].sum(0) + second_pass(kept, roi)) / (len(others) + 1)


def _leaves(tree: dict, path: tuple = ()) -> Iterator:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield ('/'.join(path), name), value[0]      # sow keeps a tuple, one entry per call


def roi_of(seen: Observation, detection: int) -> int:
    """The RoI that became a detection: the one with its score for its class, and of equal ones the nearest by box.

    Raises ValueError if none has the score, or if no relation saw the RoIs.
    """
    if not seen.contexts:
        raise ValueError('the detector has no relations, which alone know where the RoIs lie')
    box, label, score = (x[detection] for x in (seen.detections.boxes, seen.detections.labels, seen.detections.scores))
    difference = np.abs(seen.scores[:, :, label] - score).min(0)
    if difference.min() > CLOSE:
        raise ValueError(f'detection {detection}: no RoI has its score {score:.4f}, the nearest is '
                         f'{difference.min():.4f} away')
    rois = list(seen.contexts.values())[-1].boxes[0]
    candidates = np.flatnonzero(difference <= difference.min() + EQUAL)
    return int(candidates[np.abs(rois[candidates] - box).sum(-1).argmin()])


# ---- ranking ----
def evidence(seen: Observation, detection: int, *, top: int = 5) -> list[Evidence]:
    """What every relation with weights weighed for one detection; empty for a detector without such relations."""
    if not seen.contexts:
        return []
    roi, found = roi_of(seen, detection), []
    for (path, kind), weights in seen.weights.items():
        if kind in TITLES:
            names, values, boxes = _KINDS[kind](seen, path, weights[0], roi)
            # No weight is negative, and what has none said nothing.
            order = np.argsort(-values, kind='stable')[:min(top, np.count_nonzero(values))]
            shares = values / max(values.sum(), np.finfo(np.float32).tiny)
            found.append(Evidence(path, TITLES[kind], tuple(names[i] for i in order), shares[order],
                               None if boxes is None else boxes[order]))
    return found


def _class_names(seen: Observation, count: int) -> list[str]:
    """Of all classes, or of all but the background."""
    return ['background', *seen.classes][len(seen.classes) + 1 - count:]


def _class_attention(seen: Observation, path: str, weights: Array, roi: int) -> tuple:
    """weights [J]."""
    return _class_names(seen, len(weights)), weights, None


def _class_to_class(seen: Observation, path: str, weights: Array, roi: int) -> tuple:
    """weights [J, J]: message of class i from class j. A RoI gets the messages by its first-pass probabilities."""
    probabilities = np.asarray(nn.softmax(seen.contexts[path].class_logits[0, roi]))[-len(weights):]
    return _class_names(seen, len(weights)), probabilities @ weights, None


def part_names(seen: Observation, path: str) -> tuple[list[int], list[str]]:
    """Rows of a relation's part boxes that it looks at, and their names; cells of a grid are numbered."""
    options, count = seen.options[path], seen.contexts[path].part_boxes.shape[1]
    if any(options['grid'] or ()):
        return list(range(count)), [f'cell {i}' for i in range(1, count + 1)]
    rows = list(options['parts'] or range(count))
    return rows, [seen.parts[row] for row in rows]


def _box_to_part(seen: Observation, path: str, weights: Array, roi: int) -> tuple:
    """weights [heads, N, Q] of parts, or of the cells of a grid within them."""
    rows, names = part_names(seen, path)
    return names, weights.mean(0)[roi], seen.contexts[path].part_boxes[0][rows]


def _box_to_box(seen: Observation, path: str, weights: Array, roi: int) -> tuple:
    """weights [N, N], or [heads, N, keys] of which the keys may be the best RoIs only."""
    context, keys = seen.contexts[path], seen.options[path]['keys']
    weights = weights.mean(0) if weights.ndim == 3 else weights
    rows = np.arange(weights.shape[-1])
    if keys and keys < context.boxes.shape[1]:
        rows = np.asarray(best_rois(context, keys, foreground_first=False)[0])[0]
    scores = np.asarray(nn.softmax(context.class_logits[0]))[:, 1:]
    classes = seen.classes if scores.shape[1] == len(seen.classes) else ('region',)   # within the box head: objectness
    names = [f'{classes[scores[r].argmax()]} {scores[r].max():.2f}' for r in rows]
    return names, weights[roi], context.boxes[0][rows]


def _presence(seen: Observation, path: str, weights: Array, roi: int) -> tuple:
    """weights [N, K - 1]: the highest probability of each class elsewhere, and beside it the RoI that has it."""
    where = seen.weights[path, 'presence_roi'][0, roi]
    names = [f'{name} {value:.2f}' for name, value in zip(seen.classes, weights[roi])]
    return names, weights[roi], seen.contexts[path].boxes[0][where]


_KINDS = {'class_attention': _class_attention, 'class_to_class': _class_to_class, 'box_to_part': _box_to_part,
          'box_to_box': _box_to_box, 'presence': _presence}
