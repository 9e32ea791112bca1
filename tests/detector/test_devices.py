"""A detector on two devices finds what it finds on one, and every film once; eight: tests/training/test_devices.py."""
import jax
import numpy as np
import pytest

from relnet_jax.data import pipeline
from relnet_jax.detector import devices, run
from relnet_jax.detector.detector import Detector
from relnet_jax.evaluation import anatomy
from relnet_jax.runs import checkpoint
from relnet_jax.runs.state import abstract_params, batch_shapes
from tests.tiny_run import tiny_config, write_run

ONE, TWO = jax.local_devices()[:1], jax.local_devices()


@pytest.mark.parametrize('rows, used', [(4, 2), (1, 1), (3, 1)])
def test_rows_are_divided_evenly_where_they_can_be_and_else_stay_on_the_first_device(rows, used):
    apart, params = devices.over_devices(lambda p, x: (p * x + 1, x.sum(axis=1)), TWO), np.float32(2)
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    doubled, sums = apart(devices.on_all(params, TWO), x)
    assert len(doubled.devices()) == len(sums.devices()) == used
    np.testing.assert_array_equal(doubled, 2 * x + 1)
    np.testing.assert_array_equal(sums, x.sum(axis=1))


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """(checkpoint, its config with 5 validation images, its class table)."""
    config = tiny_config()
    with config.unlocked():
        config.data.phantom.val_images = 5
    folder = write_run(tmp_path_factory.mktemp('devices') / 'run', config)
    return folder, config, checkpoint.read_class_table(folder)


@pytest.fixture
def alone(monkeypatch):
    """Within, this process has one device."""
    monkeypatch.setattr(jax, 'local_devices', lambda: ONE)
    monkeypatch.setattr(jax, 'local_device_count', lambda: 1)
    return monkeypatch


def assert_same(found, expected):
    assert [(r['image_id'], r['category_id']) for r in found] == [(r['image_id'], r['category_id']) for r in expected]
    for a, b in zip(found, expected, strict=True):
        assert a['score'] == pytest.approx(b['score'], abs=1e-6)
        np.testing.assert_allclose(a['bbox'], b['bbox'], atol=1e-4)
        assert a['segmentation'] == b['segmentation']


def test_two_devices_find_what_one_finds_and_see_every_film_once(tiny, alone):
    folder, config, table = tiny
    source = pipeline.open_for_model(config, 'val', table)
    expected = run.detect_source(*run.load_detector(folder, config, table), source, config)
    alone.undo()
    detect, params = run.load_detector(folder, config, table)
    shapes, seen = [], []
    for batch, _ in run.detect_batches(lambda *inputs: (shapes.append(inputs[1].shape[0]), detect(*inputs))[1], params,
                                       source, config, batch_size=config.test.batch_size):
        seen += batch.image_index[batch.image_valid].tolist()
    assert shapes == [4, 4]                                 # two images a device; the last three rows are no images
    assert seen == [0, 1, 2, 3, 4]
    found = run.detect_source(detect, params, source, config)
    assert len({r['image_id'] for r in found}) == 5
    assert_same(found, expected)


def test_two_devices_predict_what_one_predicts(tiny, alone):
    folder, config, table = tiny
    films = [np.full((60 + 3 * i, 64), 20 * i, np.uint8) for i in range(7)]
    expected = Detector.load(folder, config=config)(films, score=0.0)
    alone.undo()
    found = Detector.load(folder, config=config)(films, score=0.0)
    for a, b in zip(found, expected, strict=True):
        assert a.names == b.names
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-3)


def test_parts_are_measured_on_two_devices_as_on_one(tiny, alone):
    _, config, table = tiny
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.anatomy_head = True
    source = pipeline.open_for_model(config, 'val', table)
    shapes = abstract_params(run.build_model(config, table), batch_shapes(config, 1, len(table['parts'])))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(0, 0.05, s.shape).astype(s.dtype), shapes)
    expected = anatomy.part_metrics(anatomy.make_find_parts(config, table), params, source, config)
    alone.undo()
    got = anatomy.part_metrics(anatomy.make_find_parts(config, table), devices.on_all(params, TWO), source, config)
    for part, values in expected.items():
        assert got[part] == pytest.approx(values, nan_ok=True), part
