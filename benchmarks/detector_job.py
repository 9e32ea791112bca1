"""What both sides of benchmarks/detector.py work on: images, boxes and sizes by rule. Needs numpy alone.

A job is a dict: `size` of the square images in pixels, `batch`, `objects` an image, `classes` with background,
`weights` (an .npz of a torchvision state dict), `kind` 'train' or 'inference', and `parts`: the parts, not the whole.
"""
import numpy as np

RPN_BATCH, ROIS, POSITIVE_SHARE = 256, 512, 0.25
PROPOSALS = {'train': 2000, 'inference': 1000}
DETECTIONS = 100


def images(job: dict) -> np.ndarray:
    """uint8 [B, S, S, 3]: noise."""
    return np.random.default_rng(0).integers(0, 256, (job['batch'], job['size'], job['size'], 3), dtype=np.uint8)


def boxes(job: dict) -> tuple[np.ndarray, np.ndarray]:
    """xyxy float32 [B, objects, 4] of sides from 1/8 to 1/2 of the image, and labels from 1 int64 [B, objects]."""
    rng, shape = np.random.default_rng(1), (job['batch'], job['objects'])
    side = rng.uniform(job['size'] / 8, job['size'] / 2, (*shape, 2))
    corner = rng.uniform(0, job['size'] - side)
    return np.concatenate([corner, corner + side], -1).astype(np.float32), rng.integers(1, job['classes'], shape)


def rois(job: dict, count: int) -> np.ndarray:
    """xyxy float32 [B, count, 4] of all sizes that a pyramid has levels for."""
    rng = np.random.default_rng(2)
    side = job['size'] * np.exp(rng.uniform(np.log(1 / 32), np.log(0.9), (job['batch'], count, 2)))
    corner = rng.uniform(0, job['size'] - side)
    return np.concatenate([corner, corner + side], -1).astype(np.float32)


def positives(job: dict) -> int:
    """RoIs an image that teach masks in the parts: about five proposals hit an object, and the object itself."""
    return min(6 * job['objects'], int(ROIS * POSITIVE_SHARE))


def maps(job: dict, channels: tuple[int, ...], strides: tuple[int, ...]) -> list[np.ndarray]:
    """Normal float32 [B, S / stride, S / stride, channels] for each."""
    rng = np.random.default_rng(3)
    return [rng.standard_normal((job['batch'], job['size'] // s, job['size'] // s, c), np.float32)
            for c, s in zip(channels, strides)]
