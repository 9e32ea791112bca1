"""Images for benchmarks/parity.py, in the sizes that its cases ask for."""
from pathlib import Path

import cv2
import numpy as np
from ml_collections import ConfigDict

from relnet_jax.config import load
from relnet_jax.data.images import read_image

ROOT = Path(__file__).resolve().parents[1]
CANVAS, LARGER, SMALL = (832, 1344), (896, 1472), (640, 704)
FULL = (800, 1333)              # what torchvision makes of an image of this aspect
STEP = 64                       # coarsest stride of the FPN


def pipeline_config() -> ConfigDict:
    """configs/base.py with torchvision's sizes."""
    config = load(str(ROOT / 'configs' / 'base.py'))
    with config.unlocked():
        config.data.canvas, config.data.scale, config.data.max_size = CANVAS, *FULL
    return config


def size_inside(height: int, width: int, canvas: tuple[int, int]) -> tuple[int, int]:
    """A size of about this aspect, a multiple of STEP on both sides, that leaves some of the canvas empty."""
    factor = min((canvas[0] - STEP) / height, (canvas[1] - STEP) / width)
    return tuple(max(STEP, round(side * factor / STEP) * STEP) for side in (height, width))


def on_canvas(images: list[np.ndarray], canvas: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [B, H, W, 3], true sizes float32 [B, 2]); the padding is noise, which nothing may look at."""
    padded = np.random.default_rng(0).integers(0, 256, (len(images), *canvas, 3), dtype=np.uint8)
    for row, image in zip(padded, images):
        row[:image.shape[0], :image.shape[1]] = image
    return padded, np.float32([image.shape[:2] for image in images])


def fits(file: Path, config: ConfigDict) -> bool:
    """Whether torchvision's size of an image is one that the canvas has room for."""
    height, width = read_image(file).shape[:2]
    factor = min(FULL[0] / min(height, width), FULL[1] / max(height, width))
    return height * factor <= config.data.canvas[0] and width * factor <= config.data.canvas[1]


def write_images(folder: Path, files: list[Path]) -> dict[str, list[str]]:
    """The images of each case as .npy files; several cases share some."""
    def write(name: str, image: np.ndarray) -> str:
        np.save(folder / f'{name}.npy', image)
        return f'{name}.npy'

    def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)

    images = [read_image(file) for file in files]
    inside = {canvas: [write(f'{canvas[0]}_{i}', resized(image, size_inside(*image.shape[:2], canvas)))
                       for i, image in enumerate(images)] for canvas in (CANVAS, SMALL)}
    full = [write(f'full_{i}', resized(image, FULL)) for i, image in enumerate(images)]
    whole = [write(f'whole_{i}', image) for i, image in enumerate(images) if fits(files[i], pipeline_config())]
    return {'alone': inside[CANVAS], 'canvas': inside[CANVAS], '800x1333': full[:2], 'padding': full, 'whole': whole,
            'batch': [full[2], inside[CANVAS][0]], 'group_norm': inside[SMALL], 'convnext': inside[SMALL],
            'c4': inside[SMALL], 'bfloat16': inside[CANVAS]}
