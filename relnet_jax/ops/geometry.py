"""Where boxes lie relative to each other: the inputs of every spatial relation.

All functions are batched over leading dimensions, compute in float32 whatever comes in, and are constants for
differentiation: no gradient flows into boxes.
"""
import jax
import jax.numpy as jnp
import numpy as np

from relnet_jax.types import Array


def _centres_sizes(boxes: Array) -> tuple[Array, Array]:
    """Centres and inclusive sizes (x2 - x1 + 1), each [..., 2] as (x, y).

    The size is at least 1: a true box has that anyway, and an inverted padding row then stays finite.
    """
    boxes = jax.lax.stop_gradient(jnp.asarray(boxes, jnp.float32))
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, jnp.maximum(high - low + 1, 1.0)


def pair_geometry(query_boxes: Array, key_boxes: Array) -> Array:
    """Log-scaled offset and size ratio of each key box n seen from each query box m.

    query_boxes [..., N, 4], key_boxes [..., Q, 4] -> float32 [..., N, Q, 4]:
    log max(|dx| / w_m, 1e-3), log max(|dy| / h_m, 1e-3), log(w_n / w_m), log(h_n / h_m).

    Hu et al., Relation Networks for Object Detection, CVPR 2018. Their released code has the last two
    with the opposite sign; this is the sign of the paper.
    """
    query_centre, query_size = (x[..., :, None, :] for x in _centres_sizes(query_boxes))
    key_centre, key_size = (x[..., None, :, :] for x in _centres_sizes(key_boxes))
    offset = jnp.log(jnp.maximum(jnp.abs(query_centre - key_centre) / query_size, 1e-3))
    return jnp.concatenate([offset, jnp.log(key_size / query_size)], axis=-1)


def geometry_embedding(query_boxes: Array, key_boxes: Array, *, dim: int = 64) -> Array:
    """Sinusoidal embedding of `pair_geometry`: [..., N, 4], [..., Q, 4] -> float32 [..., N, Q, dim].

    Each of the four numbers is multiplied by 100, divided by 1000^(8k / dim) for k = 0 .. dim/8 - 1, and gives first
    all sines, then all cosines: four blocks of dim/4. Raises ValueError if dim is not a multiple of 8.
    """
    if dim <= 0 or dim % 8:
        raise ValueError(f'geometry embedding: dim must be a positive multiple of 8, got {dim}')
    count = dim // 8
    wavelength = 1000.0 ** (jnp.arange(count, dtype=jnp.float32) / count)
    phase = 100.0 * pair_geometry(query_boxes, key_boxes)[..., None] / wavelength
    waves = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)
    return waves.reshape(*waves.shape[:-2], dim)


def polar_offsets(boxes: Array, image_size: Array) -> Array:
    """Distance and angle from each box j to each box i, in shares of the image.

    boxes [B, N, 4] pixels, image_size [B, 2] as (height, width) -> float32 [B, N, N, 2]: at [b, i, j] the length and
    atan2(dy, dx), in (-pi, pi], of centre_i - centre_j, where centres are divided by image width and height.
    A box seen from itself has distance 0 and angle 0.

    Xu et al., Spatial-Aware Graph Relation Network, CVPR 2019.
    """
    size = jnp.maximum(jnp.asarray(image_size, jnp.float32)[:, None, ::-1], 1.0)
    boxes = jax.lax.stop_gradient(jnp.asarray(boxes, jnp.float32))
    twice = boxes[..., :2] + boxes[..., 2:]
    # Scaled after the subtraction: a compiler that fuses a multiplication into it leaves rounding residues, whose
    # angle is arbitrary, where equal centres must give an exact 0.
    offset = (twice[:, :, None] - twice[:, None, :]) / (2 * size[:, None])
    distance = jnp.sqrt(jnp.sum(offset * offset, axis=-1))
    return jnp.stack([distance, jnp.arctan2(offset[..., 1], offset[..., 0])], axis=-1)


def divide_boxes(boxes: Array, *, rows: int, cols: int) -> Array:
    """Cuts each box into rows x cols equal cells, row by row from the top left: [..., 4] -> float32 [..., cells, 4]."""
    boxes = jax.lax.stop_gradient(jnp.asarray(boxes, jnp.float32))
    low, size = boxes[..., None, :2], (boxes[..., 2:] - boxes[..., :2])[..., None, :]
    row, col = jnp.divmod(jnp.arange(rows * cols), cols)
    corner = jnp.stack([col, row], axis=-1)
    count = jnp.array([cols, rows], jnp.float32)
    return jnp.concatenate([low + size * (corner / count), low + size * ((corner + 1) / count)], axis=-1)


def divide_parts(part_boxes: Array, part_valid: Array, *, parts: tuple[int, ...], rows: int,
                 cols: int) -> tuple[Array, Array]:
    """The grid cells of some parts, for relations that look inside an organ.

    part_boxes [B, P, 4], part_valid bool [B, P] -> [B, len(parts) * rows * cols, 4] and the mask of the same length;
    the cells of parts[0] come first. A cell is valid if its part is. Raises IndexError for a part >= P.
    """
    if not all(0 <= p < part_boxes.shape[1] for p in parts):
        raise IndexError(f'divide_parts: parts must lie in 0..{part_boxes.shape[1] - 1}, got {tuple(parts)}')
    chosen = np.array(parts, int)
    cells = divide_boxes(part_boxes[:, chosen], rows=rows, cols=cols)
    return cells.reshape(len(part_boxes), -1, 4), jnp.repeat(part_valid[:, chosen], rows * cols, axis=1)
