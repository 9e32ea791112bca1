import csv
import json
import types
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pydicom
import pytest
from PIL import Image

from configs import base
from relnet_jax import predict
from relnet_jax.data.rle import decode_mask
from relnet_jax.detector import detector, predictions
from relnet_jax.runs.checkpoint import CheckpointError
from relnet_jax.types import Detections
from tests.data.archive.samples import STUDY
from tests.data.dicom_files import write_dicom

TABLE = dict(classes=('Mass', 'Nodule'), category_ids=(30, 10), parts=())


@pytest.fixture
def images(tmp_path):
    """Folder with two good images of one name, one damaged file and something that is no image."""
    folder = tmp_path / 'images'
    for name, shape in (('a/chest.png', (80, 60)), ('b/chest.png', (50, 90)), ('c.jpg', (64, 64))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = np.full((*shape, 3), 50, np.uint8)
        image[10:30, 20:40] = 200
        cv2.imwrite(str(folder / name), image)
    (folder / 'damaged.png').write_bytes(b'\x89PNG\r\n\x1a\n and nothing more')
    (folder / 'notes.txt').write_text('not an image')
    return folder


@pytest.fixture
def traces(monkeypatch):
    """Replaces checkpoint and detector by a jitted finder of bright pixels; returns the list of its traced shapes."""
    shapes = []

    @jax.jit
    def detect(params, image, image_size, part_boxes, part_valid):
        shapes.append(image.shape)
        bright = (image[..., 0] > 130)
        size = image.shape[1]
        rows, columns = bright.any(2), bright.any(1)
        x1, y1 = columns.argmax(1), rows.argmax(1)
        x2, y2 = size - columns[:, ::-1].argmax(1), size - rows[:, ::-1].argmax(1)
        box = jnp.stack([x1, y1, x2, y2], 1).astype(jnp.float32)
        b = len(image)
        return Detections(boxes=jnp.stack([box, box], 1), scores=jnp.tile(jnp.array([params, 0.1]), (b, 1)),
                          labels=jnp.tile(jnp.array([2, 1]), (b, 1)), valid=jnp.ones((b, 2), bool),
                          masks=jnp.ones((b, 2, 28, 28)))

    def read_config(ckpt):
        if str(ckpt) != 'run':
            raise CheckpointError(f"no checkpoint folder '{ckpt}'")
        c = base.get_config()
        with c.unlocked():
            c.data.canvas, c.data.scale, c.data.max_size = (64, 64), 48, 64
            c.data.threads, c.test.batch_size = 0, 2
        return c

    stored = types.SimpleNamespace(find=Path, read_config=read_config, read_class_table=lambda ckpt: TABLE,
                                   read_films=lambda ckpt: None)
    for module in (predict, detector):
        monkeypatch.setattr(module, 'checkpoint', stored)
    monkeypatch.setattr(detector.operating_points, 'read', lambda folder: None)
    monkeypatch.setattr(detector, 'load_detector', lambda ckpt, config, table: (detect, jnp.float32(0.875)))
    return shapes


def run(ckpt, images, out, *more):
    return predict.main([f'--ckpt={ckpt}', f'--images={images}', f'--out={out}', *more])


def test_folder_gives_an_overlay_each_and_one_coco_file(images, traces, tmp_path):
    (images / 'damaged.png').unlink()
    out = tmp_path / 'out'
    assert run('run', images, out) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        'a__chest.png', 'b__chest.png', 'c.png', 'findings.csv', 'predict.json', 'predictions.json',
        'predictions.jsonl']
    written = json.loads((out / 'predictions.json').read_text())
    assert [(i['id'], i['file_name'], i['width'], i['height'], i['overlay']) for i in written['images']] == [
        (1, f'{images}/a/chest.png', 60, 80, 'a__chest.png'), (2, f'{images}/b/chest.png', 90, 50, 'b__chest.png'),
        (3, f'{images}/c.jpg', 64, 64, 'c.png')]
    assert written['categories'] == [dict(id=30, name='Mass'), dict(id=10, name='Nodule')]
    assert [(a['id'], a['image_id'], a['category_id'], a['score']) for a in written['annotations']] == [
        (i, i, 10, 0.875) for i in (1, 2, 3)]  # the second detection, of score 0.1, is below --score
    for a in written['annotations']:
        x, y, w, h = a['bbox']
        assert abs(np.array([x, y, x + w, y + h]) - [20, 10, 40, 30]).max() < 2.5
        assert a['area'] == decode_mask(a['segmentation']).sum()
    assert (cv2.imread(str(out / 'c.png')) != 50).any()


def test_a_submission_is_one_flag(images, traces, tmp_path, capsys):
    (images / 'damaged.png').unlink()
    assert run('run', images, tmp_path / 'out', '--submission=rsna') == 0
    lines = (tmp_path / 'out' / 'submission.csv').read_text().splitlines()
    assert [line.split(',')[0] for line in lines] == ['patientId', 'chest', 'chest', 'c']
    assert all(len(line.split(',')[1].split()) == 5 and ',0.875 ' in line for line in lines[1:])
    assert run('run', images, tmp_path / 'out', '--submission=vindr') == 2
    assert "VinDr-CXR has no class 'Mass', 'Nodule'" in ' '.join(capsys.readouterr().err.split())


def test_every_format_that_training_reads_is_found_in_a_folder(traces, tmp_path):
    folder, picture = tmp_path / 'images', np.full((64, 60), 50, np.uint8)
    folder.mkdir()
    picture[10:30, 20:40] = 200
    for name in ('a.webp', 'b.JPEG', 'c.tiff', 'd.avif', 'e.bmp'):
        assert cv2.imwrite(str(folder / name), picture)
    write_dicom(folder / 'f.dcm', picture)
    write_dicom(folder / '1.2.826.0.1', picture)
    assert run('run', folder, tmp_path / 'out') == 0
    written = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert len(written['images']) == 7
    for a in written['annotations']:
        x, y, w, h = a['bbox']
        assert abs(np.array([x, y, x + w, y + h]) - [20, 10, 40, 30]).max() < 2.5


@pytest.mark.parametrize(
    'exif, size, box',
    [
        ('auto', (80, 60), [20, 10, 50, 30]),
        ('apply', (80, 60), [20, 10, 50, 30]),
        ('ignore', (60, 80), [10, 10, 30, 40]),
    ],
)
def test_an_orientation_tag_is_obeyed_as_data_exif_says(traces, tmp_path, monkeypatch, exif, size, box, caplog):
    read_config = predict.checkpoint.read_config

    def with_exif(ckpt):
        config = read_config(ckpt)
        config.data.exif = exif
        return config
    monkeypatch.setattr(predict.checkpoint, 'read_config', with_exif)
    picture = np.full((80, 60), 50, np.uint8)
    picture[10:30, 20:50] = 200
    tag = Image.Exif()
    tag[0x0112] = 6     # turned by a quarter to the right when shown
    Image.fromarray(np.rot90(picture)).save(tmp_path / 'a.png', exif=tag)
    assert run('run', tmp_path / 'a.png', tmp_path / 'out') == 0
    written = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert (written['images'][0]['height'], written['images'][0]['width']) == size
    x, y, w, h = written['annotations'][0]['bbox']
    assert abs(np.array([x, y, x + w, y + h]) - box).max() < 2.5
    height, width = cv2.imread(str(tmp_path / 'out' / 'a.png')).shape[:2]
    assert (height > width) == (size[0] > size[1])
    assert '1 of 1 files carry an EXIF orientation' in caplog.text


def test_the_detector_is_compiled_once(images, traces, tmp_path):
    (images / 'damaged.png').unlink()
    assert run('run', images, tmp_path / 'out') == 0
    assert traces == [(4, 64, 64, 3)]     # two on each of two devices


def test_bad_files_are_named_and_skipped_and_the_exit_code_is_1(images, traces, tmp_path, capsys):
    out = tmp_path / 'out'
    assert run('run', f'{images},{tmp_path}/nowhere.png', out) == 1
    errors = capsys.readouterr().err
    assert f'skipped: {images}/damaged.png' in errors
    assert f'skipped: {tmp_path}/nowhere.png: no such file or folder' in errors
    assert 'notes.txt' not in errors
    assert sorted(p.name for p in out.glob('*.png')) == ['a__chest.png', 'b__chest.png', 'c.png']
    assert len(json.loads((out / 'predictions.json').read_text())['images']) == 3
    assert run('run', f'{images}', out) == 1 and f'skipped: {images}/damaged.png' in capsys.readouterr().err


def test_what_is_data_goes_to_stdout_and_what_is_talk_to_stderr(images, traces, tmp_path, capsys):
    assert run('run', images, tmp_path / 'out') == 1
    names = ('predictions.jsonl', 'predictions.json', 'findings.csv')
    assert capsys.readouterr().out == ''.join(f'{tmp_path}/out/{name}\n' for name in names)


def test_a_line_and_rows_for_each_film_with_the_uids_of_dicom(traces, tmp_path):
    picture = np.full((64, 60), 50, np.uint8)
    picture[10:30, 20:40] = 200
    write_dicom(tmp_path / 'a.dcm', picture, StudyInstanceUID='1.2.3', SeriesInstanceUID='1.2.4')
    cv2.imwrite(str(tmp_path / 'b.png'), picture[:, :0:-1])
    cv2.imwrite(str(tmp_path / 'c.png'), np.zeros((30, 40), np.uint8))
    out = tmp_path / 'out'
    files = ','.join(str(tmp_path / name) for name in ('a.dcm', 'b.png', 'c.png'))
    assert run('run', files, out, '--score=0.05', '--no-overlays') == 0
    assert not list(out.glob('*.png'))
    lines = [json.loads(line) for line in (out / 'predictions.jsonl').read_text().splitlines()]
    assert [(Path(line['file_name']).name, line['overlay'], len(line['findings'])) for line in lines] == [
        ('a.dcm', None, 2), ('b.png', None, 2), ('c.png', None, 2)]
    rows = list(csv.DictReader((out / 'findings.csv').read_text().splitlines()))
    assert [(Path(row['file_name']).name, row['finding'], row['score']) for row in rows[:2]] == [
        ('a.dcm', 'Nodule', '0.875'), ('a.dcm', 'Mass', '0.1')]
    assert [rows[0][key] for key in ('StudyInstanceUID', 'SeriesInstanceUID', 'SOPInstanceUID')] == [
        '1.2.3', '1.2.4', '1.2.3']
    assert rows[2]['StudyInstanceUID'] == '' and (rows[2]['width'], rows[2]['height']) == ('59', '64')
    assert np.abs(np.float64([rows[0][key] for key in ('x1', 'y1', 'x2', 'y2')]) - [20, 10, 40, 30]).max() < 2.5


def test_a_film_without_a_document_is_named_by_every_start(traces, tmp_path, capsys):
    picture = np.full((90, 120), 50, np.uint16)
    picture[10:30, 20:40] = 200
    film = write_dicom(tmp_path / 'a.dcm', picture, **STUDY, WindowCenter=128, WindowWidth=256)
    cv2.imwrite(str(tmp_path / 'b.png'), np.uint8(picture))
    out = tmp_path / 'out'
    for _ in range(2):      # the second one has nothing left to do
        assert run('run', f'{film},{tmp_path}/b.png', out, '--dicom-sr', '--dicom-seg', '--no-overlays') == 1
        assert f'skipped: {tmp_path}/b.png: no DICOM file, so no DICOM document is made' in capsys.readouterr().err
    text = pydicom.dcmread(out / 'dicom' / '1.2.3.4.sr.dcm').to_json()
    assert 'Nodule' in text and 'score threshold: 0.3' in text and 'checkpoint: , step run' in text
    segmented = pydicom.dcmread(out / 'dicom' / '1.2.3.4.seg.dcm')
    assert (segmented.Rows, segmented.Columns, len(segmented.SegmentSequence)) == (90, 120, 1)
    lines = [json.loads(line) for line in (out / 'predictions.jsonl').read_text().splitlines()]
    assert [line['documents'] for line in lines] == [['1.2.3.4.sr.dcm', '1.2.3.4.seg.dcm'], []]


# ---- going on ----
def contents(out):
    return {p.name: p.read_bytes() for p in out.iterdir()}


@pytest.mark.parametrize('stop', [0, 1, 3, 4])
def test_a_second_start_goes_on_and_ends_as_one_that_was_not_stopped(traces, tmp_path, monkeypatch, stop):
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(5):
        picture = np.full((60 + i, 70), 50, np.uint8)
        picture[10:30, 20:40 + i] = 200
        cv2.imwrite(str(folder / f'{i}.png'), picture)
    write, written = predictions.append, []

    def until(file, line):
        if len(written) == stop:
            file.write(json.dumps(line)[:30])       # as a process that is killed in the middle of a line
            raise KeyboardInterrupt
        written.append(line['file_name'])
        write(file, line)
    monkeypatch.setattr(predictions, 'append', until)
    assert run('run', folder, tmp_path / 'out') == 130
    assert len(written) == max(stop, 0) and not (tmp_path / 'out' / 'predictions.json').exists()
    stop = -1
    assert run('run', folder, tmp_path / 'out') == 0
    assert written == [f'{folder}/{i}.png' for i in range(5)], 'each film once'
    assert run('run', folder, tmp_path / 'whole') == 0
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')
    shapes = len(traces)
    assert run('run', folder, tmp_path / 'out') == 0 and len(traces) == shapes, 'nothing left to do'
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')


def test_films_that_came_later_are_added_and_others_keep_their_names(images, traces, tmp_path):
    (images / 'damaged.png').unlink()
    out = tmp_path / 'out'
    assert run('run', images, out) == 0
    cv2.imwrite(str(images / 'c.bmp'), np.zeros((30, 40), np.uint8))       # sorted before c.jpg
    assert run('run', images, out) == 0
    written = json.loads((out / 'predictions.json').read_text())['images']
    assert [(Path(i['file_name']).name, i['overlay']) for i in written] == [
        ('chest.png', 'a__chest.png'), ('chest.png', 'b__chest.png'), ('c.jpg', 'c.png'), ('c.bmp', 'c_bmp.png')]


def test_other_options_do_not_mix_with_what_a_folder_holds(images, traces, tmp_path, capsys):
    (images / 'damaged.png').unlink()
    assert run('run', images, tmp_path / 'out') == 0
    before = contents(tmp_path / 'out')
    for more, said in (('--score=0.4', 'score: 0.3 -> 0.4'), ('--no-overlays', 'overlays: True -> False'),
                       ('--config.test.nms=0.3', 'config.test.nms: 0.5 -> 0.3')):
        capsys.readouterr()
        assert run('run', images, tmp_path / 'out', more) == 2
        assert f'{tmp_path}/out: holds predictions of another checkpoint or of other options' in (
            err := capsys.readouterr().err) and said in err
    assert contents(tmp_path / 'out') == before


def test_the_score_threshold_is_the_users(images, traces, tmp_path):
    assert run('run', images / 'c.jpg', tmp_path / 'low', '--score=0.05') == 0
    assert len(json.loads((tmp_path / 'low' / 'predictions.json').read_text())['annotations']) == 2
    assert run('run', images / 'c.jpg', tmp_path / 'high', '--score=0.95') == 0
    assert json.loads((tmp_path / 'high' / 'predictions.json').read_text())['annotations'] == []


def test_images_may_be_given_one_by_one_and_with_commas_in_their_names(images, traces, tmp_path):
    odd = images / 'x,y.png'
    (images / 'c.jpg').rename(odd)
    assert run('run', odd, tmp_path / 'out', f'--images={images}/a,{images}/b') == 0
    written = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert [i['overlay'] for i in written['images']] == ['x,y.png', 'chest.png', 'chest_png.png']


def test_keys_of_the_stored_config_can_be_overridden(images, traces, tmp_path):
    (images / 'damaged.png').unlink()
    assert run('run', images, tmp_path / 'out', '--config.test.batch_size=3', '--config.data.canvas=(64,128)') == 0
    assert traces == [(3, 64, 128, 3)]


def test_a_wrong_checkpoint_is_said_plainly(traces, images, tmp_path, capsys):
    assert run('rum', images, tmp_path / 'out') == 2
    assert capsys.readouterr().err == "predict: no checkpoint folder 'rum'\n"
    assert not (tmp_path / 'out').exists()
