"""Starting from the parameters of another run: take what fits, and say what was taken, is new, or was left out."""
from typing import Any

import jax
import numpy as np
from absl import logging

from relnet_jax.models.class_rows import carry_over, carry_over_rows, namesakes, row_names, rows_of, what_differs
from relnet_jax.runs.checkpoint import CheckpointError, load_params, read_class_table
from relnet_jax.trees import compact, path_name


def start_from_run(params: Any, ckpt: str, *, class_table: dict, strict: bool) -> Any:
    """`params` with every parameter replaced that the checkpoint holds under the same path and in the same shape.

    `ckpt` as for `checkpoint.find`; averaged parameters where that run kept an average. Where the classes or parts of
    that run are others than those of `class_table`, or in another order, what belongs to one is taken by its name; one
    without a namesake there stays as drawn. Logs three lists: loaded; new (kept at their initial value); left out
    (stored, but not used); and the same of classes and parts, where they differ. The type of each leaf stays.
    Raises CheckpointError if nothing fits, and with `strict` (config.train.init_strict) if anything is new or left out.
    """
    def flat(tree):
        return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

    have, stored, other = flat(params), flat(load_params(ckpt)), read_class_table(ckpt)
    stored, rows = _by_name(have, stored, class_table, other)
    loaded = {k for k in have.keys() & stored.keys() if have[k].shape == stored[k].shape}
    misfits = sorted((have.keys() & stored.keys()) - loaded)
    everything = have.keys() | stored.keys()
    lists = {'loaded': loaded, 'new (kept at init)': have.keys() - loaded, 'left out': stored.keys() - loaded}
    text = '\n'.join(f'  {title}: {len(names)}' + ''.join(f'\n    {line}' for line in compact(names, everything))
                     for title, names in lists.items())
    text += ''.join(f'\n  shape of {k}: {have[k].shape} here, {stored[k].shape} in the checkpoint' for k in misfits)
    text += ''.join(f'\n  {kind} {title}: {", ".join(names) or "none"}'
                    for kind, titles in rows.items() for title, names in titles.items())
    if tuple(class_table['parts']) != other['parts'] and any(k.startswith('relation_head/part/') for k in loaded):
        text += '\n  relation_head/part, and the predictor that reads it, keep the order of parts of the checkpoint'
    if not loaded:
        raise CheckpointError(f"no parameter of '{ckpt}' fits this model\n{text}")
    if strict and (len(loaded) < len(have) or len(loaded) < len(stored)
                   or any(titles['new'] or titles['left out'] for titles in rows.values())):
        raise CheckpointError(f"config.train.init_strict: '{ckpt}' and this model differ\n{text}")
    logging.info("parameters from '%s'\n%s", ckpt, text)
    flat_new = [np.asarray(stored[k], leaf.dtype) if k in loaded else leaf for k, leaf in have.items()]
    return jax.tree.unflatten(jax.tree.structure(params), flat_new)


def _by_name(have: dict, stored: dict, table: dict, other: dict) -> tuple[dict, dict[str, dict[str, list[str]]]]:
    """`stored` with the rows of classes and parts where `have` has them; and, where these differ, which: kind -> title
    -> names."""
    stored, differ = dict(stored), {}
    for kind in ('classes', 'parts'):
        names, others = row_names(table, kind), row_names(other, kind)
        paths = {path: rows.numbers for path in have.keys() & stored.keys()
                 if (rows := rows_of(path)) and rows.kind == kind and _alike(have[path], stored[path], rows.numbers,
                                                                             len(names), len(others))}
        if names == others or not paths:
            continue
        same = namesakes(names, others)
        for path, numbers in paths.items():
            initial = np.asarray(have[path])
            stored[path] = (carry_over(initial, stored[path], same, numbers=numbers) if numbers else
                            carry_over_rows(initial, stored[path], same, classes=len(names), others=len(others)))
        differ[kind] = what_differs(names, others, same)
    return stored, differ


def _alike(new: Any, old: Any, numbers: int, classes: int, others: int) -> bool:
    """Whether two arrays differ in nothing but the number of classes or parts, see `class_rows.Rows`."""
    if numbers:
        return new.shape[:-1] == old.shape[:-1]
    return new.shape[1:] == old.shape[1:] and len(new) * (others - 1) == len(old) * (classes - 1)
