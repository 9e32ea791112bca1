"""RoIAlign on a feature pyramid (He et al., ICCV 2017) and the level each box reads (Lin et al., CVPR 2017).

Each output cell is the mean of sampling_ratio^2 bilinear samples, that is a weighted sum of 4 * sampling_ratio^2
feature rows (taps). The fast form gathers these rows from the pyramid laid out as one [cells, C] array; its gradient
adds them back. On CPU both go one RoI after the other, so that its rows stay in cache and XLA cannot give every reader
of the result (a convolution, its gradient, ...) taps of its own; elsewhere all at once.
"""
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax.ops.boxes import area
from relnet_jax.types import Array


def assign_levels(boxes: Array, *, min_level: int = 2, max_level: int = 5, canonical_size: float = 224,
                  canonical_level: int = 4) -> Array:
    """Pyramid level int32 [...] of boxes [..., 4] (FPN, equation 1), between min_level and max_level.

    A box of canonical_size^2 pixels belongs to canonical_level. 1e-6 keeps exact powers of two on their level.
    """
    size = jnp.sqrt(area(boxes))
    level = jnp.floor(canonical_level + jnp.log2(size / canonical_size) + 1e-6)
    return jnp.clip(level, min_level, max_level).astype(jnp.int32)


def _axis_samples(low, high, limit, *, output_size, sampling_ratio, aligned):
    """Bilinear samples along one axis, for boxes low..high [B, N] in cells of a map of which `limit` [B, N]
    cells are image.

    Returns (index int32, weight float32), both [2, sampling_ratio, B, N, T]: the two neighbours of sample s
    of each output cell. Samples further than one cell outside get weight 0, nearer ones the border cell.
    """
    offset = 0.5 if aligned else 0.0
    side = high - low if aligned else jnp.maximum(high - low, 1.0)
    bin_side = (side / output_size)[..., None]
    s = (jnp.arange(sampling_ratio) + 0.5).reshape(-1, 1, 1, 1) / sampling_ratio
    position = (low - offset)[..., None] + (jnp.arange(output_size) + s) * bin_side
    limit = limit[..., None]
    inside = (position >= -1.0) & (position <= limit)
    position = jnp.clip(position, 0.0, limit - 1.0)
    lower = jnp.floor(position)
    share = position - lower
    upper = jnp.minimum(lower + 1.0, limit - 1.0)
    weight = jnp.stack([1.0 - share, share]) * inside
    return jnp.stack([lower, upper]).astype(jnp.int32), weight


def _extents(shapes, strides, image_size, batch):
    """Rows and columns of each map that are image, float32 [B, L, 2]."""
    whole = jnp.broadcast_to(jnp.asarray(shapes, jnp.float32), (batch, len(shapes), 2))
    if image_size is None:
        return whole
    return jnp.minimum(whole, jnp.ceil(image_size[:, None] / jnp.asarray(strides, jnp.float32)[:, None]))


def _axes(shapes, strides, boxes, levels, extents, options):
    """((y index, y weight), (x index, x weight), map width [B, N], first row of the map in the flat pyramid [B, N])."""
    cells = [h * w for h, w in shapes]
    limit = jnp.take_along_axis(extents, levels[..., None], axis=1)
    scale = jnp.asarray([1.0 / stride for stride in strides], jnp.float32)[levels]
    boxes = boxes.astype(jnp.float32) * scale[..., None]
    y = _axis_samples(boxes[..., 1], boxes[..., 3], limit[..., 0], **options)
    x = _axis_samples(boxes[..., 0], boxes[..., 2], limit[..., 1], **options)
    width = jnp.asarray([w for _, w in shapes], jnp.int32)[levels]
    start = jnp.asarray(np.cumsum([0] + cells[:-1]), jnp.int32)[levels]
    start += jnp.arange(boxes.shape[0], dtype=jnp.int32)[:, None] * sum(cells)
    return y, x, width, start


def _taps(shapes, strides, boxes, levels, extents, options):
    """(row int32, weight float32), both [4 * r * r, B, N, T, T]: what each output cell sums from the flat pyramid."""
    (yi, yw), (xi, xw), width, start = _axes(shapes, strides, boxes, levels, extents, options)
    r, s = options['sampling_ratio'], options['output_size']
    row = start[..., None, None] + yi[:, :, None, None, :, :, :, None] * width[..., None, None]
    row = row + xi[None, None, :, :, :, :, None, :]
    weight = yw[:, :, None, None, :, :, :, None] * xw[None, None, :, :, :, :, None, :] / (r * r)
    row, weight = (v.reshape(4 * r * r, *boxes.shape[:2], s, s) for v in (row, weight))
    return row, weight


def _flatten(pyramid):
    """[B * sum(H_l * W_l), C] from maps [B, H_l, W_l, C]."""
    maps = [level.reshape(level.shape[0], -1, level.shape[-1]) for level in pyramid]
    return jnp.concatenate(maps, 1).reshape(-1, pyramid[0].shape[-1])


def _unflatten(flat, shapes, batch):
    split = np.cumsum([h * w for h, w in shapes])[:-1]
    maps = jnp.split(flat.reshape(batch, -1, flat.shape[-1]), split, axis=1)
    return tuple(m.reshape(batch, h, w, -1) for m, (h, w) in zip(maps, shapes))


def _gather_forward(flat, rows, weights):
    """Sums over all RoIs at once, one gather for each of the taps."""
    # rows and weights are wanted once for each cell, not once for each channel of it
    rows, weights = jax.lax.optimization_barrier((rows, weights))
    taps = (flat[row].astype(jnp.float32) * weight[..., None] for row, weight in zip(rows, weights))
    return jnp.asarray(sum(taps)).astype(flat.dtype)


def _by_roi(taps):
    """[taps, B, N, T, T] -> [B * N, taps, T * T]."""
    count, batch, rois, size, _ = taps.shape
    return jnp.moveaxis(taps, 0, 2).reshape(batch * rois, count, size * size)


def _loop_forward(flat, rows, weights):
    """The same, one RoI after the other."""
    out = jax.lax.map(lambda roi: _gather_forward(flat, *roi), (_by_roi(rows), _by_roi(weights)))
    return out.reshape(*rows.shape[1:], flat.shape[-1])


def _forward(pyramid, boxes, levels, extents, strides, options):
    shapes = [level.shape[1:3] for level in pyramid]
    taps = _taps(shapes, strides, boxes, levels, extents, options)
    return jax.lax.platform_dependent(_flatten(pyramid), *taps, cpu=_loop_forward, default=_gather_forward)


def _scatter_backward(flat, rows, weights, gradient):
    """`flat` float32 [cells, C] and what flows back to it from `gradient` [B, N, T, T, C]: one scatter-add per tap."""
    for row, weight in zip(rows, weights):
        flat = flat.at[row].add(gradient * weight[..., None])
    return flat


def _loop_backward(flat, rows, weights, gradient):
    """The same, one RoI after the other: its rows stay in cache, and the buffer is updated in place."""
    rows, weights = _by_roi(rows), _by_roi(weights)
    rois, _, cells = weights.shape
    gradient = gradient.reshape(rois, cells, gradient.shape[-1])
    return jax.lax.fori_loop(0, rois, lambda i, flat: flat.at[rows[i]].add(weights[i][..., None] * gradient[i]), flat)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _roi_align(pyramid, boxes, levels, extents, strides, options):
    return _forward(pyramid, boxes, levels, extents, strides, dict(options))


def _roi_align_fwd(pyramid, boxes, levels, extents, strides, options):
    shells = tuple(jnp.zeros((0,) + level.shape[1:3], level.dtype) for level in pyramid)
    return _forward(pyramid, boxes, levels, extents, strides, dict(options)), (shells, boxes, levels, extents)


def _roi_align_bwd(strides, options, residuals, gradient):
    shells, boxes, levels, extents = residuals
    shapes, batch = [shell.shape[1:3] for shell in shells], boxes.shape[0]
    taps = _taps(shapes, strides, boxes, levels, extents, dict(options))
    flat = jnp.zeros((batch * sum(h * w for h, w in shapes), gradient.shape[-1]), jnp.float32)
    flat = jax.lax.platform_dependent(flat, *taps, gradient.astype(jnp.float32), cpu=_loop_backward,
                                      default=_scatter_backward)
    features = _unflatten(flat.astype(shells[0].dtype), shapes, batch)
    return features, jnp.zeros_like(boxes), None, jnp.zeros_like(extents)


_roi_align.defvjp(_roi_align_fwd, _roi_align_bwd)


def roi_align(pyramid: Sequence[Array], boxes: Array, levels: Array, *, strides: Sequence[int], output_size: int,
              image_size: Array | None = None, sampling_ratio: int = 2, aligned: bool = False) -> Array:
    """Features of each box on a fixed grid, with torchvision's semantics.

    Args:
        pyramid: maps [B, H_l, W_l, C], float32 or bfloat16; a single map is a pyramid of one level.
        boxes: float32 [B, N, 4] in pixels of the image. They get zero gradients.
        levels: int32 [B, N], position in `pyramid` (0-based) of the map each box reads.
        strides: pixels per cell of each map.
        output_size: T, cells a side of the result.
        image_size: float32 [B, 2], height and width in pixels of the true images on their canvas: their maps end after
            ceil(size / stride) cells, and what lies beyond is never read. None: the canvas is the image.
        sampling_ratio: bilinear samples a side of each cell.
        aligned: take the centre of cell 0 to lie at half a cell (Detectron2) instead of at 0; without it, boxes
            narrower than a cell are widened to one.

    Returns:
        [B, N, T, T, C] in the dtype of the maps; sums are taken in float32. Samples more than one cell outside the map
        count as 0.

    Raises:
        ValueError: if there is not one stride for each map.
    """
    if len(pyramid) != len(strides):
        raise ValueError(f'roi_align: expected one stride for each of {len(pyramid)} maps, got {len(strides)}')
    options = (('output_size', output_size), ('sampling_ratio', sampling_ratio), ('aligned', aligned))
    extents = _extents([level.shape[1:3] for level in pyramid], strides, image_size, boxes.shape[0])
    return _roi_align(tuple(pyramid), boxes, levels, extents, tuple(strides), options)


def roi_align_plain(pyramid: Sequence[Array], boxes: Array, levels: Array, *, strides: Sequence[int],
                    output_size: int, sampling_ratio: int = 2, aligned: bool = False) -> Array:
    """As `roi_align`, written down as it is defined: bilinear samples, then means. The reference of the tests.

    Reads every box from every map and picks, holds all samples at once, and is differentiated automatically.
    """
    offset, count = (0.5 if aligned else 0.0), output_size * sampling_ratio
    image = jnp.arange(boxes.shape[0])[:, None, None, None]

    def positions(low, high, cells):                  # [B, N, T * r] in cells, and whether they count
        side = high - low if aligned else jnp.maximum(high - low, 1.0)
        at = (low - offset)[..., None] + (jnp.arange(count) + 0.5) * (side / count)[..., None]
        return jnp.clip(at, 0.0, cells - 1.0), (at >= -1.0) & (at <= cells)

    out = 0.0
    for level, (maps, stride) in enumerate(zip(pyramid, strides)):
        height, width = maps.shape[1:3]
        x1, y1, x2, y2 = (boxes[..., i] / stride for i in range(4))
        (y, y_inside), (x, x_inside) = positions(y1, y2, height), positions(x1, x2, width)
        y, x = y[..., :, None], x[..., None, :]
        top, left = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
        bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
        fy, fx = (y - top)[..., None], (x - left)[..., None]
        maps = maps.astype(jnp.float32)
        value = ((1 - fy) * ((1 - fx) * maps[image, top, left] + fx * maps[image, top, right])
                 + fy * ((1 - fx) * maps[image, bottom, left] + fx * maps[image, bottom, right]))
        value *= (y_inside[..., :, None] & x_inside[..., None, :])[..., None]
        value = value.reshape(*boxes.shape[:2], output_size, sampling_ratio, output_size, sampling_ratio, -1)
        out = out + jnp.where((levels == level)[..., None, None, None], value.mean((3, 5)), 0.0)
    return jnp.asarray(out).astype(pyramid[0].dtype)
