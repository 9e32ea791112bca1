"""data.rename and data.min_box: what a config changes in a document of any format."""
from collections import Counter
from collections.abc import Sequence

from relnet_jax.data.formats.records import is_number
from relnet_jax.data.issues import Issue


def rename(document: dict, table: Sequence[tuple[str, str]], *, file: str) -> tuple[dict, list[Issue]]:
    """(document, issues) with its categories renamed by (name, new name) pairs.

    Categories that get one name become one, the first that has it in the file's order. '' drops a category with its
    annotations; how many is one issue. A name that the data do not have is one too.
    """
    names = dict(table)
    have = [c.get('name') for c in document['categories'] if isinstance(c, dict)]
    issues = [Issue(file, 'data.rename: no such category', 'passed over', name) for name in names if name not in have]
    categories, ids, by_name = [], {}, {}
    for category in document['categories']:
        old = category.get('name') if isinstance(category, dict) else None
        if not isinstance(old, str):
            categories.append(category)
            continue
        new = names.get(old, old)
        if new and new not in by_name:
            by_name[new] = category['id']
            categories.append(category | dict(name=new))
        elif new == old and old not in names and new not in names.values():
            categories.append(category)         # twice in the file itself: not for here to mend
            continue
        ids[str(category['id'])] = by_name.get(new)
    dropped, annotations = Counter(), []
    for annotation in document['annotations']:
        old = str(annotation.get('category_id')) if isinstance(annotation, dict) else None
        if old in ids and ids[old] is None:
            dropped[old] += 1
        else:
            annotations.append(annotation | dict(category_id=ids[old]) if old in ids else annotation)
    for category in document['categories']:
        count = dropped.get(str(category.get('id')), 0) if isinstance(category, dict) else 0
        if count:
            issues.append(Issue(file, f"annotations of '{category['name']}'", 'dropped, as data.rename says',
                                str(count)))
    parts = [new for new in dict.fromkeys(names.get(n, n) for n in document.get('parts', ())) if new]
    return document | dict(categories=categories, annotations=annotations, parts=parts), issues


def grow_boxes(document: dict, side: float) -> dict:
    """The document with box sides below `side` pixels grown to it around the box's centre; parts stay as they are.

    What that moves beyond the image, if its size is known, is cut off.
    """
    parts = {c['id'] for c in document['categories'] if isinstance(c, dict) and c.get('name') in document.get('parts', ())}
    sizes = {image['id']: (image.get('width'), image.get('height')) for image in document['images']
             if isinstance(image, dict) and 'id' in image}

    def grown(annotation):
        box = annotation.get('bbox') if isinstance(annotation, dict) else None
        if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) and 0 < min(box[2:]) < side):
            return annotation
        if annotation.get('category_id') in parts:
            return annotation
        limits = sizes.get(annotation.get('image_id'), (None, None))
        ends = []
        for start, length, limit in zip(box[:2], box[2:], limits):
            more = max(side - length, 0) / 2
            low, high = start - more, start + length + more
            ends.append((max(low, min(start, 0)), min(high, max(start + length, limit)) if is_number(limit) else high))
        (x1, x2), (y1, y2) = ends
        return annotation | dict(bbox=[x1, y1, x2 - x1, y2 - y1])
    return document | dict(annotations=[grown(a) for a in document['annotations']])
