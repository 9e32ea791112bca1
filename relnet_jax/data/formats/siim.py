"""SIIM-ACR Pneumothorax labels: `ImageId, EncodedPixels`, a row for each pneumothorax, -1 for a film without any.

EncodedPixels are pairs of numbers down the columns of the 1024 x 1024 film, both relative: how many pixels to leave out
after the run before, how long the next run is. These are the counts of an uncompressed COCO RLE but for the last.
"""
from pathlib import Path

import pycocotools.mask as rle_tools

from relnet_jax.data.formats.rows import contradictions, issue, read_rows

CLASS = 'Pneumothorax'
SIDE = 1024     # pixels


def read_siim(path: str | Path) -> tuple[dict, list[str]]:
    """(COCO document, issues): images by `stem` (the SOP instance UID), one annotation with mask and its box a row;
    `rows` of an annotation is its line, of an image those that say -1. Raises as `rows.read_rows`."""
    rows, issues = read_rows(path, ('imageid', 'encodedpixels'))
    images, annotations = {}, []
    for row in rows:
        uid = row.get('imageid')
        try:
            if not uid:
                raise ValueError('no ImageId')
            rle = siim_mask(row.get('encodedpixels'))
        except ValueError as e:
            issues.append(issue(path, row.line, f'{e}: dropped'))
            continue
        image = images.setdefault(uid, dict(id=uid, stem=uid, width=SIDE, height=SIDE, rows=[]))
        if rle is None:
            image['rows'].append(row.line)
        else:
            box = rle_tools.toBbox(rle_tools.frPyObjects(rle, SIDE, SIDE)).tolist()
            annotations.append(dict(id=len(annotations) + 1, image_id=uid, category_id=1, bbox=box, segmentation=rle,
                                    rows=[row.line]))
    issues += contradictions(path, images, annotations)
    return dict(images=list(images.values()), annotations=annotations, categories=[dict(id=1, name=CLASS)]), issues


def siim_mask(pixels: str) -> dict | None:
    """EncodedPixels -> uncompressed COCO RLE, None for -1. Raises ValueError for what encodes no pixel of the film."""
    if pixels == '-1':
        return None
    words = pixels.split()
    if not words or len(words) % 2 or not all(word.isascii() and word.isdigit() and len(word) < 9 for word in words):
        raise ValueError('EncodedPixels is neither -1 nor pairs of whole numbers')
    runs = [int(word) for word in words]
    left = SIDE * SIDE - sum(runs)
    if left < 0 or not any(runs[1::2]):
        raise ValueError(f'EncodedPixels leaves the {SIDE} x {SIDE} film' if left < 0 else 'EncodedPixels has no pixel')
    return dict(size=[SIDE, SIDE], counts=runs + [left])
