"""Starting from the parameters of another run: take what fits, and say what was taken, is new, or was left out."""
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from relnet_jax.models.class_rows import carry_over, namesakes, numbers_per_class
from relnet_jax.runs.checkpoint import CheckpointError, load_params, read_class_table
from relnet_jax.trees import compact, path_name


def start_from_run(params: Any, ckpt: str, *, classes: Sequence[str], strict: bool) -> Any:
    """`params` with every parameter replaced that the checkpoint holds under the same path and in the same shape.

    `ckpt` as for `checkpoint.find`; averaged parameters where that run kept an average. What belongs to a class is
    taken by its name among the `classes` of this run, where those of the other run are others or in another order: a
    class without a namesake there stays as drawn. Logs three lists: loaded; new (kept at their initial value); left out
    (stored, but not used); and the classes, if they differ. The type of each leaf stays.
    Raises CheckpointError if nothing fits, and with `strict` (config.train.init_strict) if anything is new or left out.
    """
    def flat(tree):
        return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

    have, stored = flat(params), flat(load_params(ckpt))
    others = tuple(read_class_table(ckpt)['classes'])
    differ = tuple(classes) != others
    if differ:
        same = namesakes(classes, others)
        for name in have.keys() & stored.keys():
            numbers = numbers_per_class(name)
            if numbers and have[name].shape[:-1] == stored[name].shape[:-1]:
                stored[name] = carry_over(np.asarray(have[name]), stored[name], same, numbers=numbers)
    loaded = {k for k in have.keys() & stored.keys() if have[k].shape == stored[k].shape}
    misfits = sorted((have.keys() & stored.keys()) - loaded)
    everything = have.keys() | stored.keys()
    lists = {'loaded': loaded, 'new (kept at init)': have.keys() - loaded, 'left out': stored.keys() - loaded}
    text = '\n'.join(f'  {title}: {len(names)}' + ''.join(f'\n    {line}' for line in compact(names, everything))
                     for title, names in lists.items())
    text += ''.join(f'\n  shape of {k}: {have[k].shape} here, {stored[k].shape} in the checkpoint' for k in misfits)
    text += _classes_text(classes, others, same) if differ else ''
    if not loaded:
        raise CheckpointError(f"no parameter of '{ckpt}' fits this model\n{text}")
    if strict and (len(loaded) < len(have) or len(loaded) < len(stored) or differ):
        raise CheckpointError(f"config.train.init_strict: '{ckpt}' and this model differ\n{text}")
    logging.info("parameters from '%s'\n%s", ckpt, text)
    flat_new = [np.asarray(stored[k], leaf.dtype) if k in loaded else leaf for k, leaf in have.items()]
    return jax.tree.unflatten(jax.tree.structure(params), flat_new)


def _classes_text(classes: Sequence[str], others: Sequence[str], same: dict[int, int]) -> str:
    taken = [name for label, name in enumerate(classes, start=1) if label in same]
    new = [name for label, name in enumerate(classes, start=1) if label not in same]
    left = [name for label, name in enumerate(others, start=1) if label not in same.values()]
    return ''.join(f'\n  {title}: {", ".join(names) or "none"}' for title, names in (
        ('classes taken by name', taken), ('classes that are new', new), ('classes left out', left)))
