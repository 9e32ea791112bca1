"""SIIM-ACR Pneumothorax labels: `ImageId, EncodedPixels`, a row for each pneumothorax, -1 for a film without any.

EncodedPixels are pairs of numbers down the columns of the 1024 x 1024 film, both relative: how many pixels to leave out
after the run before, how long the next run is. These are the counts of an uncompressed COCO RLE but for the last.
"""
from pathlib import Path

import pycocotools.mask as rle_tools
from ml_collections import ConfigDict

from relnet_jax.data.formats.broken import Broken
from relnet_jax.data.formats.rows import contradictions, read_rows
from relnet_jax.data.issues import Issue

CLASS = 'Pneumothorax'
SIDE = 1024     # pixels


def read(path: Path, folder: Path, data: ConfigDict) -> tuple[dict, list[Issue]]:
    """A reader as `formats` describes it: one annotation with mask and its box a row. `rows` of an annotation is its
    line, of an image those that say -1."""
    rows, issues = read_rows(path, ('imageid', 'encodedpixels'))
    images, annotations = {}, []
    for row in rows:
        uid = row.get('imageid')
        try:
            if not uid:
                raise Broken('no ImageId')
            rle = decode(row.get('encodedpixels')) if row.has('encodedpixels') else None   # a list of films alone
        except Broken as e:
            issues.append(e.at(f'{path.name}: {row.where}'))
            continue
        image = images.setdefault(uid, dict(id=uid, file_name=uid, width=SIDE, height=SIDE, rows=[], where=row.where))
        if rle is None:
            image['rows'].append(row.line)
        else:
            box = rle_tools.toBbox(rle_tools.frPyObjects(rle, SIDE, SIDE)).tolist()
            annotations.append(dict(image_id=uid, category_id=1, bbox=box, segmentation=rle, rows=[row.line],
                                    where=row.where))
    issues += contradictions(path, images, annotations)
    return dict(images=list(images.values()), annotations=annotations, categories=[dict(id=1, name=CLASS)]), issues


def decode(pixels: str) -> dict | None:
    """EncodedPixels -> uncompressed COCO RLE, None for -1. Raises Broken for what encodes no pixel of the film."""
    if pixels == '-1':
        return None
    words = pixels.split()
    if not words or len(words) % 2 or not all(word.isascii() and word.isdigit() and len(word) < 9 for word in words):
        raise Broken('EncodedPixels is neither -1 nor pairs of whole numbers', pixels)
    runs = [int(word) for word in words]
    left = SIDE * SIDE - sum(runs)
    if left < 0:
        raise Broken(f'EncodedPixels leaves the {SIDE} x {SIDE} film', [sum(runs)])
    if not any(runs[1::2]):
        raise Broken('EncodedPixels without a pixel', pixels)
    return dict(size=[SIDE, SIDE], counts=[*runs, left])
