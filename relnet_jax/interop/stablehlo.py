"""A detector as a serialised `jax.export.Exported`, and what JAX promises about reading it."""
from collections.abc import Callable, Sequence
from datetime import date

import jax
import jaxlib
from jax import export as jax_export

from relnet_jax.errors import UserError

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')
GUARANTEE = 'https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees'
MONTHS, WEEKS = 6, 3        # newer and older readers; what counts is when jaxlib was built, not when a file is written
BUILT = {'0.10.2': date(2026, 6, 17)}       # jaxlib's releases, as the files in its wheels are dated

RUNNER = '''
import sys
import numpy as np
from jax import export
path, inputs, outputs = sys.argv[1:]
with open(path, 'rb') as file:
    detector = export.deserialize(bytearray(file.read()))
with np.load(inputs) as stored:
    batches = [[stored[f'{i}_{j}'] for j in range(len(detector.in_avals))]
               for i in range(len(stored) // len(detector.in_avals))]
found = [detector.call(*batch) for batch in batches]
np.savez(outputs, **{f'{i}_{name}': value for i, lines in enumerate(found) for name, value in lines.items()})
there = {name.partition('.')[0] for name in sys.modules} & {'relnet_jax', 'flax', 'optax', 'orbax', 'ml_collections'}
assert not there, there
'''


def check_platforms(platforms: Sequence[str]) -> None:
    """Raises UserError for platforms that JAX does not know, or without the one that the file can be checked on."""
    here = jax_export.default_export_platform()
    if unknown := set(platforms) - set(PLATFORMS):
        raise UserError(f'--platforms: expected some of {",".join(PLATFORMS)}, got {",".join(sorted(unknown))}')
    if here not in platforms:
        raise UserError(f'--platforms: {",".join(platforms)} cannot be checked on this machine, which is {here}')


def serialise(call: Callable, shapes: list[jax.ShapeDtypeStruct], platforms: Sequence[str]) -> bytes:
    """The file's bytes. The batch is fixed: the model asks for its length.

    What has a form of its own on CPU (RoIAlign, 1x1 convolutions, the rows of the mask head) is in the file in both.
    """
    return jax_export.export(jax.jit(call), platforms=tuple(platforms))(*shapes).serialize()


def made_with(version: str = jaxlib.__version__) -> dict:
    """Versions, for the JSON file, and who may read the file: in words, and to which date if the build is known."""
    built = BUILT.get(version)
    months = built and built.month - 1 + MONTHS
    until = built and date(built.year + months // 12, months % 12 + 1, min(built.day, 28)).isoformat()
    return dict(jax=jax.__version__, jaxlib=version, readable_until=until, source=GUARANTEE,
                readable=f'by a JAX whose jaxlib was built at most {MONTHS} months after jaxlib {version}, or at most '
                         f'{WEEKS} weeks before it')


def told(versions: dict, platforms: Sequence[str]) -> str:
    """The same in a line for people."""
    until = versions['readable_until']
    return (f'for {", ".join(platforms)}, by JAX {versions["jax"]}; JAX promises to read it with any jaxlib built '
            + (f'until {until}' if until else f'in the {MONTHS} months after {versions["jaxlib"]}'))
