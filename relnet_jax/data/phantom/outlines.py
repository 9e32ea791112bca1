"""Outlines of the phantom's findings: stars of rays cut at the borders of the aerated lung, and lung coordinates."""
import cv2
import numpy as np

from relnet_jax.data.phantom.anatomy import NOMINAL_LUNGS, Anatomy

RAYS = 48
ANGLES = np.arange(RAYS) * 2 * np.pi / RAYS
DIRECTIONS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)


def ray_lengths(centre: np.ndarray, contour: np.ndarray) -> np.ndarray:
    """Distance [RAYS] from a point to a closed contour [n, 2] along DIRECTIONS; inf where the ray does not meet it."""
    a, b = contour - centre, np.roll(contour, -1, 0) - centre
    d = DIRECTIONS[:, None]
    edge = b - a
    denominator = d[..., 0] * edge[:, 1] - d[..., 1] * edge[:, 0]
    with np.errstate(divide='ignore', invalid='ignore'):
        distance = (a[:, 0] * edge[:, 1] - a[:, 1] * edge[:, 0]) / denominator
        along = (a[:, 0] * d[..., 1] - a[:, 1] * d[..., 0]) / denominator
    return np.where((distance > 0) & (along >= 0) & (along <= 1), distance, np.inf).min(1)


def aerated(centre: np.ndarray, side: int, anatomy: Anatomy) -> np.ndarray:
    """Ray lengths [RAYS] to the border of the lung not covered by the heart, the room for every finding in the lung."""
    return np.minimum(ray_lengths(centre, anatomy.lungs[side]), ray_lengths(centre, anatomy.heart))


def inside(point: np.ndarray, contour: np.ndarray) -> bool:
    return cv2.pointPolygonTest(contour.astype(np.float32), (float(point[0]), float(point[1])), False) > 0


def in_lung(point: np.ndarray, side: int, anatomy: Anatomy) -> bool:
    return inside(point, anatomy.lungs[side]) and not inside(point, anatomy.heart)


def wavy(rng: np.random.Generator, size: float) -> np.ndarray:
    """Smooth positive factors [RAYS] around 1, for irregular outlines."""
    amplitude, phase = rng.normal(0, size, 4) / np.arange(1, 5) ** 0.5, rng.uniform(0, 2 * np.pi, 4)
    return np.exp((amplitude[:, None] * np.cos(np.arange(2, 6)[:, None] * ANGLES + phase[:, None])).sum(0))


def ellipse(width: float, height: float) -> np.ndarray:
    """Radii [RAYS] of a slightly squared ellipse with these full axes."""
    p = 2.6
    return (np.abs(DIRECTIONS[:, 0] * 2 / width) ** p + np.abs(DIRECTIONS[:, 1] * 2 / height) ** p) ** (-1 / p)


def star(centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return centre + DIRECTIONS * radii[:, None]


def own_frame(box: np.ndarray, side: int, anatomy: Anatomy) -> np.ndarray:
    """A box (centre, size) of the table's frame in the patient's own: lungs are carried onto lungs."""
    nominal, own = NOMINAL_LUNGS[side], anatomy.lung_boxes[side]
    scale = (own[2:] - own[:2]) / (nominal[2:] - nominal[:2])
    return np.concatenate([own[:2] + (box[:2] - nominal[:2]) * scale, box[2:] * scale])


def lung_uv(point: np.ndarray, side: int, anatomy: Anatomy) -> np.ndarray:
    """(u, v): 0 to 1 from lateral to medial and from apex to base of the lung's box."""
    box = anatomy.lung_boxes[side]
    u, v = (point - box[:2]) / (box[2:] - box[:2])
    return np.array([u if side == 0 else 1 - u, v])


def normals(line: np.ndarray) -> np.ndarray:
    """Unit normals [n, 2] of a line of points [n, 2]."""
    tangent = np.gradient(line, axis=0)
    return np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.linalg.norm(tangent, axis=1, keepdims=True)


def clear_of_walls(polygon: np.ndarray, side: int, anatomy: Anatomy, margin: float) -> bool:
    """Whether all points lie in the lung, `margin` off its wall, and outside the heart."""
    lung, heart = anatomy.lungs[side].astype(np.float32), anatomy.heart.astype(np.float32)
    return all(cv2.pointPolygonTest(lung, p, True) > margin and cv2.pointPolygonTest(heart, p, False) < 0
               for p in ((float(x), float(y)) for x, y in polygon))
