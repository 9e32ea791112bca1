"""The phantom as a data set: a `Source`, and its truth in COCO form."""
import numpy as np

from relnet_jax.data.phantom import labels
from relnet_jax.data.phantom.anatomy import PARTS
from relnet_jax.data.phantom.scene import annotate, render
from relnet_jax.data.source import Source
from relnet_jax.errors import UserError
from relnet_jax.ops.masks import crop_polygons
from relnet_jax.types import Example

READERS = 3                 # who annotated an image; all draw alike, it is there to train on one's part (data.subset)
VAL_START = 1_000_000       # first index of the validation images, beyond any training image


def coco_dict(seed: int, indices: list[int], *, size: int) -> dict:
    """COCO ground truth of these images: image ids are the indices, category ids 1..13, one polygon a finding."""
    images, annotations = [], []
    for index in indices:
        images.append({'id': index, 'width': size, 'height': size, 'file_name': f'phantom_{seed}_{index}.png'})
        truth = annotate(seed, index, size=size)
        for label, box, polygon in zip(truth.labels, truth.boxes.astype(float), truth.polygons, strict=True):
            x, y = polygon.astype(float).T
            area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
            annotations.append({
                'id': len(annotations) + 1, 'image_id': index, 'category_id': int(label), 'iscrowd': 0,
                'bbox': [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])], 'area': float(area),
                'segmentation': [polygon.astype(float).ravel().tolist()]})
    categories = [{'id': i + 1, 'name': name} for i, name in enumerate(labels.classes())]
    return {'info': {'description': 'PHANTOM: synthetic chest radiographs, not patients'}, 'images': images,
            'annotations': annotations, 'categories': categories}


def phantom_source(*, split: str, seed: int, ambiguity: float, size: int, train_images: int, val_images: int,
                   mask_size: int) -> Source:
    """The phantom as a data set; 'train' images have the indices from 0, 'val' images those from VAL_START."""
    if split not in ('train', 'val'):
        raise ValueError(f"phantom split: expected 'train' or 'val', got '{split}'")
    if not 0 < train_images <= VAL_START or val_images < 1:
        raise UserError(f'phantom: expected 1..{VAL_START} train_images and at least 1 val_images, '
                         f'got {train_images} and {val_images}')
    start, count = (0, train_images) if split == 'train' else (VAL_START, val_images)

    def load(i: int) -> Example:
        image, truth = render(seed, start + i, ambiguity=ambiguity, size=size)
        masks = [crop_polygons([p.ravel()], box, mask_size) for p, box in zip(truth.polygons, truth.boxes, strict=True)]
        return Example(
            image=np.repeat(image[..., None], 3, 2), image_id=start + i, index=i,
            boxes=truth.boxes, labels=truth.labels, crowd=np.zeros(len(masks), bool),
            masks=np.array(masks, np.uint8).reshape(-1, mask_size, mask_size),
            has_mask=np.ones(len(masks), bool), part_boxes=truth.part_boxes, part_valid=truth.part_valid)

    return Source(
        name=f'phantom {split} (synthetic, seed {seed}, ambiguity {ambiguity}, {size} px)',
        classes=labels.classes(), category_ids=tuple(range(1, len(labels.classes()) + 1)), parts=PARTS,
        records=[{'id': start + i, 'width': size, 'height': size, 'annotator': f'reader{i % READERS}'}
                 for i in range(count)], load=load,
        ground_truth=lambda: coco_dict(seed, range(start, start + count), size=size))
