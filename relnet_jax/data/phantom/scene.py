"""One phantom image: what is on it, and the picture of it."""
from typing import NamedTuple

import numpy as np

from relnet_jax.data.phantom import drawing, labels, looks, places
from relnet_jax.data.phantom.anatomy import Anatomy, box_of, part_outlines, sample_anatomy, to_frame
from relnet_jax.errors import UserError


class Annotations(NamedTuple):
    """The truth of an image, in pixels of its size; n findings in drawing order."""
    labels: np.ndarray              # int32 [n], 1..13
    boxes: np.ndarray               # float32 [n, 4] xyxy, tight around the polygons
    polygons: list[np.ndarray]      # n times float32 [k, 2]: one outline each, no holes
    part_boxes: np.ndarray          # float32 [5, 4], order of PARTS
    part_valid: np.ndarray          # bool [5]; False when a part lies outside the frame


def class_cues() -> dict[str, looks.Rule]:
    """Class, in the order of the class table -> its look-alike group and the cue that tells it where its look does not.
    """
    return {name: looks.RULES[name] for name in labels.classes()}


def generator(seed: int, index: int, stream: int) -> np.random.Generator:
    """Streams: 0 labels and geometry, 1 looks, 2 fields and grain; apart, so that no knob moves what is not its own."""
    return np.random.default_rng((seed, index, stream))


def make_scene(seed: int, index: int) -> tuple[Anatomy, list[places.Finding]]:
    rng = generator(seed, index, 0)
    requests = labels.sample_requests(rng)
    heart = [r for r in requests if labels.classes()[r.label - 1] == 'Cardiomegaly']
    heart_box = labels.sample_box(rng, 'Cardiomegaly', heart[0].side) if heart else None
    anatomy = sample_anatomy(rng, heart_box=heart_box)
    return anatomy, places.place_all(rng, requests, anatomy)


def _truth(anatomy: Anatomy, findings: list[places.Finding], size: int) -> Annotations:
    outlines = [np.clip(to_frame(f.polygon, anatomy.pose), 0, 1) for f in findings]
    parts = np.array([box_of(points) for points in part_outlines(anatomy)], np.float32)
    return Annotations(
        labels=np.array([f.label for f in findings], np.int32),
        boxes=np.array([box_of(points) for points in outlines], np.float32).reshape(-1, 4) * np.float32(size),
        polygons=[(points * size).astype(np.float32) for points in outlines],
        part_boxes=parts * np.float32(size), part_valid=(parts[:, 2:] > parts[:, :2]).all(1))


def annotate(seed: int, index: int, *, size: int) -> Annotations:
    """The truth of an image without drawing it."""
    return _truth(*make_scene(seed, index), size)


def render(seed: int, index: int, *, ambiguity: float, size: int) -> tuple[np.ndarray, Annotations]:
    """(image uint8 [size, size], its truth). A pure function; the truth depends on seed, index and size only.

    Raises ValueError for an ambiguity outside 0..1.
    """
    if not 0 <= ambiguity <= 1:
        raise UserError(f'phantom ambiguity: expected 0..1, got {ambiguity}')
    anatomy, findings = make_scene(seed, index)
    rng = generator(seed, index, 1)
    drawn = [looks.sample_appearance(rng, f.name, ambiguity=ambiguity) if f.name in looks.OWN else None
             for f in findings]
    image = drawing.draw(generator(seed, index, 2), anatomy, findings, drawn, size)
    return image, _truth(anatomy, findings, size)
