"""Pictures of detections and ground truth: masks, boxes and text plates, drawn with OpenCV. All colours are RGB."""
import colorsys
from pathlib import Path

import cv2
import numpy as np

from relnet_jax.files import replacing

PALETTE = (
    (255, 99, 71), (64, 196, 255), (255, 202, 40), (102, 222, 120), (224, 105, 255), (184, 120, 62), (0, 214, 193),
    (255, 145, 0), (126, 140, 255), (205, 230, 60), (255, 64, 129), (160, 225, 255), (255, 150, 190), (178, 255, 200),
    (200, 180, 255), (255, 235, 170))
FONT = cv2.FONT_HERSHEY_SIMPLEX
TALLEST = 'Ag(|,'     # its height is that of a line of text
MASK_OPACITY = 0.35
LONGER_SIDE = (896, 2048)  # of a picture, in pixels
PHANTOM_CAPTION = 'PHANTOM: synthetic, not a patient'


def color(label: int) -> tuple:
    """RGB of a class label >= 1; fixed, and the same in every picture."""
    if 1 <= label <= len(PALETTE):
        return PALETTE[label - 1]
    rgb = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.55 + 0.1 * (label % 4), 1.0)
    return tuple(round(255 * v) for v in rgb)


def draw_detections(image, boxes, labels, scores, masks, class_names, *, title: str = '', caption: str = '',
                    notes=None, longer_side: tuple = LONGER_SIDE, text_size: float = 1.0) -> np.ndarray:
    """Draw objects over an image; uint8 [h', w', 3].

    `image` uint8 [h, w, 3] RGB; `boxes` xyxy [D, 4] in its pixels; `labels` int [D] from 1; `scores` [D], or None for
    ground truth; `masks` an iterable of D bool masks of the whole image at any resolution, or None; `class_names` holds
    the name of label i at i - 1. Small images are enlarged and huge ones reduced so that the longer side lies within
    `longer_side`, which keeps the text readable. `title` stands in a bar above the image, `caption` in one below;
    `notes`, D texts, behind the names. text_size: of all text, as a multiple of what suits a picture of its own.
    """
    h, w = image.shape[:2]
    low, high = longer_side
    scale = min(max(low / max(h, w), 1.0), high / max(h, w))
    size = max(round(w * scale), 1), max(round(h * scale), 1)
    if scale != 1:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    canvas = np.ascontiguousarray(image).copy()
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4) * np.tile([size[0] / w, size[1] / h], 2)
    unit = max(size) / 900  # all thicknesses and text sizes follow the picture
    thick = max(round(2 * unit), 1)

    if masks is not None:
        for mask, label in zip(masks, labels, strict=True):
            _draw_mask(canvas, mask, color(int(label)), thickness=max(thick // 2, 1))
    for box, label in zip(boxes, labels, strict=True):
        x1, y1, x2, y2 = _pixels(box, size)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), (0, 0, 0), thick + 2, cv2.LINE_AA)  # dark rim: shows on white, too
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color(int(label)), thick, cv2.LINE_AA)
    taken, unit = [], unit * text_size
    for i, (box, label) in enumerate(zip(boxes, labels)):
        text = class_names[int(label) - 1] + (f' {scores[i]:.2f}' if scores is not None else '')
        text += notes[i] if notes is not None else ''
        _draw_plate(canvas, text, _pixels(box, size), color(int(label)), taken, unit=unit)
    return np.concatenate([part for part in (
        _bar(title, size[0], unit), canvas, _bar(caption, size[0], unit)) if part is not None])


def draw_side_by_side(truth, prediction, *, gap: int = 8) -> np.ndarray:
    """Two pictures uint8 [h, w, 3] and [h, w', 3], left and right of a white gap: uint8 [h, w + gap + w', 3].

    Raises ValueError for pictures of different heights.
    """
    if truth.shape[0] != prediction.shape[0]:
        raise ValueError(f'side by side: expected equal heights, got {truth.shape} and {prediction.shape}')
    between = np.full((truth.shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([truth, between, prediction], axis=1)


def write_image(path, image) -> None:
    """Write an RGB image at once (`files`); the file's extension gives the format. Raises OSError if that fails."""
    _, data = cv2.imencode(Path(path).suffix, np.ascontiguousarray(image[..., ::-1]))
    with replacing(path) as scratch:
        scratch.write_bytes(data)


def _pixels(box, size) -> tuple:
    """Corner pixels (x1, y1, x2, y2) of a continuous box, inside of the picture of `size` (width, height)."""
    x1, y1 = np.floor(box[:2])
    x2, y2 = np.maximum(np.ceil(box[2:]) - 1, (x1, y1))
    return tuple(int(np.clip(v, 0, m - 1)) for v, m in zip((x1, y1, x2, y2), size * 2))


def _draw_mask(canvas, mask, rgb, *, thickness: int) -> None:
    height, width = canvas.shape[:2]
    mask = np.asarray(mask, np.uint8)
    if mask.shape != (height, width):
        smooth = cv2.resize(mask * 255, (width, height), interpolation=cv2.INTER_LINEAR)
        mask = (smooth >= 128).astype(np.uint8)
    x, y, w, h = cv2.boundingRect(mask)
    if not w:
        return
    region, inside = canvas[y:y + h, x:x + w], mask[y:y + h, x:x + w] > 0
    region[inside] = np.round((1 - MASK_OPACITY) * region[inside] + MASK_OPACITY * np.array(rgb))
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, rgb, thickness, cv2.LINE_AA)


def _ascii(text: str) -> str:
    return text.encode('ascii', 'replace').decode()  # OpenCV's fonts hold nothing else


def _draw_plate(canvas, text, box, rgb, taken: list, *, unit: float) -> None:
    """Text on a plate beside its box: above, else below, else inside, where it covers no earlier plate (`taken`)."""
    height, width = canvas.shape[:2]
    scale, stroke, pad = 0.5 * unit, max(round(1.2 * unit), 1), round(3 * unit)
    text = _ascii(text)
    (tw, th), base = cv2.getTextSize(text, FONT, scale, stroke)
    while tw + 2 * pad > width and len(text) > 1:
        text = text[:-1]
        (tw, th), base = cv2.getTextSize(text, FONT, scale, stroke)
    w, h = tw + 2 * pad, th + base + 2 * pad
    x1, y1, x2, y2 = box
    places = [(x, y) for y in (y1 - h, y2 + 1, y1, y2 - h, y1 + h, y1 - 2 * h, y2 + h) for x in (x1, x2 - w)]
    places = [(int(np.clip(x, 0, max(width - w, 0))), y) for x, y in places if 0 <= y and y + h <= height]
    places = places or [(int(np.clip(x1, 0, max(width - w, 0))), int(np.clip(y1, 0, max(height - h, 0))))]

    def covered(place):
        x, y = place
        return sum(max(min(x + w, b[2]) - max(x, b[0]), 0) * max(min(y + h, b[3]) - max(y, b[1]), 0) for b in taken)
    x, y = min(places, key=covered)
    taken.append((x, y, x + w, y + h))
    canvas[y:y + h, x:x + w] = rgb
    dark = np.dot(rgb, (0.299, 0.587, 0.114)) > 110
    cv2.putText(canvas, text, (x + pad, y + pad + th), FONT, scale, (0, 0, 0) if dark else (255, 255, 255), stroke,
                cv2.LINE_AA)


def _bar(text, width: int, unit: float):
    """A dark bar [height, width, 3] with text that fits it, or None without text."""
    if not text:
        return None
    text, scale, stroke, pad = _ascii(text), 0.55 * unit, max(round(1.2 * unit), 1), round(6 * unit)
    (tw, _), _ = cv2.getTextSize(text, FONT, scale, stroke)
    (_, th), base = cv2.getTextSize(TALLEST, FONT, scale, stroke)   # not the text's own: all bars are of one height
    if tw + 2 * pad > width:
        scale *= (width - 2 * pad) / tw
    bar = np.full((th + base + 2 * pad, width, 3), 32, np.uint8)
    cv2.putText(bar, text, (pad, pad + th), FONT, scale, (255, 255, 255), stroke, cv2.LINE_AA)
    return bar
