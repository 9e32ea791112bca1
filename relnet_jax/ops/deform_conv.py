"""Deformable 3x3 convolution (Dai et al., ICCV 2017), with modulation (Zhu et al., CVPR 2019), by gathers."""
import jax
import jax.numpy as jnp


def deform_conv(x: jax.Array, offsets: jax.Array, kernel: jax.Array, modulation: jax.Array | None = None, *,
                stride: int = 1) -> jax.Array:
    """3x3 convolution, zero padding 1, each of whose nine taps reads the map where its offset says.

    Args:
        x: map [B, H, W, C].
        offsets: float32 [B, H', W', 9, 2] (dy, dx) in cells, taps row by row, H' = ceil(H / stride).
        kernel: [3, 3, C, out].
        modulation: [B, H', W', 9], factor of each tap; None = 1.
        stride: static.

    Returns:
        [B, H', W', out] in the dtype of x. Taps are bilinear, and zero outside the map: one that is less than a cell
        outside still sees its share of the border. Differentiable in all four arrays; the gradient of an offset is that
        of the bilinear weights, one-sided on a cell.

    Raises:
        ValueError: if offsets do not fit the map and stride.
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    b, h, w, c = x.shape
    rows, columns = -(-h // stride), -(-w // stride)
    if offsets.shape != (b, rows, columns, 9, 2):
        raise ValueError(f'deform_conv: expected offsets {(b, rows, columns, 9, 2)}, got {offsets.shape}')
    tap = jnp.arange(9)
    y = (jnp.arange(rows) * stride)[:, None, None] + tap // 3 - 1 + offsets[..., 0]
    column = (jnp.arange(columns) * stride)[None, :, None] + tap % 3 - 1 + offsets[..., 1]

    flat, first = x.reshape(-1, c), (jnp.arange(b) * h * w)[:, None, None, None]
    top, left = jnp.floor(y), jnp.floor(column)
    sampled = 0
    for down in (0, 1):
        for right in (0, 1):
            yi, xi = top + down, left + right
            weight = (1 - jnp.abs(y - yi)) * (1 - jnp.abs(column - xi))
            weight = jnp.where((yi >= 0) & (yi < h) & (xi >= 0) & (xi < w), weight, 0)
            weight = weight if modulation is None else weight * modulation
            # Clipped before the cast: an offset may be anything, and an index out of the map has weight 0.
            cell = jnp.clip(yi, 0, h - 1).astype(jnp.int32) * w + jnp.clip(xi, 0, w - 1).astype(jnp.int32)
            sampled = sampled + flat[first + cell] * weight[..., None].astype(x.dtype)
    sampled = sampled.reshape(b * rows * columns, 9 * c)
    return (sampled @ kernel.reshape(9 * c, -1).astype(x.dtype)).reshape(b, rows, columns, -1)
