"""The interface of a notebook user, with a detector that finds bright pixels in place of the network."""
import itertools
import subprocess
import sys
from collections.abc import Iterator

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import relnet_jax
from configs import base
from relnet_jax.data import familiarity
from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.rle import decode_mask
from relnet_jax.detector import inputs, outputs
from relnet_jax.detector.detector import Detector
from relnet_jax.detector.found import to_coco, to_csv
from relnet_jax.errors import UserError
from relnet_jax.runs import operating_points
from relnet_jax.runs.operating_points import OperatingPoints
from relnet_jax.types import Detections
from tests.data.dicom_files import write_dicom
from tests.tiny_run import tiny_config, write_run

TABLE = dict(classes=('Mass', 'Nodule'), category_ids=(30, 10), parts=())
RELATIONS = ('region', 'context', 'object_attention')
BOX = [20, 10, 40, 30]


def film(height=80, width=60, bright=200):
    image = np.full((height, width, 3), 50, np.uint8)
    image[BOX[1]:BOX[3], BOX[0]:BOX[2]] = bright
    return image


def make(films=None, points=None):
    """(Detector with a batch of 2, list of the shapes that were compiled). It finds a nodule of score 0.875 and a mass
    of 0.1 around what is brighter than 130, if anything is."""
    shapes = []

    @jax.jit
    def detect(params, image, image_size, part_boxes, part_valid):
        shapes.append(image.shape)
        bright, side = image[..., 0] > 130, image.shape[1]
        rows, columns = bright.any(2), bright.any(1)
        box = jnp.stack([columns.argmax(1), rows.argmax(1), side - columns[:, ::-1].argmax(1),
                         side - rows[:, ::-1].argmax(1)], 1).astype(jnp.float32)
        count = len(image)
        return Detections(boxes=jnp.stack([box, box], 1), scores=jnp.tile(jnp.array([params, 0.1]), (count, 1)),
                          labels=jnp.tile(jnp.array([2, 1]), (count, 1)), masks=jnp.ones((count, 2, 28, 28)),
                          valid=jnp.tile(bright.any((1, 2))[:, None], (1, 2)))

    c = base.get_config()
    with c.unlocked():
        c.data.canvas, c.data.scale, c.data.max_size, c.data.threads = (64, 64), 48, 64, 0
        c.test.batch_size = 2
    return Detector(detect, jnp.float32(0.875), TABLE, c, films=films, points=points), shapes


def assert_found(found, height=80, width=60):
    assert found.size == (height, width) and found.names == ('Nodule',) and found.labels.tolist() == [2]
    assert found.boxes.shape == (1, 4) and found.boxes.dtype == np.float32 and found.scores.tolist() == [0.875]
    assert np.abs(found.boxes[0] - BOX).max() < 2.5
    assert found.masks.shape == (1, height, width) and found.masks.dtype == bool
    assert found.masks[0, 12:28, 22:38].all() and not found.masks[0, 35:].any()
    assert len(found) == 1 and not found.problem


# ---- what may be given ----
def test_a_file_an_array_a_list_and_a_folder_are_looked_at(tmp_path):
    detector, _ = make()
    for i, (height, width) in enumerate([(80, 60), (50, 90), (64, 64)]):
        cv2.imwrite(str(tmp_path / f'{i}.png'), film(height, width))
    assert_found(detector(tmp_path / '0.png'))
    assert_found(detector(str(tmp_path / '0.png')))
    assert_found(detector(film()))
    assert_found(detector(film()[..., 0] / 255))
    listed = detector([tmp_path / '1.png', film(), str(tmp_path / '2.png')])
    assert isinstance(listed, list)
    assert [f.file for f in listed] == [str(tmp_path / '1.png'), '', str(tmp_path / '2.png')]
    for found, size in zip(listed, [(50, 90), (80, 60), (64, 64)]):
        assert_found(found, *size)
    assert detector([]) == []
    folder = detector(tmp_path)
    assert isinstance(folder, Iterator) and [f.file for f in folder] == [str(tmp_path / f'{i}.png') for i in range(3)]
    assert [f.size for f in detector(film(40 + i, 60) for i in range(3))] == [(40, 60), (41, 60), (42, 60)]


def test_what_cannot_be_looked_at_is_said(tmp_path):
    detector, _ = make()
    with pytest.raises(UserError, match='expected a file, a folder, an array .* or a list of them, got int'):
        detector(5)
    with pytest.raises(UserError, match='no images .* in this folder'):
        detector(tmp_path)
    with pytest.raises(UserError, match='image 0: expected an array uint8'):
        detector(np.zeros((2, 3, 4, 5)))
    with pytest.raises(UnreadableImage, match='^[^:]*no.png: No such file or directory$'):
        detector(tmp_path / 'no.png')


def test_a_film_that_cannot_be_read_keeps_its_place_and_is_in_no_file(tmp_path, caplog):
    detector, _ = make()
    (tmp_path / 'b.png').write_bytes(b'\x89PNG\r\n\x1a\n and nothing more')
    for name in 'ac':
        cv2.imwrite(str(tmp_path / f'{name}.png'), film())
    found = list(detector(tmp_path))
    assert [bool(f.problem) for f in found] == [False, True, False] and 'b.png' in caplog.text
    assert len(found[1]) == 0 and found[1].boxes.shape == (0, 4) and found[1].masks.shape == (0, 0, 0)
    assert repr(found[1]).startswith(f'Found({tmp_path}/b.png: ')
    assert [image['file_name'] for image in to_coco(found)['images']] == [f'{tmp_path}/a.png', f'{tmp_path}/c.png']
    assert to_csv(found).count('\n') == 1 + 2


def test_a_folder_is_read_as_its_films_are_asked_for(tmp_path, monkeypatch):
    detector, _ = make()
    for i in range(20):
        cv2.imwrite(str(tmp_path / f'{i:02d}.png'), film())
    read = []
    monkeypatch.setattr(inputs, 'read_image', lambda path, options: read.append(path) or film())
    films = detector(tmp_path)
    assert not read
    for _ in itertools.islice(films, 3):
        pass
    assert len(read) <= 3 + 2 * 2 * jax.local_device_count()       # the batch at hand and the next one


def test_no_more_than_three_shapes_are_compiled():
    """One film, what one device computes at once, and what all do."""
    detector, shapes = make()
    for count in (None, 1, 2, 3, 7):
        detector(film() if count is None else [film()] * count)
    assert shapes == [(1, 64, 64, 3), (2, 64, 64, 3), (4, 64, 64, 3)]


# ---- what is found ----
def test_the_lowest_score_is_the_callers(caplog):
    detector, _ = make()
    assert detector(film(), score=0.05).names == ('Nodule', 'Mass') and 'score_threshold' not in caplog.text
    assert detector(film(), score=0.9).names == ()
    detector(film(), score=0.01)
    assert caplog.text.count('score 0.01: no detection below config.test.score_threshold = 0.05 is kept') == 1


@pytest.mark.parametrize('thresholds, names', [
    (dict(Mass=0.0, Nodule=0.9), ('Mass',)), (dict(Mass=0.05, Nodule=0.875), ('Nodule', 'Mass')),
    (dict(Nodule=0.876), ()), ({}, ('Nodule',))])
def test_operating_points_of_the_checkpoint_count_unless_the_caller_says_otherwise(thresholds, names):
    detector, _ = make(points=OperatingPoints(thresholds, 1.5, 0.2, 'films val'))
    assert detector(film()).names == names
    found = detector(film(), score=0.05)
    assert found.names == ('Nodule', 'Mass')
    assert found.probabilities == pytest.approx(operating_points.calibrated([0.875, 0.1], 1.5), abs=1e-6)
    assert [a['probability'] for a in found.to_coco()['annotations']] == found.probabilities.tolist()
    assert f',Nodule,0.875,{found.probabilities[0]:.6g},' in found.to_csv()
    assert make()[0](film()).probabilities is None and ',Nodule,0.875,,' in make()[0](film()).to_csv()


def test_nothing_found_is_well_formed():
    detector, _ = make()
    found = detector(film(bright=60))
    assert found.boxes.shape == (0, 4) and found.scores.shape == found.labels.shape == (0,) and found.names == ()
    assert found.masks.shape == (0, 80, 60) and len(found) == 0 and 'nothing' in repr(found)
    assert found.to_csv().count('\n') == 1 and found.to_coco()['annotations'] == []
    assert len(found.to_coco()['images']) == 1 and found.plot().size[0] > 600
    with pytest.raises(IndexError):
        found.explain(0)


def test_coco_and_table_say_the_same_as_the_arrays(tmp_path):
    detector, _ = make()
    write_dicom(tmp_path / 'a.dcm', film()[..., 0], StudyInstanceUID='1.2.3', SeriesInstanceUID='1.2.4')
    found = detector([tmp_path / 'a.dcm', film(70, 90)], score=0.05)
    document = to_coco(found)
    assert [(i['id'], i['width'], i['height'], i['unfamiliar']) for i in document['images']] == [
        (1, 60, 80, None), (2, 90, 70, None)]
    assert document['images'][0]['SOPInstanceUID'] == '1.2.3' and 'StudyInstanceUID' not in document['images'][1]
    assert document['categories'] == [dict(id=30, name='Mass'), dict(id=10, name='Nodule')]
    assert [(a['id'], a['image_id'], a['category_id']) for a in document['annotations']] == [
        (1, 1, 10), (2, 1, 30), (3, 2, 10), (4, 2, 30)]
    for a, (film_found, i) in zip(document['annotations'], [(f, i) for f in found for i in range(2)]):
        x, y, w, h = a['bbox']
        assert np.float32([x, y, x + w, y + h]) == pytest.approx(film_found.boxes[i], abs=1e-4)
        np.testing.assert_array_equal(decode_mask(a['segmentation']), film_found.masks[i])
        assert a['area'] == film_found.masks[i].sum()
    text = to_csv(found, tmp_path / 'a.csv')
    head, *rows = (line.split(',') for line in text.splitlines())
    assert (tmp_path / 'a.csv').read_text() == text and len(rows) == 4
    first = dict(zip(head, rows[0]))
    assert [first[uid] for uid in outputs.UIDS] == ['1.2.3', '1.2.4', '1.2.3']
    assert (first['finding'], first['score'], first['width'], first['height']) == ('Nodule', '0.875', '60', '80')
    assert [float(first[k]) for k in ('x1', 'y1', 'x2', 'y2')] == pytest.approx(found[0].boxes[0], abs=0.006)
    assert to_coco([]) == dict(images=[], categories=[], annotations=[])


def test_the_picture_is_the_film_with_its_findings(tmp_path):
    detector, _ = make()
    cv2.imwrite(str(tmp_path / 'a.png'), film(900, 900))
    found = detector(tmp_path / 'a.png')
    np.testing.assert_array_equal(found.image, film(900, 900))
    picture = np.asarray(found.plot())
    assert picture.shape[1] == 900 and (picture[-900:] != found.image).any()
    with detector.config.unlocked():
        detector.config.data.format = 'phantom'
    synthetic = Detector(None, None, TABLE, detector.config)
    assert 'PHANTOM' in synthetic.caption and not detector.caption


# ---- films of another kind ----
def test_a_film_unlike_those_of_the_training_is_warned_of_by_name(tmp_path, caplog):
    rng = np.random.default_rng(0)

    def noisy():
        return np.clip(film(64, 64) + rng.normal(0, 4, (64, 64, 1)), 0, 255).astype(np.uint8)
    config = make()[0].config
    films = familiarity.of_source(inputs.image_source([noisy() for _ in range(30)], TABLE, config, {}), config)
    detector, _ = make(films=films)
    usual = detector(noisy())
    assert usual.unfamiliar is False and usual.distance < 1 and 'unlike' not in caplog.text
    cv2.imwrite(str(tmp_path / 'inverted.png'), 255 - noisy())
    odd = detector(tmp_path / 'inverted.png')
    assert odd.unfamiliar is True and odd.distance > 1 and ', unfamiliar)' in repr(odd)
    warned, = (m for m in caplog.messages if 'unlike' in m)
    assert warned == (f'{tmp_path}/inverted.png: unlike the films that this detector was trained on '
                      f'({odd.distance:.1f} times the limit)')
    assert odd.to_coco()['images'][0]['unfamiliar'] is True
    assert make()[0](noisy()).unfamiliar is None


# ---- loading ----
@pytest.fixture(scope='module')
def run(tmp_path_factory):
    c = tiny_config()
    with c.unlocked():
        c.model.relations = RELATIONS
    return write_run(tmp_path_factory.mktemp('run'), c)


def test_a_run_is_loaded_by_its_folder_and_explains_what_it_finds(run, caplog):
    detector = relnet_jax.Detector.load(run)
    assert 'its relations look at given anatomical parts, and say nothing of a film without' in caplog.text
    image = np.random.default_rng(0).integers(0, 256, (90, 120), np.uint8)
    found = detector(image, score=0)
    assert len(found) == 4 and found.masks.shape == (4, 90, 120) and set(found.names) <= set(detector.names)
    assert (found.boxes[:, 2:] <= [120, 90]).all() and (found.boxes >= 0).all()
    together = detector([image, image], score=0)
    for other in together:
        assert other.names == found.names and other.boxes == pytest.approx(found.boxes, abs=1e-2)
    explanation = found.explain(2)
    assert explanation.name == found.names[2] and explanation.score == pytest.approx(found.scores[2])
    titles = {item.title for item in explanation.weights}
    assert titles == {'regions it looked at', 'parts it looked at'}
    assert {(item.relation, item.title.split()[-1]) for item in explanation.changes} == {
        ('relation_head/region', 'region'), ('relation_head/context', 'part')}
    regions = next(item for item in explanation.weights if item.title == 'regions it looked at')
    assert (regions.boxes[:, 2:] <= [120, 90]).all() and regions.boxes[:, 2].max() > 64     # not of the canvas
    assert explanation.plot().size[0] > 600
    lungs = {'Left Lung': (70, 10, 110, 80), 'Right Lung': (10, 10, 50, 80)}
    looked_at, = (item for item in detector(image, score=0, parts=lungs).explain(0).weights if 'parts' in item.title)
    assert set(looked_at.names) == {*lungs}
    for name, box in zip(looked_at.names, looked_at.boxes):
        assert box == pytest.approx(lungs[name], abs=1e-3)
    assert not next(item for item in explanation.weights if 'parts' in item.title).names


def test_known_parts_are_checked(run):
    detector = Detector.load(run)
    for parts, said in (({'Left Lug': (1, 1, 2, 2)}, "no part 'Left Lug', did you mean 'Left Lung'?"),
                        ({'Heart': (5, 1, 2, 9)}, r"part 'Heart': expected x1, y1, x2, y2, got \[5, 1, 2, 9\]")):
        with pytest.raises(UserError, match=said):
            detector(film(), parts=parts)
    with pytest.raises(UserError, match='parts: expected one for each of 2 images, got 1'):
        detector([film(), film()], parts=[{}])
    with pytest.raises(UserError, match='this detector was trained without parts'):
        make()[0](film(), parts={'Heart': (1, 1, 2, 2)})
    assert len(detector([film(), film()], parts=[{'Heart': (1, 1, 9, 9)}, None], score=0)[0]) == 4


def test_operating_points_are_those_of_the_step(run, caplog):
    points = OperatingPoints(dict.fromkeys(Detector.load(run).names, 1.0), 1.5, 0.2, 'films val')
    path = operating_points.write(run / 'checkpoints' / '7', points)
    detector = Detector.load(run)
    path.unlink()
    with caplog.at_level('INFO', logger='absl'):
        assert len(detector(film(), score=0)) > 0 and 'false positives' not in caplog.text
        assert len(detector(film())) == len(detector(film())) == 0
    said, = (m for m in caplog.messages if '(0.2 false positives of a class per film of films val)' in m)
    assert said.endswith('Pneumothorax 1.00')


def test_another_config_may_be_given_and_a_missing_run_is_said(run, tmp_path):
    c = tiny_config()
    with c.unlocked():
        c.model.relations = RELATIONS
        c.test.detections = 2
    assert len(Detector.load(run, config=c)(film(), score=0)) == 2
    with pytest.raises(UserError, match=f"no checkpoint folder '{tmp_path}/rum'"):
        Detector.load(tmp_path / 'rum')


def test_the_package_alone_brings_no_jax_along():
    said = subprocess.run(
        [sys.executable, '-c', 'import sys, relnet_jax; print({"jax", "numpy", "cv2"} & set(sys.modules)); '
         'from relnet_jax import Detector; print(Detector.__name__, "jax" in sys.modules)'],
        capture_output=True, text=True, check=True, timeout=120, cwd=relnet_jax.__path__[0] + '/..').stdout
    assert said == 'set()\nDetector True\n'
    with pytest.raises(AttributeError, match="no attribute 'Detektor'"):
        relnet_jax.Detektor  # noqa: B018
