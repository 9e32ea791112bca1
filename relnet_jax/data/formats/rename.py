"""data.rename: categories of any format merged, renamed or left out by a table in the config."""
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from relnet_jax.data.categories import category_ids, count_used
from relnet_jax.data.issues import Issue


def rename(document: dict, table: Sequence[tuple[str, str]], file: Path) -> tuple[dict, list[Issue]]:
    """(document, issues) with its categories called by the new names of the (name, new name) pairs in `table`.

    Categories that come by one name are one, with the id of the first in the file's order. '' leaves a category out
    with its annotations; how many they were is an issue, and so is a name that the data do not have.
    """
    ids, _ = category_ids(file, document['categories'], count_used(document['annotations']))
    table = dict(table)
    new_ids, moved = {}, {}
    for name, i in ids.items():
        new = table.get(name, name)
        moved[str(i)] = new_ids.setdefault(new, i) if new else None
    left_out, annotations = Counter(), []
    for annotation in document['annotations']:
        old = str(annotation.get('category_id')) if isinstance(annotation, dict) else ''
        if old not in moved:
            annotations.append(annotation)      # broken, and for `coco_source` to report
        elif moved[old] is None:
            left_out[old] += 1
        else:
            annotations.append(annotation | dict(category_id=moved[old]))
    issues = [Issue(file.name, 'name in data.rename that is no category', 'passed over', name)
              for name in table if name not in ids]
    issues += [Issue(file.name, f"annotations of '{name}'", 'left out, as data.rename says', str(left_out[str(i)]))
               for name, i in ids.items() if left_out[str(i)]]
    named = {key: [name for name in dict.fromkeys(table.get(name, name) for name in document[key]) if name]
             for key in ('parts', 'classes') if key in document}
    return document | named | dict(categories=[dict(id=i, name=name) for name, i in new_ids.items()],
                                   annotations=annotations), issues
