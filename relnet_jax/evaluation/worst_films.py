"""The films on which a detector failed most: the largest objects not found and the most certain false detections."""
import base64
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.rle import decode_mask
from relnet_jax.data.source import Source
from relnet_jax.data.transforms import resize
from relnet_jax.evaluation.coco import has_mask
from relnet_jax.evaluation.failures import HIT_REASON, IGNORED, failures
from relnet_jax.evaluation.overlays import draw_results
from relnet_jax.evaluation.structures import rles
from relnet_jax.visualize import draw_detections

FILMS = 12                          # of each kind
SIDE = 560                          # the longer one of a picture, pixels
TEXT_SIZE = 1.5
PICTURE_BYTES = 64_000
QUALITIES = 85, 75, 60, 45, 30      # of JPEG, tried in this order
FINE = (HIT_REASON, IGNORED)


class Failure(NamedTuple):
    """An object that was not found, or a false detection."""
    reason: str                 # of `failures`
    name: str                   # of its class
    area: float                 # of its box, as a share of the film
    score: float | None         # None for an object


class Film(NamedTuple):
    image_id: str
    missed: list[Failure]       # largest first
    false: list[Failure]        # best score first
    truth: str                  # pictures as data: addresses
    prediction: str


def worst_films(source: Source, ground_truth: dict, results: list, thresholds: float | Mapping[str, float], *,
                convention: str = 'pixel_inclusive', count: int = FILMS) -> tuple[list[Film], list[Film]]:
    """(films with the largest objects that were not found, other films with the false detections of best score), at
    most `count` of each, worst first.

    The reasons are those of `failures` for detections from `thresholds` on; objects are as large as their boxes, as a
    share of the film. Films that cannot be read are left out.
    """
    found = failures(ground_truth, results, thresholds, convention=convention)
    pixels = {r['id']: r.get('width', 1) * r.get('height', 1) for r in source.records}
    objects = list(zip(ground_truth['annotations'], found.truth))
    objects.sort(key=lambda pair: -_area(pair[0]) / pixels[pair[0]['image_id']])
    detections = [(results[row], reason) for row, reason in found.detections.items()]      # best score first
    position, truth_of, found_of = {r['id']: i for i, r in enumerate(source.records)}, _by_film(objects), _by_film(
        detections)
    shown, lists = set(), ([], [])
    for films, records in zip(lists, (objects, detections)):
        for image_id in dict.fromkeys(record['image_id'] for record, reason in records if reason not in FINE):
            if len(films) == count:
                break
            if image_id not in shown:
                shown.add(image_id)
                try:
                    image = _in_its_pixels(source, position[image_id])
                except UnreadableImage:     # was logged when the detector asked for it
                    continue
                films.append(draw_film(image, str(image_id), truth_of[image_id], found_of[image_id], source))
    return lists


def draw_film(image: np.ndarray, image_id: str, objects: list[tuple[dict, str]], detections: list[tuple[dict, str]],
              source: Source) -> Film:
    """`image` uint8 [h, w, 3] with its annotations and COCO results, each with its reason, in their order."""
    height, width = image.shape[:2]
    names = dict(zip(source.category_ids, source.classes))

    def failed(pairs: list[tuple[dict, str]]) -> list[Failure]:
        return [Failure(reason, names[record['category_id']], _area(record) / (height * width), record.get('score'))
                for record, reason in pairs if reason not in FINE]

    def notes(pairs: list[tuple[dict, str]]) -> list[str]:
        return ['' if reason == HIT_REASON else f': {reason}' for _, reason in pairs]
    annotations, results = [a for a, _ in objects], [r for r, _ in detections]
    boxes = np.array([a['bbox'] for a in annotations], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    look = dict(longer_side=(SIDE, SIDE), text_size=TEXT_SIZE)
    labels = [source.category_ids.index(a['category_id']) + 1 for a in annotations]
    truth = draw_detections(image, boxes, labels, None, (_mask(a, height, width) for a in annotations), source.classes,
                            notes=notes(objects), **look)
    prediction = draw_results(image, results, source.classes, source.category_ids, notes=notes(detections),
                              **look)
    return Film(image_id, failed(objects), failed(detections), data_address(truth), data_address(prediction))


def data_address(image: np.ndarray) -> str:
    """An RGB picture as a JPEG in a data: address, of at most PICTURE_BYTES before base64: of less quality where it is
    larger, then halved."""
    data = _jpeg(image, QUALITIES[0])
    for quality in QUALITIES[1:]:
        if len(data) > PICTURE_BYTES:
            data = _jpeg(image, quality)
    if len(data) > PICTURE_BYTES:
        return data_address(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return 'data:image/jpeg;base64,' + base64.b64encode(data).decode()


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    return cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _area(record: dict) -> float:
    return record['bbox'][2] * record['bbox'][3]


def _by_film(pairs: Iterable[tuple[dict, str]]) -> dict:
    films = defaultdict(list)
    for record, reason in pairs:
        films[record['image_id']].append((record, reason))
    return films


def _in_its_pixels(source: Source, index: int) -> np.ndarray:
    """The image in the pixels of annotations and results."""
    example, record = source.load(index), source.records[index]
    height, width = example.image.shape[:2]
    return resize(example, (record.get('height', height), record.get('width', width))).image


def _mask(annotation: dict, height: int, width: int) -> np.ndarray:
    if not has_mask(annotation):
        return np.zeros((height, width), bool)
    return decode_mask(coco_mask.merge(rles(annotation['segmentation'], height, width)))
