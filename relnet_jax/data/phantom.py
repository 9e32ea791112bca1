"""The phantom: synthetic chest radiographs with known truth, the default data set. Not patients: every image says so.

`render(seed, index, ambiguity=..., size=...)` is a pure function and needs no file but the statistics table. It draws
* a thorax (`phantom_anatomy`) with the boxes of its five parts,
* a label set, numbers, sides, places and sizes that follow ChestX-Det (`phantom_labels`, `phantom_places`),
* one polygon for each finding, drawn as it is annotated (`phantom_render`).

The knob `ambiguity` in [0, 1] is the share of findings whose look does not tell their class (`phantom_looks`): these
have the look that all classes of a look-alike group share, the others their class's own. Labels, polygons and anatomy
do not depend on it. A class whose look says nothing is told by what this table names, which is what a relation module
may exploit:

    group     class                cue             rule
    opacity   Effusion             position        fills the costophrenic angle of a lung
    opacity   Consolidation        position        against mediastinum or heart, away from the costophrenic angle
    opacity   Atelectasis          co-occurrence   free in the lung, in an image that holds an effusion
    opacity   Mass                 co-occurrence   free in the lung, equal places and sizes, in an image without effusion
    spot      Nodule               position        lateral 44 % of the lung's width
    spot      Calcification        position        medial 44 % of the lung's width
    line      Pleural Thickening   position        on the lateral lung wall
    line      Fibrosis             position        inside the lung, off the wall
    lucency   Emphysema            position        the whole lung
    lucency   Pneumothorax         position        a crescent at the apex or the lateral wall
    heart     Cardiomegaly         position        heart wider than half of the thorax (it looks like any heart)
    miliary   Diffuse Nodule       texture         fine dots over a lung
    bone      Fracture             texture         cleft and callus across a rib

The real co-occurrence (fibrosis with emphysema, effusion with consolidation) is a soft cue beside these rules, and so
are outline and size where the rule is one of position.

What differs from the table: places obey the rules above; atelectasis and mass share their pooled places and sizes, and
the two as one class are as frequent and as often together with the others, but an effusion makes that one an
atelectasis (in ChestX-Det 48 % of the images with an atelectasis and 37 % of those with a mass hold one), which then
lies higher, as the effusion has the base of the lung: a soft cue of place; nothing is smaller than 3.6 % of the frame,
bands along the lung wall are thicker, and emphysema and diffuse nodules occur once a lung at most.

    python -m relnet_jax.data.phantom --out=phantom --count=20      # PNG files and instances.json (COCO)
"""
import argparse
import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from relnet_jax.data import phantom_labels, phantom_looks, phantom_places, phantom_render
from relnet_jax.data.phantom_anatomy import PARTS, Anatomy, box_of, part_outlines, sample_anatomy, to_frame
from relnet_jax.data.source import Source
from relnet_jax.ops.masks import crop_polygons
from relnet_jax.types import Example

READERS = 3                 # who annotated an image; all draw alike, it is there to train on one's part (data.subset)
VAL_START = 1_000_000       # first index of the validation images, beyond any training image


class Annotations(NamedTuple):
    """The truth of an image, in pixels of its size; n findings in drawing order."""
    labels: np.ndarray              # int32 [n], 1..13
    boxes: np.ndarray               # float32 [n, 4] xyxy, tight around the polygons
    polygons: list[np.ndarray]      # n times float32 [k, 2]: one outline each, no holes
    part_boxes: np.ndarray          # float32 [5, 4], order of PARTS
    part_valid: np.ndarray          # bool [5]; False when a part lies outside the frame


def class_cues() -> dict[str, phantom_looks.Rule]:
    """By class, in the order of the class table: its look-alike group and the cue that tells it where its look does not."""
    return {name: phantom_looks.RULES[name] for name in phantom_labels.classes()}


def _generator(seed: int, index: int, stream: int) -> np.random.Generator:
    """Streams: 0 labels and geometry, 1 looks, 2 fields and grain; apart, so that no knob moves what is not its own."""
    return np.random.default_rng((seed, index, stream))


def _scene(seed: int, index: int) -> tuple[Anatomy, list[phantom_places.Finding]]:
    rng = _generator(seed, index, 0)
    requests = phantom_labels.sample_requests(rng)
    heart = [r for r in requests if phantom_labels.classes()[r.label - 1] == 'Cardiomegaly']
    heart_box = phantom_labels.sample_box(rng, 'Cardiomegaly', heart[0].side) if heart else None
    anatomy = sample_anatomy(rng, heart_box=heart_box)
    return anatomy, phantom_places.place_all(rng, requests, anatomy)


def _annotations(anatomy: Anatomy, findings: list[phantom_places.Finding], size: int) -> Annotations:
    outlines = [np.clip(to_frame(f.polygon, anatomy.pose), 0, 1) for f in findings]
    parts = np.array([box_of(points) for points in part_outlines(anatomy)], np.float32)
    return Annotations(
        labels=np.array([f.label for f in findings], np.int32),
        boxes=np.array([box_of(points) for points in outlines], np.float32).reshape(-1, 4) * np.float32(size),
        polygons=[(points * size).astype(np.float32) for points in outlines],
        part_boxes=parts * np.float32(size), part_valid=(parts[:, 2:] > parts[:, :2]).all(1))


def annotate(seed: int, index: int, *, size: int) -> Annotations:
    """The truth of an image without drawing it."""
    return _annotations(*_scene(seed, index), size)


def render(seed: int, index: int, *, ambiguity: float, size: int) -> tuple[np.ndarray, Annotations]:
    """(image uint8 [size, size], its truth). A pure function; the truth depends on seed, index and size only.

    Raises ValueError for an ambiguity outside 0..1.
    """
    if not 0 <= ambiguity <= 1:
        raise ValueError(f'phantom ambiguity: expected 0..1, got {ambiguity}')
    anatomy, findings = _scene(seed, index)
    rng = _generator(seed, index, 1)
    looks = [phantom_looks.sample_look(rng, f.name, ambiguity=ambiguity) if f.name in phantom_looks.OWN_LOOK else None
             for f in findings]
    image = phantom_render.draw(_generator(seed, index, 2), anatomy, findings, looks, size)
    return image, _annotations(anatomy, findings, size)


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
    categories = [{'id': i + 1, 'name': name} for i, name in enumerate(phantom_labels.classes())]
    return {'info': {'description': 'PHANTOM: synthetic chest radiographs, not patients'}, 'images': images,
            'annotations': annotations, 'categories': categories}


def phantom_source(*, split: str, seed: int, ambiguity: float, size: int, train_images: int, val_images: int,
                   mask_size: int) -> Source:
    """The phantom as a data set; 'train' images have the indices from 0, 'val' images those from VAL_START."""
    if split not in ('train', 'val'):
        raise ValueError(f"phantom split: expected 'train' or 'val', got '{split}'")
    if not 0 < train_images <= VAL_START or val_images < 1:
        raise ValueError(f'phantom: expected 1..{VAL_START} train_images and at least 1 val_images, '
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
        classes=phantom_labels.classes(), category_ids=tuple(range(1, len(phantom_labels.classes()) + 1)), parts=PARTS,
        records=[{'id': start + i, 'width': size, 'height': size, 'annotator': f'reader{i % READERS}'}
                 for i in range(count)], load=load,
        ground_truth=lambda: coco_dict(seed, range(start, start + count), size=size))


def main() -> None:
    parser = argparse.ArgumentParser(description='Write synthetic chest radiographs and their truth (COCO).')
    parser.add_argument('--out', type=Path, required=True, help='folder to write to')
    parser.add_argument('--count', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--ambiguity', type=float, default=0.5)
    parser.add_argument('--size', type=int, default=512)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    truth = coco_dict(options.seed, range(options.count), size=options.size)
    for record in truth['images']:
        image, _ = render(options.seed, record['id'], ambiguity=options.ambiguity, size=options.size)
        cv2.imwrite(str(options.out / record['file_name']), image)
    (options.out / 'instances.json').write_text(json.dumps(truth))
    print(f"{options.count} images with {len(truth['annotations'])} findings in {options.out}")


if __name__ == '__main__':
    main()
