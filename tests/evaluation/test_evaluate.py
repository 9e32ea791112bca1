"""Evaluation and prediction, by call and by command, on a real checkpoint of a tiny detector with random weights."""
import json

import cv2
import numpy as np
import pytest

from relnet_jax import predict
from relnet_jax.data import pipeline
from relnet_jax.eval import main
from relnet_jax.evaluation import evaluate, report
from relnet_jax.runs import checkpoint, operating_points
from tests.tiny_run import tiny_config, write_films, write_run


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A run's folder with one checkpoint, whose detector takes 64 x 64 pixels and keeps every box."""
    c = tiny_config()
    with c.unlocked():
        c.model.anatomy_head = True
    return write_run(tmp_path_factory.mktemp('run'), c)


def test_a_checkpoint_is_all_that_is_needed(workdir, capsys):
    metrics = evaluate.evaluate_checkpoint(str(workdir), checkpoint.read_config(workdir), num_overlays=2)
    out = workdir / 'eval'
    written = json.loads((out / 'metrics.json').read_text())
    assert written['about']['images'] == 3 and written['about']['synthetic']
    assert written['about']['checkpoint'] == str(workdir / 'checkpoints' / '7')
    assert written['metrics']['box_AP50'] == metrics['box_AP50']
    results = json.loads((out / 'detections.json').read_text())
    assert 0 < len(results) <= 12 and {r['image_id'] for r in results} <= set(
        pipeline.open_sources(checkpoint.read_config(workdir))[1].image_ids)
    assert all(r['segmentation']['size'] == [64, 64] for r in results)
    parts = json.loads((out / 'parts.json').read_text())
    assert list(parts) == list(checkpoint.read_class_table(workdir)['parts']) and parts['Heart']['images'] == 3
    assert 0 <= parts['Heart']['iou'] <= 1
    assert len(list((out / 'overlays').iterdir())) == 2
    assert written['metrics']['intervals'].keys() >= {'box_AP50', 'mask_AP50', 'froc_mean'}
    assert written['about']['intervals']['of'] == 'images'
    truth = json.loads((out / 'ground_truth.json').read_text())
    assert report.evaluate(truth, results)['mask_AP50'] == metrics['mask_AP50']
    assert json.loads((out / 'curves.json').read_text())['thresholds']['Mass'] == 0.3
    assert 'PHANTOM' in capsys.readouterr().out
    assert 'PHANTOM' in (out / 'report.html').read_text()


def test_the_data_can_be_others_of_the_same_classes(workdir, tmp_path):
    names = checkpoint.read_class_table(workdir)['classes']
    data = write_films(tmp_path / 'data', [(40, 50)], names)
    config = checkpoint.read_config(workdir)
    with config.unlocked():
        config.data.format, config.data.train.annotations = 'coco', 'not/on/this/machine.json'
        config.data.val.update(annotations=str(data / 'instances.json'), images=str(data / 'images'))
    metrics = evaluate.evaluate_checkpoint(str(workdir), config, out=str(tmp_path / 'out'), num_overlays=0)
    assert metrics['per_class'][names[-1]]['objects'] == 1
    assert 'mask_AP' not in metrics  # this data set has boxes only
    results = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    assert results and {r['image_id'] for r in results} == {77}
    assert {r['category_id'] for r in results} <= {10 * i for i in range(1, len(names) + 1)}
    assert json.loads((tmp_path / 'out' / 'metrics.json').read_text())['about']['synthetic'] is False
    parts = json.loads((tmp_path / 'out' / 'parts.json').read_text())      # the model knows five, these data none
    assert len(parts) == 5 and all(part['images'] == 0 and part['iou'] is None for part in parts.values())


def test_validation_data_are_read_by_class_name_whatever_their_ids_and_order(workdir, tmp_path, caplog):
    """A class that the data lack, one that the model does not know, and another order: what both know is measured."""
    names = list(checkpoint.read_class_table(workdir)['classes'])
    data = write_films(tmp_path / 'data', [(40, 50)], ['Zebra', *names[:0:-1]])
    config = checkpoint.read_config(workdir)
    with config.unlocked():
        config.data.format = 'coco'
        config.data.val.update(annotations=str(data / 'instances.json'), images=str(data / 'images'))
    with caplog.at_level('INFO', logger='absl'):
        metrics = evaluate.evaluate_checkpoint(str(workdir), config, out=str(tmp_path / 'out'), num_overlays=0)
    assert metrics['per_class'][names[1]]['objects'] == 1 and 'Zebra' not in metrics['per_class']
    own = {name: 10 * i for i, name in enumerate(['Zebra', *names[:0:-1]], start=1)}
    results = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    known = {own[name] for name in names[1:]}
    assert results and {r['category_id'] for r in results if r['category_id'] != 1} <= known     # 1: free, names[0]
    assert f'without the classes {names[0]}:' in caplog.text and 'Zebra' in caplog.text


def test_operating_points_are_chosen_on_validation_images_and_kept_with_the_checkpoint(workdir, tmp_path, capsys):
    given = [f'--ckpt={workdir}', f'--out={tmp_path}', '--overlays=0']
    assert main([*given, '--calibrate', '--fp_per_film=0.34']) == 0
    table = capsys.readouterr().out.partition('operating points')[2]
    step = workdir / 'checkpoints' / '7'
    points = operating_points.read(step)
    assert list(points.thresholds) == list(checkpoint.read_class_table(workdir)['classes'])
    assert points.fp_per_film == 0.34 and 'phantom' in points.data_set
    chosen = json.loads((tmp_path / 'metrics.json').read_text())
    assert chosen['metrics']['operating_fp_per_film'] <= 0.34 * len(points.thresholds)
    assert chosen['about']['operating_points']['thresholds'] == points.thresholds
    curves = json.loads((tmp_path / 'curves.json').read_text())
    row, = [line.split() for line in table.splitlines() if line.split()[:1] == ['Effusion']][:1]
    assert row[1:3] == [f"{points.thresholds['Effusion']:.3f}", str(curves['operating']['Effusion']['objects'])]
    assert all(row['fp_per_film'] <= 0.34 for row in curves['operating'].values())
    assert checkpoint.find(workdir) == step      # still a checkpoint

    operating_points.write(step, points._replace(thresholds=dict.fromkeys(points.thresholds, 1.1)))
    assert main(given) == 0         # what is there is measured
    assert json.loads((tmp_path / 'metrics.json').read_text())['metrics']['operating_fp_per_film'] == 0
    (step / 'operating_points.json').unlink()
    capsys.readouterr()
    assert main([*given, '--calibrate', '--split=train']) == 2 and '--calibrate' in capsys.readouterr().err
    assert main([*given, '--calibrate', '--boxes=4,8']) == 2 and '--calibrate' in capsys.readouterr().err


def test_images_without_annotations_are_detected_in_and_have_no_metrics(workdir, tmp_path, caplog):
    data = write_films(tmp_path / 'data', [(40, 50)], ['x'])
    (data / 'instances.json').write_text(json.dumps(dict(images=[dict(id='film/1', coco_url='http://a.b/77.png')])))
    config = checkpoint.read_config(workdir)
    with config.unlocked():
        config.data.format = 'coco'
        config.data.val.update(annotations=str(data / 'instances.json'), images=str(data / 'images'))
    found = evaluate.evaluate_checkpoint(str(workdir), config, out=str(tmp_path / 'out'), num_overlays=1)
    assert found == {} and 'instances has no annotations: no metrics' in caplog.text
    results = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    assert results and {r['image_id'] for r in results} == {'film/1'}
    assert {r['category_id'] for r in results} <= set(checkpoint.read_class_table(workdir)['category_ids'])
    assert not (tmp_path / 'out' / 'metrics.json').exists()
    assert [p.name for p in (tmp_path / 'out' / 'overlays').iterdir()] == ['0000_film_1.png']
    with pytest.raises(ValueError, match='--calibrate: instances has no annotations'):
        evaluate.evaluate_checkpoint(str(workdir), config, out=str(tmp_path / 'out'), calibrate=0.2)
    with pytest.raises(ValueError, match='no annotations: no metrics'):
        evaluate.sweep_boxes(str(workdir), config, [8], out=str(tmp_path / 'out'))


def test_the_validation_data_are_opened_once(workdir, tmp_path, caplog):
    data = write_films(tmp_path / 'data', [(40, 50)], checkpoint.read_class_table(workdir)['classes'])
    config = checkpoint.read_config(workdir)
    with config.unlocked():
        config.data.format = 'coco'
        config.data.val.update(annotations=str(data / 'instances.json'), images=str(data / 'images'))
    with caplog.at_level('INFO', logger='absl'):
        evaluate.evaluate_checkpoint(str(workdir), config, out=str(tmp_path / 'out'), num_overlays=0)
    assert caplog.text.count('instances: 1 images (0 without objects)') == 1


def test_a_config_for_another_model_does_not_load(workdir):
    config = checkpoint.read_config(workdir)
    with config.unlocked():
        config.model.box_head_dim = 24
    with pytest.raises(checkpoint.CheckpointError, match='does not fit the model'):
        evaluate.evaluate_checkpoint(str(workdir), config)


def test_one_checkpoint_at_several_numbers_of_test_boxes(workdir, tmp_path, capsys):
    config = checkpoint.read_config(workdir)
    found = evaluate.sweep_boxes(str(workdir), config, [8, 1], out=str(tmp_path))
    assert list(found) == [8, 1]
    assert config.test.boxes == 8                                       # the caller's config stays
    written = json.loads((tmp_path / 'boxes.json').read_text())['boxes']
    table = capsys.readouterr().out
    for count in (8, 1):
        with config.unlocked():
            config.test.boxes = count
        alone = evaluate.evaluate_checkpoint(str(workdir), config, out=str(tmp_path / str(count)), num_overlays=0)
        for name in ('box_AP50', 'voc_AP_0.01'):
            assert found[count][name] == alone[name] == written[str(count)][name]
        assert f"{100 * alone['voc_AP_0.01']:.2f}" in table


def test_the_command_evaluates_with_overrides_of_the_stored_config(workdir, tmp_path, monkeypatch):
    write_films(tmp_path / 'films', [(40, 50)], checkpoint.read_class_table(workdir)['classes'])
    monkeypatch.setenv('HOME', str(tmp_path))
    data = ['--config.data.format=coco', '--config.data.val.annotations=~/films/instances.json',
            '--config.data.val.images=~/films/images', '--config.test.detections=2']
    assert main([f'--ckpt={workdir}', '--out=~/out', '--overlays=1', *data]) == 0
    results = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    assert len(results) == 2 and {r['image_id'] for r in results} == {77}
    assert [p.name for p in (tmp_path / 'out' / 'overlays').iterdir()] == ['0000_77.png']

    assert main([f'--ckpt={workdir}', f'--out={tmp_path}/sweep', '--boxes=8,1', *data]) == 0
    assert list(json.loads((tmp_path / 'sweep' / 'boxes.json').read_text())['boxes']) == ['8', '1']


def test_prediction_of_files_with_a_real_detector(workdir, tmp_path):
    for name, size in (('one', (40, 50)), ('two', (90, 30))):
        cv2.imwrite(str(tmp_path / f'{name}.png'), np.random.default_rng(1).integers(0, 256, size, np.uint8))
    assert predict.main([f'--ckpt={workdir}', f'--images={tmp_path}/one.png,{tmp_path}/two.png',
                         f'--out={tmp_path}/out', '--score=0', '--config.test.detections=3']) == 0
    written = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert [i['overlay'] for i in written['images']] == ['one.png', 'two.png']
    assert {a['image_id'] for a in written['annotations']} == {1, 2} and len(written['annotations']) <= 2 * 3
    for a in written['annotations']:
        h, w = ((40, 50), (90, 30))[a['image_id'] - 1]
        x, y, bw, bh = a['bbox']
        assert 0 <= x and 0 <= y and x + bw <= w + 1e-4 and y + bh <= h + 1e-4
        assert a['segmentation']['size'] == [h, w]


def test_a_submission_is_one_flag_on_a_list_of_films_in_the_pixels_of_their_boxes(workdir, tmp_path, capsys):
    (tmp_path / 'films').mkdir()
    for name in ('p-1', 'p-2'):
        cv2.imwrite(str(tmp_path / 'films' / f'{name}.png'), np.full((64, 64), 120, np.uint8))
    (tmp_path / 'sample.csv').write_text('patientId,PredictionString\np-1,0.5 0 0 100 100\np-2,0.5 0 0 100 100\n')
    data = ['--config.data.format=rsna', f'--config.data.val.annotations={tmp_path}/sample.csv',
            f'--config.data.val.images={tmp_path}/films', "--config.data.rename=(('Lung Opacity','Mass'),)"]
    given = [f'--ckpt={workdir}', f'--out={tmp_path}/out', '--overlays=0']
    assert main([*given, '--submission=rsna', *data]) == 0
    lines = (tmp_path / 'out' / 'submission.csv').read_text().splitlines()
    results = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    assert lines[0] == 'patientId,PredictionString' and [line.split(',')[0] for line in lines[1:]] == ['p-1', 'p-2']
    numbers = [float(v) for line in lines[1:] for v in line.split(',')[1].split()]
    assert len(numbers) == 5 * len(results) > 0 and 64 < max(numbers) <= 1024
    assert main([*given, '--submission=vindr', *data]) == 2
    assert "--submission=vindr: VinDr-CXR has no class 'Diffuse Nodule'" in capsys.readouterr().err.replace('\n', ' ')
    assert main([*given, '--submission=rsna', '--boxes=4,8', *data]) == 2
