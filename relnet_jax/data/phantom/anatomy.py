"""The phantom's thorax: outlines of lungs, heart, bones and body, varied from image to image, and their pose.

Everything lives in the thorax frame, the unit square of the statistics table (x right, y down). Its nominal lungs are
the mean emphysema boxes of ChestX-Det, which span whole lungs. `Anatomy.pose` takes thorax coordinates to the image's
unit frame. Left and right are the patient's: the left lung lies on the image's right. Side index: 0 = image left, 1 =
image right.
"""
import functools
from typing import NamedTuple

import numpy as np

PARTS = ('Left Scapula', 'Right Scapula', 'Left Lung', 'Right Lung', 'Heart')

NOMINAL_LUNGS = np.array([[0.148, 0.152, 0.452, 0.764], [0.553, 0.156, 0.846, 0.773]])     # xyxy by side
NOMINAL_HEART = np.array([0.548, 0.612, 0.285, 0.235])     # centre, width, height; cardiomegaly's mean width is 0.41
PIVOT = np.array([0.5, 0.46])                              # of rotation and scale
STEPS = 4                                                  # contour samples for each control point

# Outlines as (u, v): u from lateral (0) to medial (1), v from apex (0) to base (1) of the lung box, clockwise on image
# left. The costophrenic angle is the point (0.07, 1): `TIP` gives its place in the list.
OUTLINES = (
    np.array([(.70, .0), (.86, .06), (.93, .2), (.92, .38), (.94, .55), (.97, .75), (1., .91), (.80, .86), (.55, .845),
              (.30, .89), (.07, 1.), (.0, .86), (.01, .62), (.09, .36), (.25, .14), (.47, .02)]),
    np.array([(.70, .0), (.88, .06), (.97, .2), (.95, .36), (.86, .52), (.74, .68), (.70, .83), (.55, .875), (.36, .89),
              (.19, .92), (.07, 1.), (.0, .86), (.01, .62), (.09, .36), (.25, .14), (.47, .02)]),
)
TIP = 10
WALL = tuple(range(TIP * STEPS, 16 * STEPS)) + tuple(range(STEPS + 1))   # contour samples from the angle up to the apex

HEART = np.array([(-.30, -.96), (.08, -1.), (.42, -.72), (.72, -.28), (.96, .22), (1., .60), (.80, .90), (.30, 1.),
                  (-.35, .98), (-.82, .78), (-1., .25), (-.86, -.35), (-.58, -.75)])
SCAPULA = np.array([(.045, .175), (.10, .150), (.155, .165), (.185, .20), (.205, .29), (.195, .385), (.17, .41),
                    (.145, .36), (.115, .28), (.075, .235)])     # image left; mirrored for the other side
CLAVICLE = np.array([(.075, .155), (.17, .135), (.27, .155), (.37, .165), (.452, .205)])
BODY = np.array([(.385, -.1), (.38, .03), (.34, .075), (.20, .105), (.05, .16), (-.02, .28), (.015, .45), (.075, .58),
                 (.075, .8), (.06, 1.1)])                       # image-left half, from the neck down
MEDIASTINUM = np.array([(.435, -.1), (.44, .12), (.432, .25), (.425, .40), (.41, .55), (.44, .70), (.55, .70),
                        (.59, .56), (.585, .40), (.60, .33), (.592, .27), (.56, .20), (.558, .12), (.565, -.1)])


class Anatomy(NamedTuple):
    """One patient; float64 points [n, 2] in the thorax frame unless said otherwise."""
    lungs: tuple[np.ndarray, np.ndarray]        # closed contours by side, 64 points
    lung_boxes: np.ndarray                      # [2, 4] xyxy, the frame of (u, v) above
    heart: np.ndarray                           # closed contour
    enlarged: bool                              # cardiomegaly
    scapulae: tuple[np.ndarray, np.ndarray]     # closed contours by side
    ribs: tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]   # posterior ribs by side, from the spine outwards
    front_ribs: tuple[np.ndarray, ...]          # centre lines of the faint anterior ribs
    clavicles: tuple[np.ndarray, np.ndarray]
    mediastinum: np.ndarray
    body: np.ndarray
    pose: np.ndarray                            # [2, 3] affine map, thorax frame -> image frame (both unit squares)


@functools.cache
def spline_matrix(points: int, steps: int = STEPS) -> np.ndarray:
    """Closed uniform Catmull-Rom spline: [points * steps, points]; sample steps * i is control point i."""
    t = np.arange(steps)[:, None] / steps
    basis = 0.5 * np.concatenate([
        -t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1)
    matrix = np.zeros((points, steps, points))
    for i in range(points):
        for k in range(4):
            matrix[i, :, (i + k - 1) % points] += basis[:, k]
    return matrix.reshape(-1, points)


def mirrored(points: np.ndarray) -> np.ndarray:
    return points * [-1, 1] + [1, 0]


def to_frame(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Thorax frame -> image frame, [n, 2]."""
    return points @ pose[:, :2].T + pose[:, 2]


def _lung(side: int, box: np.ndarray, wobble: np.ndarray) -> np.ndarray:
    uv = OUTLINES[side] + wobble
    uv[TIP] = OUTLINES[side][TIP]
    if side == 1:
        uv = uv * [-1, 1] + [1, 0]
    return spline_matrix(len(uv)) @ (box[:2] + uv * (box[2:] - box[:2]))


def _ribs(box: np.ndarray, side: int, tilt: float) -> tuple[np.ndarray, ...]:
    """Nine posterior ribs: from the spine slightly up, then out and down along the chest wall."""
    s = np.linspace(0, 1, 14)[:, None]
    out, width, height = (-1, 1)[side], *(box[2:] - box[:2])
    start = (box[2], box[0])[side] + -out * 0.03
    ribs = []
    for k in range(9):
        reach = width * (1.06 - 0.2 * max(0, 2 - k)) + 0.03     # the upper ribs are shorter: the lung narrows
        x = start + out * reach * np.sin(s * np.pi / 2) ** 0.9
        y = box[1] + height * (0.03 + 0.098 * k) + 0.03 * np.sin(s * np.pi) * -1 + (0.07 + 0.012 * k + tilt) * s ** 2.2
        ribs.append(np.concatenate([x, y], 1))
    return tuple(ribs)


def _front_ribs(box: np.ndarray, side: int) -> tuple[np.ndarray, ...]:
    s = np.linspace(0, 1, 10)[:, None]
    lateral, inward, (width, height) = (box[0], box[2])[side], (1, -1)[side], box[2:] - box[:2]
    return tuple(np.concatenate([lateral + inward * width * (0.02 + 0.72 * s),
                                 box[1] + height * (0.22 + 0.145 * k) + 0.075 * s ** 1.4], 1) for k in range(4))


def sample_anatomy(rng: np.random.Generator, *, heart_box: np.ndarray | None) -> Anatomy:
    """One patient. heart_box: (centre x, centre y, width, height) of a cardiomegaly in the table's frame, or None."""
    stretch = rng.uniform(0.95, 1.04, 2)
    boxes = []
    for nominal in NOMINAL_LUNGS:
        centre, half = (nominal[:2] + nominal[2:]) / 2, (nominal[2:] - nominal[:2]) / 2
        half = half * stretch * rng.uniform(0.97, 1.03, 2)
        centre = (centre - PIVOT) * [stretch[0], 1] + PIVOT + [0, rng.normal(0, 0.006)]
        boxes.append(np.concatenate([centre - half, centre + half]))
    lungs = tuple(_lung(side, boxes[side], rng.normal(0, 0.008, OUTLINES[side].shape)) for side in range(2))
    enlarged = heart_box is not None
    normal = NOMINAL_HEART + rng.normal(0, 1, 4) * [0.006, 0.008, 0.012, 0.010]
    x, y, width, height = np.clip(heart_box, [.45, .55, .37, .19], [.62, .64, .50, .30]) if enlarged else normal
    width = stretch[0] * (width if enlarged else min(width, 0.31))      # of the thorax: beyond a half, or clearly below
    heart = spline_matrix(len(HEART)) @ (HEART * [width / 2, height / 2] + [x, y])
    shift = rng.normal(0, 0.008, (2, 2))
    scapulae = tuple(spline_matrix(len(SCAPULA)) @ (side(SCAPULA) + shift[i])
                     for i, side in enumerate((np.asarray, mirrored)))
    tilt = rng.uniform(-0.015, 0.03)
    lift = [0, rng.normal(0, 0.008)]
    body = np.concatenate([BODY, mirrored(BODY)[::-1]])
    angle, scale = np.deg2rad(np.clip(rng.normal(0, 2), -4, 4)), rng.uniform(0.93, 1.08)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = PIVOT + np.array([0, 0.02]) + rng.uniform(-0.03, 0.03, 2) - turn @ PIVOT
    return Anatomy(
        lungs=lungs, lung_boxes=np.array(boxes), heart=heart, enlarged=enlarged, scapulae=scapulae,
        ribs=tuple(_ribs(boxes[side], side, tilt) for side in range(2)),
        front_ribs=_front_ribs(boxes[0], 0) + _front_ribs(boxes[1], 1),
        clavicles=(CLAVICLE + lift, mirrored(CLAVICLE) + lift), mediastinum=MEDIASTINUM, body=body,
        pose=np.concatenate([turn, offset[:, None]], 1))


def part_outlines(anatomy: Anatomy) -> tuple[np.ndarray, ...]:
    """The five parts in the order of PARTS, in the image frame; a patient's left is the image's right."""
    outlines = (anatomy.scapulae[1], anatomy.scapulae[0], anatomy.lungs[1], anatomy.lungs[0], anatomy.heart)
    return tuple(to_frame(points, anatomy.pose) for points in outlines)


def box_of(points: np.ndarray) -> np.ndarray:
    """xyxy [4] of points [n, 2], cut to the unit frame."""
    return np.clip(np.concatenate([points.min(0), points.max(0)]), 0, 1)
