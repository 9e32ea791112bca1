"""Pictures of the first images of a data source: ground truth beside prediction."""
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from relnet_jax.data import transforms
from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.rle import decode_mask
from relnet_jax.ops.masks import paste_mask
from relnet_jax.visualize import LONGER_SIDE, PHANTOM_CAPTION, draw_detections, draw_side_by_side, write_image

MIN_SCORE = 0.3  # weaker detections are in the result file, but would bury the picture


def overlays(source, results: list, out, *, config, count: int = 8) -> list:
    """Draw the first `count` images of `source` with their objects and with their `results` of at least MIN_SCORE.

    Writes `out`/0000_<image id>.png and so on (the folder is made if needed) and returns the paths. Unreadable images
    are left out. Pictures of the phantom say that they are synthetic.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    found = defaultdict(list)
    for r in results:
        if r['score'] >= MIN_SCORE:
            found[r['image_id']].append(r)
    caption = PHANTOM_CAPTION if config.data.format == 'phantom' else ''
    paths = []
    for index in range(min(count, len(source))):
        try:
            example = source.load(index)
            record = source.records[index]      # a resized copy is drawn in the pixels of annotations and results
            example = transforms.resize(example, (record['height'], record['width']))
        except UnreadableImage:  # was logged when the detector asked for it
            continue
        truth = draw_truth(example, source.classes, caption=caption)
        prediction = draw_results(example.image, found[example.image_id], source.classes, source.category_ids,
                                  title=f'prediction (score >= {MIN_SCORE})', caption=caption)
        image_id = re.sub(r'[^\w.-]', '_', str(example.image_id))[:60]       # it may be any text
        paths.append(out / f'{index:04d}_{image_id}.png')
        write_image(paths[-1], draw_side_by_side(truth, prediction))
    return paths


def draw_truth(example, class_names, *, caption: str = '') -> np.ndarray:
    """The objects of an `Example` over its image; uint8 [h', w', 3] (see `draw_detections`)."""
    # Pasting rounds boxes to whole pixels: on those of the enlarged picture, so that nobody sees it.
    height, width = example.image.shape[:2]
    enlarge = max(LONGER_SIDE[0] / max(height, width), 1.0)
    size = round(height * enlarge), round(width * enlarge)
    masks = (paste_mask(mask / np.float32(255), box * enlarge, size, threshold=0.5)
             for mask, box in zip(example.masks, example.boxes))
    return draw_detections(example.image, example.boxes, example.labels, None, masks, class_names,
                           title=f'ground truth, image {example.image_id}', caption=caption)


def draw_results(image, results: list, class_names, category_ids, **options) -> np.ndarray:
    """COCO result records of one image over it, best first; uint8 [h', w', 3] (options of `draw_detections`)."""
    boxes = np.array([r['bbox'] for r in results], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = None
    if results and 'segmentation' in results[0]:
        masks = (decode_mask(r['segmentation']) for r in results)
    labels = [category_ids.index(r['category_id']) + 1 for r in results]
    return draw_detections(image, boxes, labels, [r['score'] for r in results], masks, class_names, **options)
