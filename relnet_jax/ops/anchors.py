"""Anchor boxes of a feature pyramid (Faster R-CNN, Ren et al. 2015; one size per level as in FPN, Lin et al. 2017)."""
from collections.abc import Sequence

import numpy as np

NECK_STRIDES = {'fpn': (4, 8, 16, 32, 64), 'c4': (16,)}     # of the maps that anchors lie on: P2..P6, or C4


def cell_anchors(sizes: Sequence[float] | np.ndarray, ratios: Sequence[float]) -> np.ndarray:
    """float32 [len(ratios) * len(sizes), 4]: whole-pixel anchors around the origin, ratio-major (height / width)."""
    sizes = np.asarray(sizes, np.float32)
    tall = np.sqrt(np.asarray(ratios, np.float32))
    widths = (np.float32(1) / tall)[:, None] * sizes[None]
    heights = tall[:, None] * sizes[None]
    return np.rint(np.stack([-widths, -heights, widths, heights], -1).reshape(-1, 4) / 2)


def pyramid_anchors(canvas: tuple[int, int], *, strides: Sequence[int], sizes: Sequence,
                    ratios: Sequence[float]) -> list[np.ndarray]:
    """Anchors of every level, float32 [A_l, 4] in canvas pixels, in the order (y, x, anchor).

    Args:
        canvas: (height, width) in pixels.
        strides: nominal stride of each level; a level has ceil(canvas / stride) cells a side. Where the canvas is no
            multiple of it, cells are canvas // cells pixels apart, as torchvision places them.
        sizes: for each level the square root of the anchor area in pixels, one number or several.
        ratios: height / width, shared by all levels.

    Raises:
        ValueError: if there is not one entry of `sizes` for each stride.
    """
    if len(strides) != len(sizes):
        raise ValueError(f'anchor sizes: expected one entry for each of the {len(strides)} strides {tuple(strides)}, '
                         f'got {len(sizes)}')
    levels = []
    for stride, level_sizes in zip(strides, sizes):
        cells = [-(-side // stride) for side in canvas]
        ys, xs = (np.arange(n, dtype=np.float32) * (side // n) for n, side in zip(cells, canvas))
        y, x = np.meshgrid(ys, xs, indexing='ij')
        shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
        levels.append((shifts + cell_anchors(np.atleast_1d(level_sizes), ratios)).reshape(-1, 4))
    return levels
