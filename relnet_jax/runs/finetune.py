"""Starting from the parameters of another run: take what fits, and say what was taken, is new, or was left out."""
from typing import Any

import jax
import numpy as np
from absl import logging

from relnet_jax.runs.checkpoint import CheckpointError, load_params
from relnet_jax.trees import compact, path_name


def init_from(params: Any, ckpt: str, *, strict: bool) -> Any:
    """`params` with every parameter replaced that the checkpoint holds under the same path and in the same shape.

    `ckpt` as for `checkpoint.find`; averaged parameters where that run kept an average. Logs three lists: loaded; new
    (kept at their initial value); left out (stored, but not used). The type of each leaf stays.
    Raises CheckpointError if nothing fits, and with `strict` (config.train.init_strict) if anything is new or left out.
    """
    def flat(tree):
        return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

    have, stored = flat(params), flat(load_params(ckpt))
    loaded = {k for k in have.keys() & stored.keys() if have[k].shape == stored[k].shape}
    misfits = sorted((have.keys() & stored.keys()) - loaded)
    everything = have.keys() | stored.keys()
    lists = {'loaded': loaded, 'new (kept at init)': have.keys() - loaded, 'left out': stored.keys() - loaded}
    text = '\n'.join(f'  {title}: {len(names)}' + ''.join(f'\n    {line}' for line in compact(names, everything))
                     for title, names in lists.items())
    text += ''.join(f'\n  shape of {k}: {have[k].shape} here, {stored[k].shape} in the checkpoint' for k in misfits)
    if not loaded:
        raise CheckpointError(f"no parameter of '{ckpt}' fits this model\n{text}")
    if strict and (len(loaded) < len(have) or len(loaded) < len(stored)):
        raise CheckpointError(f"config.train.init_strict: '{ckpt}' and this model differ\n{text}")
    logging.info("parameters from '%s'\n%s", ckpt, text)
    flat_new = [np.asarray(stored[k], leaf.dtype) if k in loaded else leaf for k, leaf in have.items()]
    return jax.tree.unflatten(jax.tree.structure(params), flat_new)
