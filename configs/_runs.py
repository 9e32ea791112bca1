"""What config files with several runs share: what a run is, sets of relations, and how a run's keys are set.

No config itself: the underscore keeps it out of the list of configs.
"""
from collections.abc import Iterable
from typing import NamedTuple

from ml_collections import ConfigDict

from relnet_jax.errors import hint


class Run(NamedTuple):
    """section, map50 and map1 as in the lab's log (per cent; '' where it has none), delta: dotted key -> value."""
    section: str
    description: str
    base: dict
    delta: dict
    map50: str = ''
    map1: str = ''


# ---- sets of relations ----
def relations(*names: str, **options: dict) -> dict:
    """Keys that turn these relations on; options: class_=dict(graph=False) for a relation's own keys."""
    keys = {f'model.relation.{relation}.{key}': v for relation, keys in options.items() for key, v in keys.items()}
    return {'model.relations': names} | keys


LABS = relations('class', 'part', 'context', class_=dict(norm=True))    # the lab's three
BEST = relations('part', 'context', 'presence')
DETACHED = BEST | {'model.relation_detached': True}
OURS = DETACHED | {'model.boxes_from': 'first', 'model.scores_from': 'mean'}    # the project's own best set
PREDICTED = {'model.anatomy_head': True, 'model.parts': 'predicted'}
# Adam moves every weight alike: in wide layers the sum over their inputs runs away, and attention sees constants.
WIDE = {'train.lr_factors': (('relation_head|part_window', 0.25),)}


def with_relations(findings: str, keys: dict, **options: dict) -> dict[str, Run]:
    """`base`, without relations, and what is compared with it, for a detector of `findings` with these keys; options:
    as those of `relations`, for every run."""
    own = WIDE | relations(**options)

    def run(description: str, delta: dict) -> Run:
        return Run('', description, keys, own | delta)

    part = relations('part')
    return {
        'base': Run('', f'{findings}, no relation', keys, {}),
        'part': run('places relative to the given parts', part),
        'context': run('attention over the given lungs', relations('context')),
        'part_context': run('`part` and `context`', relations('part', 'context')),
        'part_predicted': run('`part`, parts predicted by the detector', part | PREDICTED),
        'ours': run('`part`, `context` and `presence`, as `ours` of lab.py', OURS),
        'ours_predicted': run('`ours`, parts predicted by the detector', OURS | PREDICTED),
    }


# ---- a run's keys in a config ----
def nearest(kind: str, name: str, names: Iterable[str]) -> str:
    return f"no {kind} '{name}'" + (hint(name, names, all_known=False) or f', it has {", ".join(names)}')


def apply(c: ConfigDict, delta: dict) -> None:
    for path, value in delta.items():
        *folders, key = path.split('.')
        target = c
        for folder in folders:
            target = target[folder]
        if key not in target:
            raise KeyError(f"configs/base.py has no key '{path}'")
        target[key] = value


def use(c: ConfigDict, runs: dict[str, Run], name: str) -> None:
    """Sets the keys of the run `name`. Raises ValueError with the nearest right name."""
    if name not in runs:
        raise ValueError(nearest('run', name, runs))
    c.name = name
    with c.unlocked():
        apply(c, runs[name].base | runs[name].delta)
