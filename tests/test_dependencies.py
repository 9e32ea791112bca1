"""What the package imports is declared, and what is declared is pinned."""
import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def name_of(requirement: str) -> str:
    return re.sub(r'[-_.]+', '-', re.match(r'[\w.-]+', requirement)[0]).lower()


def imported(folder: Path) -> set[str]:
    """Top-level names of other packages that the files import, wherever in the file."""
    found = set()
    for path in folder.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split('.')[0])
    return found - set(sys.stdlib_module_names) - {'relnet_jax', 'configs'}


def test_every_import_of_the_package_is_a_declared_dependency():
    declared = {name_of(line) for line in PROJECT['dependencies']}
    extras = {name_of(line) for line in PROJECT['optional-dependencies']['dicom']}
    by_hand = {name_of(line) for line in (ROOT / 'requirements-onnx.txt').read_text().splitlines() if line[0] != '#'}
    distributions = metadata.packages_distributions()
    for module in (imported(ROOT / 'relnet_jax') | imported(ROOT / 'configs')) - by_hand:
        owners = {name_of(name) for name in distributions.get(module, [])}
        assert owners & (declared | extras), f'{module} comes from {owners or "nowhere"}, which pyproject.toml lacks'


def test_every_dependency_is_pinned_and_every_pin_is_declared():
    lines = [*PROJECT['dependencies'], *sum(PROJECT['optional-dependencies'].values(), [])]
    declared = {name_of(line) for line in lines} - {'relnet-jax'}
    pinned = {name_of(line): line for line in (ROOT / 'requirements.txt').read_text().splitlines()
              if line and not line.startswith('#')}
    assert set(pinned) == declared
    assert all('==' in line for line in pinned.values())
