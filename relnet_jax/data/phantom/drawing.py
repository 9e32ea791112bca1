"""Drawing the phantom: the thorax, the findings, exposure and grain, as one grey image.

Values run from 0 (black, air) to 1 (white, bone). Coordinates are shares of the frame and are drawn at any size; smooth
fields are made on small fixed grids and enlarged, so that the same image at two sizes differs by its grain alone.
"""
import cv2
import numpy as np

from relnet_jax.data.phantom.anatomy import Anatomy, to_frame
from relnet_jax.data.phantom.looks import Appearance
from relnet_jax.data.phantom.places import Finding

SHIFT = 4       # fractional bits of OpenCV's coordinates
LABEL = 'PHANTOM'


def _fixed(points: np.ndarray, size: int) -> np.ndarray:
    """Shares of the frame -> OpenCV's fixed point; its pixel i is centred at i, ours at i + 0.5."""
    return np.rint((points * size - 0.5) * (1 << SHIFT)).astype(np.int32)


def _fill(outlines: list[np.ndarray], size: int, *, blur: float = 0.0) -> np.ndarray:
    """Coverage of polygons, float32 [size, size]; blur: standard deviation, share of the frame."""
    mask = np.zeros((size, size), np.uint8)
    for points in outlines:
        cv2.fillPoly(mask, [_fixed(points, size)], 255, cv2.LINE_AA, SHIFT)
    return _blurred(mask, blur * size).astype(np.float32) * np.float32(1 / 255)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma >= 0.3 else image


def _strokes(lines: list[np.ndarray], width: float, size: int, *, blur: float = 0.0) -> np.ndarray:
    """Open lines of one width (share of the frame), float32 [size, size] in 0..1."""
    mask = np.zeros((size, size), np.uint8)
    fixed = [_fixed(points, size) for points in lines]
    cv2.polylines(mask, fixed, False, 255, max(1, round(width * size)), cv2.LINE_AA, SHIFT)
    return _blurred(mask, blur * size).astype(np.float32) * np.float32(1 / 255)


def _field(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Smooth random field, float32 [size, size], about unit standard deviation."""
    grid = rng.standard_normal((cells, cells), np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * np.float32(1.3)


def _pull(image: np.ndarray, target: float | np.ndarray, mask: np.ndarray) -> None:
    """Move the image towards the target by `mask`, in place."""
    image += mask * (target - image)


def _vessels(rng: np.random.Generator, anatomy: Anatomy) -> list[np.ndarray]:
    """Curved centre lines [7, 2] from the hila outwards, thorax frame."""
    lines = []
    t = np.linspace(0, 1, 7)[:, None]
    for side in range(2):
        box, out = anatomy.lung_boxes[side], (-1, 1)[side]
        width, height = box[2:] - box[:2]
        hilum = np.array([(box[2], box[0])[side] + out * 0.06 * width, box[1] + 0.48 * height])
        for angle in np.linspace(-1.35, 1.35, 11) + rng.normal(0, 0.1, 11):
            reach = np.array([np.cos(angle) * out * width * 0.8, np.sin(angle) * height * 0.55])
            bend = rng.normal(0, 0.018, 2) * (t * (1 - t) * 4)
            lines.append(hilum + reach * t * rng.uniform(0.6, 1.0) + bend)
    return lines


def draw_anatomy(rng: np.random.Generator, anatomy: Anatomy, size: int) -> np.ndarray:
    """The thorax without findings, float32 [size, size]."""
    def posed(points):
        return to_frame(points, anatomy.pose)

    image = np.full((size, size), 0.05, np.float32)
    body = _fill([posed(anatomy.body)], size, blur=0.008)
    _pull(image, 0.47 + 0.025 * _field(rng, 10, size), body)
    down = np.linspace(0, 1, size, dtype=np.float32)[:, None] - np.float32(anatomy.pose[1, 2])
    abdomen = body * (0.92 / (1 + np.exp(-(down - 0.70) / 0.03)))
    _pull(image, 0.73, abdomen)
    bones = _fill([posed(p) for p in anatomy.scapulae], size, blur=0.003) * 0.09
    rims = [posed(np.concatenate([p, p[:1]])) for p in anatomy.scapulae]
    bones += _strokes(rims, 0.007, size, blur=0.002) * 0.10
    lungs = _fill([posed(p) for p in anatomy.lungs], size, blur=0.003)
    texture = 0.24 + 0.018 * _field(rng, 24, size) + 0.012 * _field(rng, 64, size)
    _pull(image, texture, lungs)
    vessels = [posed(p) for p in _vessels(rng, anatomy)]
    stems = [line[:4] for line in vessels]
    branches = _strokes(vessels, 0.004, size, blur=0.001) + _strokes(stems, 0.009, size, blur=0.002)
    image += lungs * branches * 0.08
    ribs = [posed(rib) for side in anatomy.ribs for rib in side]
    bones += _strokes(ribs, 0.029, size, blur=0.0015) * 0.13     # cortex, brighter than ...
    bones -= _strokes(ribs, 0.019, size, blur=0.003) * 0.05      # ... the marrow inside
    bones += _strokes([posed(rib) for rib in anatomy.front_ribs], 0.022, size, blur=0.003) * 0.045
    bones += _strokes([posed(p) for p in anatomy.clavicles], 0.030, size, blur=0.003) * 0.14
    image += bones * (1 - 0.9 * abdomen * (1 - lungs))
    _pull(image, 0.68, _fill([posed(anatomy.mediastinum)], size, blur=0.008) * 0.92)
    spine = np.array([(0.497, -0.05), (0.496, 0.5), (0.497, 1.1)])
    image += _strokes([posed(spine)], 0.064, size, blur=0.008) * 0.045
    discs = [posed(np.array([(0.470, y), (0.524, y)])) for y in np.arange(0.02, 1, 0.055)]
    image -= _strokes(discs, 0.006, size, blur=0.003) * 0.03
    trachea = np.array([(0.497, -0.05), (0.495, 0.15), (0.492, 0.27)])
    image -= _strokes([posed(trachea)], 0.030, size, blur=0.005) * 0.14
    _pull(image, 0.74, _fill([posed(anatomy.heart)], size, blur=0.005) * 0.92)
    return image


def draw_region(image: np.ndarray, outline: np.ndarray, look: Appearance, clouds: np.ndarray) -> None:
    """One finding, in place. outline: [n, 2] shares of the frame; clouds: a field, as large as the image."""
    size = len(image)
    margin = 3 * look.soft * size + 2
    x1, y1 = np.maximum(np.floor(outline.min(0) * size - margin), 0).astype(int)
    x2, y2 = np.minimum(np.ceil(outline.max(0) * size + margin), size).astype(int)
    sharp = np.zeros((y2 - y1, x2 - x1), np.uint8)
    cv2.fillPoly(sharp, [_fixed(outline - np.array([x1, y1]) / size, size)], 255, cv2.LINE_AA, SHIFT)
    depth = cv2.distanceTransform((sharp > 127).astype(np.uint8), cv2.DIST_L2, 3)
    depth *= np.float32(1 / max(depth.max(), 1))
    y, x = np.mgrid[y1:y2, x1:x2].astype(np.float32) / size
    target = np.float32(look.level) + look.cloud * clouds[y1:y2, x1:x2] + look.dome * (2 * depth - 1)
    target += look.bands * np.sin(y * (2 * np.pi / 0.030))
    wave = np.float32(2 * np.pi / 0.034)
    target += look.mesh * (np.maximum(np.sin((x + y) * wave), np.sin((x - y) * wave)) - 0.35)
    mask = _blurred(sharp, look.soft * size).astype(np.float32) * np.float32(min(look.opacity, 1) / 255)
    _pull(image[y1:y2, x1:x2], np.clip(target, 0, 1.05), mask)


def draw_dots(rng: np.random.Generator, image: np.ndarray, outline: np.ndarray) -> None:
    """Diffuse nodules: fine bright dots on a jittered grid inside the outline, in place."""
    size = len(image)
    low, high = outline.min(0), outline.max(0)
    axes = (np.arange(low[i], high[i], 0.024) for i in range(2))
    grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
    grid = grid + rng.uniform(-0.007, 0.007, grid.shape)
    contour = outline.astype(np.float32)
    mask = np.zeros((size, size), np.uint8)
    for point in grid:
        if cv2.pointPolygonTest(contour, (float(point[0]), float(point[1])), True) > 0.005:
            centre = tuple(int(v) for v in _fixed(point, size))
            cv2.circle(mask, centre, int(0.0062 * size * (1 << SHIFT)), 255, -1, cv2.LINE_AA, SHIFT)
    _pull(image, 0.88, _blurred(mask, 0.0015 * size).astype(np.float32) * np.float32(0.9 / 255))


def draw_fracture(image: np.ndarray, outline: np.ndarray) -> None:
    """Bright callus along the rib, a dark cleft across its middle, in place. The outline starts on the rib's axis."""
    size = len(image)
    centre = outline.mean(0)
    along = outline[0] - centre
    across = outline[len(outline) // 4] - centre
    _pull(image, 0.90, _fill([outline], size, blur=0.002) * 0.85)
    cleft = np.stack([centre - 0.9 * across - 0.12 * along, centre + 0.9 * across + 0.12 * along])
    _pull(image, 0.08, _strokes([cleft], 0.011, size, blur=0.001) * 0.95)


def _burn_in(image: np.ndarray) -> None:
    """`LABEL` in white on black, in the lower left corner."""
    scale = max(len(image) / 320, 0.6)      # smaller letters cannot be read
    (width, height), below = cv2.getTextSize(LABEL, cv2.FONT_HERSHEY_PLAIN, scale, 1)
    strip = image[-(height + below + 2):, :width + 4]
    strip[:] = 0
    cv2.putText(strip, LABEL, (2, height + 1), cv2.FONT_HERSHEY_PLAIN, scale, 255, 1, cv2.LINE_AA)


def draw(rng: np.random.Generator, anatomy: Anatomy, findings: list[Finding], looks: list[Appearance | None],
         size: int) -> np.ndarray:
    """The finished image, uint8 [size, size], with `LABEL` burnt in. looks: one per finding, None for those without."""
    image = draw_anatomy(rng, anatomy, size)
    clouds = _field(rng, 40, size)
    for finding, look in zip(findings, looks, strict=True):
        outline = to_frame(finding.polygon, anatomy.pose)
        if look is not None:
            draw_region(image, outline, look, clouds)
        elif finding.name == 'Diffuse Nodule':
            draw_dots(rng, image, outline)
        elif finding.name == 'Fracture':
            draw_fracture(image, outline)
    gain, bias, gamma = rng.uniform(0.92, 1.05), rng.uniform(-0.02, 0.05), np.exp(rng.normal(0, 0.12))
    image = cv2.pow(np.clip(image * np.float32(gain) + np.float32(bias), 0, 1), gamma)
    image += rng.standard_normal((size, size), np.float32) * np.float32(0.012)
    image = np.clip(image * 255, 0, 255).astype(np.uint8)
    _burn_in(image)
    return image
