"""Where the phantom's findings lie and what outline they have. Nothing here depends on the ambiguity.

Places and sizes come from the ChestX-Det table, carried from the table's frame into the patient's own lungs; the rule
of the class (`looks.RULES`) then moves a finding to the nearest place that obeys it, or draws it again.
"""
from typing import NamedTuple

import numpy as np

from relnet_jax.data.phantom import labels
from relnet_jax.data.phantom.anatomy import STEPS, TIP, WALL, Anatomy
from relnet_jax.data.phantom.looks import RULES
from relnet_jax.data.phantom.outlines import (
    DIRECTIONS,
    RAYS,
    aerated,
    clear_of_walls,
    ellipse,
    in_lung,
    lung_uv,
    normals,
    own_frame,
    star,
    wavy,
)

MIN_EXTENT = 0.036          # of the frame: 9 pixels at 256
ZONE_EDGE = (0.44, 0.56)    # u in the lung: nodules lie lateral of the first, calcifications medial of the second
ANGLE_CLEARANCE = 0.07      # no opacity but an effusion comes as near to the costophrenic angle
TRIES = 30
OPACITIES = tuple(name for name, rule in RULES.items() if rule.group == 'opacity')
SPOTS = tuple(name for name, rule in RULES.items() if rule.group == 'spot')
# Large before small, so that small ones can keep clear of them; also the order of drawing.
ORDER = ('Cardiomegaly', 'Emphysema', 'Effusion', 'Consolidation', 'Pneumothorax', 'Pleural Thickening', 'Atelectasis',
         'Mass', 'Diffuse Nodule', 'Fibrosis', 'Fracture', 'Nodule', 'Calcification')


class Finding(NamedTuple):
    """A placed finding; points in the thorax frame."""
    label: int                  # 1..13
    name: str
    side: int                   # 0 = image left, 1 = image right
    polygon: np.ndarray         # float64 [n, 2]


class Scene(NamedTuple):
    """What has been placed so far, for keeping findings apart."""
    anatomy: Anatomy
    findings: list[Finding]


def overlap(polygon: np.ndarray, scene: Scene, names: tuple[str, ...]) -> float:
    """Largest share of the smaller box covered, over the placed findings with these names."""
    low, high, worst = polygon.min(0), polygon.max(0), 0.0
    for other in scene.findings:
        if other.name in names:
            other_low, other_high = other.polygon.min(0), other.polygon.max(0)
            shared = np.maximum(np.minimum(high, other_high) - np.maximum(low, other_low), 0).prod()
            worst = max(worst, shared / min((high - low).prod(), (other_high - other_low).prod()))
    return worst


# ---- one placer per kind: (rng, name, side, scene) -> polygon, or None to be asked again ----

def _draw(rng: np.random.Generator, name: str, side: int, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """(centre [2], size [2]) from the table, in the patient's frame."""
    box = own_frame(labels.sample_box(rng, name, side), side, scene.anatomy)
    return box[:2], np.maximum(box[2:], MIN_EXTENT)


def _towards_middle(centre: np.ndarray, side: int, anatomy: Anatomy) -> list[np.ndarray]:
    """The centre and places from it to the middle of the lung, for findings that do not fit where they were drawn."""
    box = anatomy.lung_boxes[side]
    middle = box[:2] + (box[2:] - box[:2]) * [0.44, 0.56]
    return [centre + share * (middle - centre) for share in (0, 0.25, 0.5, 0.75)]


def _free_opacity(rng, name, side, scene):
    """Atelectasis and mass: surrounded by lung. Drawn from their pooled entry: size and place tell nothing."""
    entries = [labels.statistics()['per_class'][n]['instances'] for n in ('Atelectasis', 'Mass')]
    pooled = ('Atelectasis', 'Mass')[int(rng.random() * sum(entries) >= entries[0])]
    centre, size = _draw(rng, pooled, side, scene)
    radii = ellipse(*np.maximum(size, 0.07)) * wavy(rng, 0.05)
    best, fit = centre, 0.0
    for place in _towards_middle(centre, side, scene.anatomy):
        if fit < 0.9 and in_lung(place, side, scene.anatomy):
            best, fit = place, (aerated(place, side, scene.anatomy) / (1.15 * radii)).min()
    polygon = star(best, radii * min(1, fit))
    return polygon if np.ptp(polygon, 0).min() > 0.06 else None


def _consolidation(rng, name, side, scene):
    centre, size = _draw(rng, name, side, scene)
    lung = scene.anatomy.lung_boxes[side]
    size = np.clip(size, 0.07, (lung[2:] - lung[:2]) * [0.7, 0.62])
    if not in_lung(centre, side, scene.anatomy):
        return None
    medial = (1, -1)[side]
    reach = aerated(centre, side, scene.anatomy)[(0, RAYS // 2)[side]]
    centre = centre + [medial * (reach - 0.40 * size[0]), 0]       # overshoots the border by a fifth of its half width
    if not in_lung(centre, side, scene.anatomy):
        return None
    polygon = star(centre, np.minimum(ellipse(*size) * wavy(rng, 0.05), aerated(centre, side, scene.anatomy)))
    tip = scene.anatomy.lungs[side][TIP * STEPS]
    clear = np.linalg.norm(polygon - tip, axis=1).min() > ANGLE_CLEARANCE
    return polygon if clear and np.ptp(polygon, 0).min() > 0.06 else None


def _effusion(rng, name, side, scene):
    _, size = _draw(rng, name, side, scene)
    lung = scene.anatomy.lung_boxes[side]
    size = np.clip(size, 0.08, (lung[2:] - lung[:2]) * [0.95, 0.6])
    tip, inward = scene.anatomy.lungs[side][TIP * STEPS], (1, -1)[side]
    centre = tip + [inward * 0.40 * size[0], -0.5 * size[1]]
    for _ in range(16):             # the angle is a narrow wedge: climb until the lung opens, with its tip in sight
        if all(in_lung(centre + share * (tip - centre), side, scene.anatomy) for share in (0, 0.3, 0.6, 0.8, 0.95)):
            break
        centre = centre + [-inward * 0.003, -0.012]
    else:
        return None
    room = aerated(centre, side, scene.anatomy)
    radii = np.minimum(ellipse(*size * 1.25) * wavy(rng, 0.03), room)
    towards = (tip - centre) / np.linalg.norm(tip - centre)
    radii = np.where(DIRECTIONS @ towards > 0.95, room, radii)
    polygon = star(centre, radii)
    after = int(np.floor(np.arctan2(towards[1], towards[0]) % (2 * np.pi) / (2 * np.pi) * RAYS)) + 1
    return np.insert(polygon, after, tip, 0)                         # the tip itself lies between two rays


def _whole_lung(rng, name, side, scene):
    box = scene.anatomy.lung_boxes[side]
    if name == 'Emphysema':
        u = (0.45, 0.55)[side]
        centre = box[:2] + (box[2:] - box[:2]) * [u, 0.42]
        fill = np.clip(0.92 * wavy(rng, 0.02), 0.84, 0.97)
        return star(centre, aerated(centre, side, scene.anatomy) * fill)
    centre, size = _draw(rng, name, side, scene)
    if not in_lung(centre, side, scene.anatomy):
        return None
    size = np.maximum(size, [0.16, 0.24])
    return star(centre, np.minimum(ellipse(*size) * wavy(rng, 0.04), 0.95 * aerated(centre, side, scene.anatomy)))


def _along_wall(rng, name, side, scene):
    """Pneumothorax and pleural thickening: a band between the lung wall and its inward copy."""
    centre, size = _draw(rng, name, side, scene)
    wall = scene.anatomy.lungs[side][list(WALL)]
    low, high = (0.0, 0.70) if name == 'Pneumothorax' else (0.22, 0.90)
    v = (wall[:, 1] - wall[:, 1].min()) / np.ptp(wall[:, 1])
    allowed = np.flatnonzero((v >= low) & (v <= high))
    middle = allowed[np.linalg.norm(wall[allowed] - centre, axis=1).argmin()]
    arc = np.append(0, np.cumsum(np.linalg.norm(np.diff(wall, axis=0), axis=1)))
    length = np.clip(np.hypot(*size) * (1 if name == 'Pneumothorax' else 0.8), 0.10, 0.34)
    start = np.clip(arc[middle] - length / 2, 0.05, arc[-1] - length)
    s = np.linspace(0, 1, 20)
    outer = np.stack([np.interp(start + s * length, arc, wall[:, i]) for i in range(2)], 1)
    normal = normals(outer) * (1, -1)[side]
    if name == 'Pneumothorax':
        thickness = np.clip(0.24 * length, 0.042, 0.065) * np.sin(np.pi * s) ** 0.6
    else:
        thickness = rng.uniform(0.042, 0.055) * np.sin(np.pi * s) ** 0.3
    return np.concatenate([outer, (outer + normal * thickness[:, None])[::-1]])


def _fibrosis(rng, name, side, scene):
    """A curved strip inside the lung, as thick as a thickened pleura may be or thicker."""
    centre, size = _draw(rng, name, side, scene)
    size = np.clip(size, 0.08, [0.20, 0.32])
    thickness = np.clip(0.45 * size.min(), 0.042, 0.07)
    t = np.linspace(-1, 1, 14)
    half = (size - thickness) / 2
    line = np.stack([half[0] * t, half[1] * t * rng.choice([-1, 1])], 1)
    line += rng.normal(0, 0.2, 2) * half * (1 - t ** 2)[:, None]
    offset = normals(line) * (thickness / 2 * np.sqrt(1 - 0.9 * t ** 4))[:, None]
    strip = np.concatenate([line + offset, (line - offset)[::-1]])
    for place in _towards_middle(centre, side, scene.anatomy):
        if clear_of_walls(place + strip, side, scene.anatomy, 0.02):
            return place + strip
    return None


def _spot(rng, name, side, scene):
    centre, size = _draw(rng, name, side, scene)
    size = np.clip(size, MIN_EXTENT, 0.10)
    polygon = star(centre, ellipse(*size) * wavy(rng, 0.04))[::2]
    u = lung_uv(centre, side, scene.anatomy)[0]
    in_zone = u < ZONE_EDGE[0] if name == 'Nodule' else u > ZONE_EDGE[1]
    return polygon if in_zone and clear_of_walls(polygon[::3], side, scene.anatomy, 0.0) else None


def _fracture(rng, name, side, scene):
    centre, size = _draw(rng, name, side, scene)
    points = np.concatenate([rib[5:-1] for rib in scene.anatomy.ribs[side]])
    axes = np.concatenate([np.gradient(rib, axis=0)[5:-1] for rib in scene.anatomy.ribs[side]])
    nearest = np.linalg.norm(points - centre, axis=1).argmin()
    axis = axes[nearest] / np.linalg.norm(axes[nearest])
    length, width = np.clip(size.max(), 0.06, 0.11), np.clip(size.min(), 0.045, 0.06)
    unit = DIRECTIONS[::2] * [length / 2, width / 2]
    return points[nearest] + unit[:, :1] * axis + unit[:, 1:] * [-axis[1], axis[0]]


PLACERS = {
    'Emphysema': _whole_lung, 'Diffuse Nodule': _whole_lung, 'Effusion': _effusion, 'Consolidation': _consolidation,
    'Pneumothorax': _along_wall, 'Pleural Thickening': _along_wall, 'Atelectasis': _free_opacity, 'Mass': _free_opacity,
    'Fibrosis': _fibrosis, 'Fracture': _fracture, 'Nodule': _spot, 'Calcification': _spot,
}
KEEP_CLEAR = {      # of what a class keeps clear, as far as there is room
    'Effusion': ('Effusion',), 'Consolidation': OPACITIES, 'Pneumothorax': OPACITIES + ('Pneumothorax',),
    'Pleural Thickening': OPACITIES + ('Pneumothorax', 'Pleural Thickening'),
    'Atelectasis': OPACITIES, 'Mass': OPACITIES,
    'Fibrosis': OPACITIES + ('Pneumothorax', 'Pleural Thickening', 'Fibrosis'),
    'Fracture': OPACITIES + ('Fracture', 'Pleural Thickening'),
    'Nodule': tuple(n for n in ORDER if n not in ('Emphysema', 'Diffuse Nodule', 'Cardiomegaly')),
    'Calcification': tuple(n for n in ORDER if n not in ('Emphysema', 'Diffuse Nodule', 'Cardiomegaly')),
    'Emphysema': (), 'Diffuse Nodule': (),
}


def place(rng: np.random.Generator, request: labels.Request, scene: Scene) -> Finding | None:
    """Put one finding into the scene: the least overlapping of up to TRIES candidates that obey the rule of the class.

    None when no candidate obeys it (the lung is too small for it): a few in ten thousand, and the finding is left out.
    """
    name = labels.classes()[request.label - 1]
    if name == 'Cardiomegaly':
        return Finding(request.label, name, request.side, scene.anatomy.heart)
    best, least = None, np.inf
    for _ in range(TRIES):
        polygon = PLACERS[name](rng, name, request.side, scene)
        if polygon is None:
            continue
        worst = overlap(polygon, scene, KEEP_CLEAR[name])
        if worst < least:
            best, least = polygon, worst
        if least < 0.15:
            break
    return None if best is None else Finding(request.label, name, request.side, best)


def place_all(rng: np.random.Generator, requests: list[labels.Request], anatomy: Anatomy) -> list[Finding]:
    """All findings of an image in drawing order."""
    names = labels.classes()
    scene = Scene(anatomy, [])
    for request in sorted(requests, key=lambda r: ORDER.index(names[r.label - 1])):
        finding = place(rng, request, scene)
        if finding is not None:
            scene.findings.append(finding)
    return scene.findings
