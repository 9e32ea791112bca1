import jax
import numpy as np
import pytest

from relnet_jax.ops import masks
from relnet_jax.ops.masks import crop_mask, crop_polygons, paste_mask

crop_targets = jax.jit(masks.crop_targets, static_argnames=('size', 'aligned'))


def ellipse(height, width, centre, radii):
    y, x = np.mgrid[:height, :width] + 0.5
    return (((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 <= 1).astype(np.uint8)


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.float32([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def supersampled(inside, box, size, density=64):
    """Coverage 0..255 by point samples of inside(x, y), density^2 in each cell."""
    share = (np.arange(size * density) + 0.5) / (size * density)
    x, y = np.meshgrid(box[0] + share * (box[2] - box[0]), box[1] + share * (box[3] - box[1]))
    return 255 * inside(x, y).reshape(size, density, size, density).mean((1, 3))


def roi_align_of_mask(mask, roi, size, aligned):
    """torchvision's RoIAlign of one full-size mask at scale 1 with adaptive sampling, in loops."""
    height, width = mask.shape
    x1, y1, x2, y2 = (v - (0.5 if aligned else 0) for v in roi)
    sides = [s if aligned else max(s, 1) for s in (y2 - y1, x2 - x1)]
    count = [max(int(np.ceil(s / size)), 1) for s in sides]
    out = np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        for a, b in np.ndindex(*count):
            y = min(max(y1 + (i + (a + 0.5) / count[0]) * sides[0] / size, 0), height - 1)
            x = min(max(x1 + (j + (b + 0.5) / count[1]) * sides[1] / size, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            fy, fx = y - top, x - left
            out[i, j] += ((1 - fy) * ((1 - fx) * mask[top, left] + fx * mask[top, right])
                          + fy * ((1 - fx) * mask[bottom, left] + fx * mask[bottom, right])) / np.prod(count)
    return out


# ---- training targets ----

@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('roi', [(20., 30, 48, 58), (17.3, 26.1, 60.9, 44.7), (30.2, 40.1, 33.4, 42.9),
                                 (0., 0, 96, 80)],
                         ids=['the box', 'shifted', 'small', 'large'])
def test_target_of_an_exact_crop_is_torchvisions(roi, aligned):
    """Pixels of a 28-pixel box are exactly 4 x 4 cells of a crop with M = 112."""
    mask = np.zeros((80, 96), np.uint8)
    mask[30:58, 20:48] = np.random.default_rng(0).random((28, 28)) < 0.5
    box = np.float32([20, 30, 48, 58])
    crop = crop_mask(mask, box, 112)
    out = crop_targets(crop[None, None], box[None, None], np.float32([[roi]]), np.zeros((1, 1), np.int32), size=14,
                       aligned=aligned)
    np.testing.assert_allclose(out[0, 0], roi_align_of_mask(mask, roi, 14, aligned), atol=1e-4)


def test_target_of_a_resampled_crop_is_close_to_torchvisions():
    mask = ellipse(200, 220, (110.3, 90.8), (61.7, 33.2))
    box = box_of(mask)
    roi = box + np.float32([-9.3, 4.1, 6.2, 8.8])
    out = crop_targets(crop_mask(mask, box, 112)[None, None], box[None, None], roi[None, None],
                       np.zeros((1, 1), np.int32), size=28)
    difference = np.abs(out[0, 0] - roi_align_of_mask(mask, roi, 28, False))
    assert difference.max() < 0.12 and difference.mean() < 2e-3


def test_each_roi_sees_the_object_it_is_matched_to():
    full, empty = np.full((8, 8), 255, np.uint8), np.zeros((8, 8), np.uint8)
    crops = np.stack([np.stack([full, empty]), np.stack([empty, full])])
    boxes = np.float32([[[0, 0, 40, 40], [0, 0, 40, 40]]] * 2)
    rois = np.float32([[[10, 10, 20, 20], [12, 8, 30, 30], [60, 60, 80, 80]]] * 2)
    out = np.asarray(crop_targets(crops, boxes, rois, np.int32([[0, 1, 0]] * 2), size=4))
    np.testing.assert_allclose(out.mean((2, 3)), [[1, 0, 0], [0, 1, 0]], atol=1e-6)   # the third lies outside the box


def test_target_is_zero_beyond_the_ground_truth_box():
    crop = np.full((1, 1, 16, 16), 255, np.uint8)
    roi = np.float32([[[0, 0, 40, 40]]])
    out = crop_targets(crop, np.float32([[[10, 10, 30, 30]]]), roi, np.zeros((1, 1), np.int32), size=4, aligned=True)
    inner = np.zeros((4, 4))
    inner[1:3, 1:3] = 1
    np.testing.assert_allclose(out[0, 0], inner, atol=1e-5)


def test_degenerate_boxes_and_rois_give_finite_targets():
    crops = np.full((1, 2, 8, 8), 255, np.uint8)
    boxes = np.float32([[[0, 0, 0, 0], [5, 5, 25, 25]]])
    rois = np.float32([[[0, 0, 0, 0], [8, 8, 8, 8], [9, 9, 4, 4]]])
    for aligned in (False, True):
        out = np.asarray(crop_targets(crops, boxes, rois, np.int32([[0, 1, 1]]), size=4, aligned=aligned))
        assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
        np.testing.assert_array_equal(out[0, 0], 0)


# ---- crops ----

@pytest.mark.parametrize('box', [(3.25, 4.5, 41.75, 30.25), (10., 10, 13, 12), (7., 9, 8, 10), (-5.5, -3, 60, 50)],
                         ids=['fractional', 'smaller than the crop', 'one pixel', 'beyond the image'])
def test_crop_of_a_mask_holds_exact_areas(box):
    mask = (np.random.default_rng(1).random((40, 50)) < 0.6).astype(np.uint8)
    mask[9, 7] = 1

    def inside(x, y):
        column, row = np.floor(x).astype(int), np.floor(y).astype(int)
        known = (column >= 0) & (column < 50) & (row >= 0) & (row < 40)
        return np.where(known, mask[np.clip(row, 0, 39), np.clip(column, 0, 49)], 0)

    crop = crop_mask(mask, box, 14)
    assert crop.shape == (14, 14) and crop.dtype == np.uint8
    assert np.abs(crop - supersampled(inside, box, 14)).max() < 255 * 0.05
    area = crop.sum() / 255 * (box[2] - box[0]) * (box[3] - box[1]) / 14 ** 2
    if box[0] == int(box[0]) and box[0] >= 0:       # whole pixels: the total area survives
        assert area == pytest.approx(mask[int(box[1]):int(box[3]), int(box[0]):int(box[2])].sum(), rel=0.01)


def test_crop_of_a_boolean_mask_equals_that_of_a_byte_mask():
    mask = ellipse(30, 30, (15, 12), (9, 7))
    np.testing.assert_array_equal(crop_mask(mask.astype(bool), box_of(mask), 28), crop_mask(mask, box_of(mask), 28))


def test_polygon_crop_matches_point_samples():
    """A star that runs out of the box, in both directions of travel."""
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    radius = np.where(np.arange(10) % 2, 12, 40)
    x, y = 50 + radius * np.cos(angle), 40 + 0.8 * radius * np.sin(angle)
    box = (20., 12.5, 84.25, 60)

    def inside(px, py):
        crossings = np.zeros(px.shape, int)
        for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1)):
            crossings += ((y0 <= py) != (y1 <= py)) & (px < x0 + (py - y0) * (x1 - x0) / (y1 - y0))
        return crossings % 2

    expected = supersampled(inside, box, 28)
    for order in (slice(None), slice(None, None, -1)):
        crop = crop_polygons([np.stack([x[order], y[order]], 1).ravel().tolist()], box, 28)
        assert np.abs(crop - expected).max() < 255 * 0.08
        assert np.abs(crop - expected).mean() < 255 * 0.002


def test_polygon_crops_cover_a_union():
    left, right, overlap = [0, 0, 4, 0, 4, 8, 0, 8], [6, 0, 8, 0, 8, 8, 6, 8], [2, 0, 7, 0, 7, 8, 2, 8]
    box = (0, 0, 8, 8)
    two = crop_polygons([left, right], box, 8)
    np.testing.assert_array_equal(two, np.broadcast_to([255] * 4 + [0] * 2 + [255] * 2, (8, 8)))
    np.testing.assert_array_equal(crop_polygons([left, right, overlap], box, 8), np.full((8, 8), 255))


def test_half_covered_cells_hold_half():
    crop = crop_polygons([[0.5, 0.5, 3.5, 0.5, 3.5, 3.5, 0.5, 3.5]], (0, 0, 4, 4), 4)
    np.testing.assert_array_equal(crop[:, 0], [64, 128, 128, 64])
    np.testing.assert_array_equal(crop[1], [128, 255, 255, 128])


def test_polygons_without_area_cover_nothing():
    assert not crop_polygons([], (0, 0, 4, 4), 4).any()
    assert not crop_polygons([[1, 1, 3, 3], [1, 2, 3, 2, 2, 2]], (0, 0, 4, 4), 4).any()


def test_bad_boxes_and_polygons_are_refused():
    for box in ((3, 3, 3, 8), (5, 0, 1, 4), (0, 0, np.nan, 4)):
        with pytest.raises(ValueError, match='expected a finite box'):
            crop_mask(np.ones((9, 9), np.uint8), box, 8)
    with pytest.raises(ValueError, match='polygon 1: expected pairs of coordinates, got 7'):
        crop_polygons([[0, 0, 1, 0, 1, 1], [0, 0, 1, 0, 1, 1, 2]], (0, 0, 4, 4), 4)


# ---- pasting ----

def pasted_by_hand(mask, box, image_size):
    """One pixel after the other: the bordered mask over its grown, truncated box, linear between cell centres."""
    cells = len(mask)
    padded = np.pad(mask.astype(np.float64), 1)
    x1, y1, x2, y2 = np.float32(box)
    grow = np.float32((cells + 2) / cells)
    half = (x2 - x1) / 2 * grow, (y2 - y1) / 2 * grow
    left, top = int((x1 + x2) / 2 - half[0]), int((y1 + y2) / 2 - half[1])
    columns, rows = int((x1 + x2) / 2 + half[0]) - left + 1, int((y1 + y2) / 2 + half[1]) - top + 1
    out = np.zeros(image_size)

    def neighbours(pixel, pixels):
        at = max((pixel + 0.5) * (cells + 2) / pixels - 0.5, 0)
        low = min(int(at), cells + 1)
        return low, min(low + 1, cells + 1), at - low

    for y, x in np.ndindex(*image_size):
        if 0 <= y - top < rows and 0 <= x - left < columns:
            (a, b, fy), (c, d, fx) = neighbours(y - top, rows), neighbours(x - left, columns)
            out[y, x] = ((1 - fy) * ((1 - fx) * padded[a, c] + fx * padded[a, d])
                         + fy * ((1 - fx) * padded[b, c] + fx * padded[b, d]))
    return out


@pytest.mark.parametrize('box', [(10.3, 8.7, 31.2, 40.9), (-7.5, 30.2, 20.4, 70.1), (12., 12, 12.4, 12.2),
                                 (-50., -50, -20, -30)],
                         ids=['inside', 'across the edge', 'tiny', 'outside'])
def test_paste_follows_torchvision(box):
    mask = np.random.default_rng(3).random((14, 14)).astype(np.float32)
    out = paste_mask(mask, box, (50, 60))
    expected = pasted_by_hand(mask, box, (50, 60))
    assert out.dtype == np.float32 and out.shape == (50, 60)
    np.testing.assert_allclose(out, expected, atol=1e-4)
    assert (box[2] < 0) == (not expected.any())
    clear = np.abs(expected - 0.5) > 1e-3
    np.testing.assert_array_equal(paste_mask(mask, box, (50, 60), threshold=0.5)[clear], (expected > 0.5)[clear])


@pytest.mark.parametrize('size, radii', [(28, (12, 9)), (28, (60, 25)), (28, (90, 70)), (112, (60, 25)),
                                         (112, (90, 70))])
def test_pasting_a_crop_gives_the_mask_back(radii, size):
    mask = ellipse(200, 240, (121.2, 99.1), radii).astype(bool)
    crop = crop_mask(mask, box_of(mask), size)
    back = paste_mask(crop / np.float32(255), box_of(mask), mask.shape, threshold=0.5)
    assert (back & mask).sum() / (back | mask).sum() > 0.95
