"""The category table of a document: ids and names, one to one, and the names that a config or a model asks for."""
import difflib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relnet_jax.data.issues import Issue, listed, shown
from relnet_jax.data.values import whole
from relnet_jax.errors import UserError

BACKGROUND = ('background', 'bg')       # label 0 stands for it: not trained on unless asked for
LONGEST_NAME = 200
UNPRINTABLE = ('Cc', 'Cs')              # control characters and halves of pairs


def category_ids(file: Path, categories: list, used: Mapping[int, int]) -> tuple[dict[str, int], list[Issue]]:
    """(name -> id in the file's order, issues). `used`: number of annotations by category id.

    A category without annotations that repeats another one's id or name is left out, and one without a name always is.
    Any other table that is not one to one raises UserError: no rule could mend it.
    """
    names: dict[int, str] = {}
    issues = []
    for i, category in enumerate(categories):
        where = f'{file}: categories[{i}]'
        number = whole(category.get('id')) if isinstance(category, dict) else None
        name = category.get('name') if isinstance(category, dict) else None
        if number is None or not isinstance(name, (str, type(None))):
            raise UserError(f'{where}: expected a whole number as id, and a name, got {shown(category)}')
        name = (name or '').strip()
        if len(name) > LONGEST_NAME or any(unicodedata.category(letter) in UNPRINTABLE for letter in name):
            raise UserError(f'{where}: expected a name of at most {LONGEST_NAME} printable letters, got {len(name)}: '
                            f'{shown(name)}')
        if name and name != category['name']:
            issues.append(Issue(f'{file.name}: categories[{i}]', 'name with spaces at its ends', 'read without',
                                shown(category['name'])))
        if not name:
            issues.append(Issue(f'{file.name}: categories[{i}]', 'category without a name', 'left out',
                                f'id {number}, {used.get(number, 0)} annotations'))
        elif number not in names:
            names[number] = name
        elif fold(names[number]) == fold(name):
            issues.append(Issue(f'{file.name}: categories[{i}]', 'category is there twice', 'second left out',
                                f'id {number}, {shown(name)}'))
        else:
            raise UserError(f'{where}: id {number} stands for {shown(names[number])} and for {shown(name)}')
    return _one_to_one(file, names, used, issues), issues


def _one_to_one(file: Path, names: dict[int, str], used: Mapping[int, int], issues: list[Issue]) -> dict[str, int]:
    """Name -> id without the unused ones among categories of the same name, or of names alike."""
    alike: dict[str, list[int]] = {}
    for number, name in names.items():
        alike.setdefault(fold(name), []).append(number)
    left_out = set()
    for same in alike.values():
        filled = [number for number in same if used.get(number)]
        kept = filled or same[:1]
        for number in set(same) - set(kept):
            left_out.add(number)
            issues.append(Issue(file.name, 'category without annotations that repeats a name', 'left out',
                                f'id {number}, {shown(names[number])}'))
        if len({names[number] for number in kept}) < len(kept):
            raise UserError(f'{file}: categories {kept} are all called {shown(names[kept[0]])}, and all have '
                            'annotations: give each a name of its own')
        if len(kept) > 1:
            issues.append(Issue(file.name, 'names that differ by case or spaces alone', 'kept as different classes',
                                ', '.join(shown(names[number]) for number in kept)))
    return {name: number for number, name in names.items() if number not in left_out}


def choose(file: Path, names: Sequence[str], ids: Mapping[str, int], *, strict: bool,
           remedy: str = '') -> tuple[dict[str, int], list[Issue]]:
    """(name as asked for -> category id, issues) of the wanted `names`, case and spaces aside if need be.

    A name that is no category raises UserError, with the nearest one that is and a `remedy`; if not `strict` it is
    left out.
    """
    folded = Counter(map(fold, ids))
    near_ids = {fold(name): (name, number) for name, number in ids.items() if folded[fold(name)] == 1}
    chosen, issues = {}, []
    for name in names:
        if name in ids:
            chosen[name] = ids[name]
        elif fold(name) in near_ids:
            own, chosen[name] = near_ids[fold(name)]
            issues.append(Issue(file.name, 'category name differs by case or spaces', f'taken for {shown(name)}',
                                shown(own)))
        elif strict:
            near = difflib.get_close_matches(name, ids, 1)
            hint = f"did you mean '{near[0]}'?" if near else f'it has {listed(ids)}'
            raise UserError(f"{file}: no category '{name}', {hint}{remedy}")
    return chosen, issues


def is_background(name: str) -> bool:
    return name.casefold().strip('_- <>[]()') in BACKGROUND


def fold(name: str) -> str:
    """The name without the differences of case and spaces."""
    return ' '.join(name.casefold().split())


def count_used(annotations: list) -> Counter[int | None]:
    """Category id -> number of annotations; None: those without a whole number."""
    return Counter(_category(annotation) for annotation in annotations)


def _category(annotation: Any) -> int | None:
    return whole(annotation.get('category_id')) if isinstance(annotation, dict) else None
