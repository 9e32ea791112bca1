"""Imports run one way: a room knows only the rooms below it."""
import ast
from pathlib import Path

import pytest

import relnet_jax

PACKAGE = Path(relnet_jax.__file__).parent
FLOORS = ('ops', 'models', 'data', 'runs', 'detector', 'evaluation', 'interop', 'training')     # from the ground up
TOP = len(FLOORS)


def floor_of(module: str) -> int:
    """Height of the room that `relnet_jax.a.b` lies in: -1 below all rooms, TOP above them."""
    room = module.split('.')[1]
    if room in FLOORS:
        return FLOORS.index(room)
    return -1 if room in GROUND else TOP


def module_of(path: Path) -> str:
    return '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)


def imports(path: Path) -> list[str]:
    """Full names of what a file imports of this package, wherever in the file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path}: relative import'
            found += [f'{node.module}.{alias.name}' for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.startswith('relnet_jax.') and name.split('.')[1] != '__version__']


GROUND = {path.stem for path in PACKAGE.glob('*.py')
          if not any(name.split('.')[1] in FLOORS for name in imports(path))} - {'__init__'}


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=module_of)
def test_a_file_imports_only_from_its_own_floor_and_below(path):
    here = floor_of(module_of(path)) if path.parent != PACKAGE or path.stem != '__init__' else -1
    wrong = [name for name in imports(path) if floor_of(name) > here]
    assert not wrong, f'{module_of(path)} imports from above: {wrong}'


def test_every_room_is_a_floor():
    rooms = {path.parent.name for path in PACKAGE.glob('*/__init__.py')}
    assert rooms - {'ablation'} == set(FLOORS)
