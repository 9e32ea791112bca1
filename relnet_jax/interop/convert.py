"""Convert weights: python -m relnet_jax.interop.convert IN OUT [--config=configs/coco.py] [--config.KEY=VALUE ...]

IN a file of torchvision, timm, Detectron or Detectron2 (.pth, .safetensors, .pkl): OUT becomes the folder of a
checkpoint, for `config.train.init_from`, eval.py and prediction. The config keys that the weights ask for are set and
printed.
IN a checkpoint of ours: OUT, a .safetensors file, gets its Mask R-CNN under torchvision's names.
Installed, the command is relnet-convert.
"""
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from absl.flags import FlagValues
from ml_collections import ConfigDict

from relnet_jax import cli
from relnet_jax import config as config_lib
from relnet_jax.errors import UserError
from relnet_jax.interop.coco_table import COCO
from relnet_jax.interop.families import IMAGENET_MEAN, IMAGENET_STD
from relnet_jax.interop.load import WeightsError, adjusted, load_weights
from relnet_jax.interop.read import write_safetensors
from relnet_jax.interop.torchvision_out import to_state_dict
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import checkpoint, state
from relnet_jax.trees import path_name


def class_table(config: ConfigDict, outputs: int, known: tuple[str, ...] = ()) -> dict:
    """Class table for so many outputs with background (0: none in the file): config.data.classes where it agrees; or
    the names that are `known` of the file, COCO's categories for no outputs, numbered names otherwise."""
    names = tuple(config.data.classes)
    if not names or (outputs and len(names) != outputs - 1):
        names = known or (tuple(f'class_{i}' for i in range(1, outputs)) if outputs else tuple(COCO.values()))
    ids = tuple(COCO) if names == tuple(COCO.values()) else tuple(range(1, len(names) + 1))
    return dict(classes=names, category_ids=ids, parts=tuple(config.data.parts))


def weights_in(source: str | Path, out: str | Path, config: ConfigDict) -> str:
    """Writes the checkpoint OUT/checkpoints/0; returns the report. Raises what `load_weights` raises, and UserError
    if OUT has checkpoints already."""
    if checkpoint.steps(out):
        raise UserError(f"'{out}' already holds checkpoints; give a new folder")
    fitted, outputs, known = adjusted(config, source)
    table = class_table(fitted, outputs, known)
    model = mask_rcnn.build(fitted, num_classes=len(table['classes']) + 1)
    shapes = state.batch_shapes(fitted, 1, len(table['parts']))
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state.abstract_params(model, shapes))
    params, report = load_weights(source, blank, fitted)
    if report.kept:
        params = initialised(params, report.kept, lambda key: state.init_params(model, shapes, key), seed=fitted.seed)
    checkpoint.save_model(out, params, config=fitted, class_table=table)
    changed = [f'  set config.model.{key} = {value}' for key, value in fitted.model.items()
               if value != config.model[key]]
    classes = f'  {len(table["classes"])} classes: {", ".join(table["classes"][:3])}, ...'
    return '\n'.join([str(report), *changed, classes, f"written: '{out}'"])


def initialised(params: Any, names: tuple[str, ...], init: Callable[[Any], Any], *, seed: int) -> Any:
    """`params` with the parameters called `names` as init(key of seed) draws them. Only those are compiled, since
    a whole detector takes a minute on a small machine."""
    def draw(key):
        return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(init(key))
                if path_name(path) in names}
    drawn = jax.device_get(jax.jit(draw)(jax.random.key(seed)))
    return jax.tree_util.tree_map_with_path(lambda path, leaf: drawn.get(path_name(path), leaf), params)


def weights_out(ckpt: str | Path, out: str | Path) -> str:
    """Writes the parameters of our checkpoint as torchvision's state dict (.safetensors); returns the report.

    The file's metadata holds config and class table as JSON. Raises ValueError for a model torchvision does not have.
    """
    params, config = checkpoint.load_params(ckpt), checkpoint.read_config(ckpt)
    if config.model.norm == 'group_norm':
        raise WeightsError("config.model.norm='group_norm': torchvision's model has batch norm ('frozen_bn')")
    converted = to_state_dict(params)
    classes = checkpoint.read_class_table(ckpt)['classes']
    write_safetensors(out, converted, {'config': config_lib.to_json(config), 'classes': json.dumps(classes)})
    defaults = dict(roi_aligned=False, stride_in_1x1=False, pixel_mean=IMAGENET_MEAN, pixel_std=IMAGENET_STD)
    differs = [f"  torchvision's model needs to be changed for this: config.model.{key} = {config.model[key]}"
               for key, default in defaults.items() if config.model[key] != default]
    summary = f'{len(converted)} arrays, {len(classes) + 1} classes with background'
    return '\n'.join([summary, *differs, f"written: '{out}'"])


def define(values: FlagValues) -> None:
    cli.define_config(values, 'coco')


def command(call: cli.Call) -> None:
    source, out = map(os.path.expanduser, call.words)
    logging.set_verbosity(logging.WARNING)     # Orbax tells every step of its saving
    config = cli.config_of(call)
    if Path(source).is_file() and not out.endswith('.safetensors'):
        print(weights_in(source, out, config))
    elif not Path(source).is_file() and out.endswith('.safetensors'):
        print(weights_out(source, out))
    else:
        raise UserError('either IN is a file of weights and OUT a folder, or IN one of our checkpoints and OUT a '
                        f".safetensors file; got '{source}' and '{out}'")


def main(argv: list[str] | None = None) -> int:
    return cli.run('convert', __doc__, define, command, argv, words=('IN', 'OUT'))


if __name__ == '__main__':
    sys.exit(main())
