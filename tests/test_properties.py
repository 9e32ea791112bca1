"""Properties that hold for every input: boxes, suppression, masks, run lengths and splits, searched by hypothesis."""
import dataclasses

import jax
import numpy as np
import pycocotools.mask as rle_tools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from relnet_jax.data.rle import decode_mask, decode_runs
from relnet_jax.data.source import Source, split
from relnet_jax.detector.results import encode_mask
from relnet_jax.ops import boxes as box_ops
from relnet_jax.ops import masks, nms

settings.register_profile('here', deadline=None, max_examples=60, derandomize=True, database=None)
settings.load_profile('here')

SIDES = st.floats(0.25, 600, width=32)
PLACES = st.floats(-500, 1500, width=32)
BOX = st.tuples(PLACES, PLACES, SIDES, SIDES).map(lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3]))
WHOLE_BOX = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 8)] * 2).map(
    lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3]))
encode, decode, iou, clip = map(jax.jit, (box_ops.encode, box_ops.decode, box_ops.pairwise_iou, box_ops.clip))
suppress = jax.jit(nms.nms, static_argnames='iou_threshold')


def boxes_of(box, count):
    return st.lists(box, min_size=count, max_size=count).map(np.float32)


@given(boxes_of(BOX, 6), boxes_of(BOX, 6))
def test_decoding_undoes_encoding_within_the_largest_growth(targets, references):
    growth = (targets[:, 2:] - targets[:, :2]) / (references[:, 2:] - references[:, :2])
    within = (np.log(growth) < box_ops.MAX_LOG_SCALE).all(1)
    # A delta is a difference of places in units of the reference's side: rounding of the places comes back times it.
    slack = 1e-5 * (np.abs(targets).max() + np.abs(references).max()) * np.maximum(1, growth.max())
    found = np.asarray(decode(encode(targets, references), references))
    np.testing.assert_allclose(found[within], targets[within], atol=slack, rtol=1e-4)


@given(boxes_of(BOX, 5), boxes_of(BOX, 7), st.sampled_from([0.25, 2.0, 8.0]))
def test_overlap_is_symmetric_bounded_one_with_itself_and_blind_to_scale(a, b, scale):
    overlap = np.asarray(iou(a, b))
    np.testing.assert_array_equal(overlap, np.asarray(iou(b, a)).T)
    assert (overlap >= 0).all() and (overlap <= 1 + 1e-6).all()
    np.testing.assert_allclose(np.diag(iou(a, a)), 1, rtol=1e-6)
    np.testing.assert_allclose(iou(a * np.float32(scale), b * np.float32(scale)), overlap, atol=1e-5)


@given(boxes_of(BOX, 5), st.tuples(st.floats(1, 900, width=32), st.floats(1, 900, width=32)))
def test_clipped_boxes_lie_in_the_image_and_stay_as_they_are(boxes, size):
    size = np.float32([size])
    once = clip(boxes[None], size)
    assert (once >= 0).all() and (once[..., 0::2] <= size[0, 1]).all() and (once[..., 1::2] <= size[0, 0]).all()
    np.testing.assert_array_equal(clip(once, size), once)


@given(boxes_of(WHOLE_BOX, 12), st.lists(st.integers(0, 4), min_size=12, max_size=12), st.lists(
    st.booleans(), min_size=12, max_size=12), st.sampled_from([0.0, 0.3, 0.5, 0.7]))
def test_suppression_keeps_what_the_sequential_algorithm_keeps(boxes, scores, valid, threshold):
    overlap = np.asarray(iou(boxes, boxes)).astype(np.float64)
    kept = []
    for i in sorted(np.flatnonzero(valid), key=lambda i: (-scores[i], i)):
        if not (overlap[i, kept] > threshold).any():
            kept.append(i)
    found = suppress(boxes[None], np.float32([scores]), np.array([valid]), iou_threshold=threshold)[0]
    assert sorted(kept) == np.flatnonzero(found).tolist()


MASK = st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(lambda shape: arrays.arrays(bool, shape))


@given(MASK)
def test_run_lengths_come_back_as_the_mask_and_are_those_of_pycocotools(mask):
    encoded = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(encoded), mask)
    assert encoded['counts'] == rle_tools.encode(np.asfortranarray(mask, np.uint8))['counts'].decode()


@given(MASK, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_a_part_of_an_empty_image_is_encoded_as_the_whole_image_is(part, top, left, below, beside):
    whole = np.pad(part, ((top, below), (left, beside)))
    assert encode_mask(part, corner=(top, left), image_size=whole.shape) == encode_mask(whole)


@given(st.one_of(st.text(max_size=12), st.binary(max_size=12)))
def test_any_string_gives_run_lengths_or_nothing(counts):
    runs = decode_runs(counts)
    assert runs is None or all(isinstance(run, int) for run in runs)


@given(MASK, st.integers(1, 9))
def test_a_crop_covers_as_much_as_the_mask_has_inside_its_box(mask, size):
    height, width = mask.shape
    crop = masks.crop_mask(mask, (0, 0, width, height), size)
    assert crop.mean() / 255 == pytest.approx(mask.mean(), abs=0.5 / 255 + 1e-6)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(2, 28))
def test_a_rectangle_as_polygon_and_as_mask_gives_one_crop(x, y, width, height, size):
    full = np.zeros((48, 48), np.uint8)
    full[y:y + height, x:x + width] = 1
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    box = (x - 1, y - 1, x + width + 2.5, y + height + 0.5)
    difference = masks.crop_polygons([outline], box, size).astype(int) - masks.crop_mask(full, box, size)
    assert np.abs(difference).max() <= 255 / masks.SUBROWS + 1      # scan lines sample y


def source_of(patients):
    records = [dict(id=i, patient=patient) for i, patient in enumerate(patients)]
    return Source(name='s', classes=('a',), category_ids=(1,), parts=(), records=records, load=lambda i: None,
                  ground_truth=lambda: dict(images=records, annotations=[], categories=[]))


@given(st.lists(st.integers(0, 9), min_size=8, max_size=40).filter(lambda p: len(set(p)) >= 4), st.integers(2, 4),
       st.randoms(use_true_random=False))
def test_folds_share_no_patient_lose_no_image_and_follow_the_patients_alone(patients, folds, random):
    source, held = source_of(patients), []
    for fold in range(folds):
        train, val = split(source, by='patient', folds=folds, hold_out=fold)
        assert not {r['patient'] for r in train.records} & {r['patient'] for r in val.records}
        assert sorted(train.image_ids + val.image_ids) == source.image_ids
        held += val.image_ids
    assert sorted(held) == source.image_ids
    order = random.sample(range(len(patients)), len(patients))
    turned = dataclasses.replace(source, records=[source.records[i] for i in order])
    _, first = split(source, by='patient', folds=folds, hold_out=0)
    _, again = split(turned, by='patient', folds=folds, hold_out=0)
    assert sorted(first.image_ids) == sorted(again.image_ids)
