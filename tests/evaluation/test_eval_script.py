"""eval.py and relnet_jax.predict on a real checkpoint of a tiny detector with random weights."""
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from absl import app

from relnet_jax import predict
from relnet_jax.data import pipeline
from relnet_jax.evaluation import evaluate
from relnet_jax.runs import checkpoint
from tests.tiny_run import tiny_config, write_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def script():
    spec = importlib.util.spec_from_file_location('eval_script', ROOT / 'eval.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A run's folder with one checkpoint, whose detector takes 64 x 64 pixels and keeps every box."""
    c = tiny_config()
    with c.unlocked():
        c.model.anatomy_head = True
    return write_run(tmp_path_factory.mktemp('run'), c)


def write_coco(folder, names):
    """A COCO data set of one 40 x 50 image with one box of the last of `names`."""
    (folder / 'images').mkdir(parents=True)
    cv2.imwrite(str(folder / 'images' / 'x.png'), np.full((40, 50), 90, np.uint8))
    document = dict(images=[dict(id=77, file_name='x.png', width=50, height=40)],
                    categories=[dict(id=10 * i, name=n) for i, n in enumerate(names, start=1)],
                    annotations=[dict(id=1, image_id=77, category_id=10 * len(names), bbox=[5, 5, 20, 20], area=400,
                                      iscrowd=0)])
    (folder / 'instances.json').write_text(json.dumps(document))
    return folder


def test_a_checkpoint_is_all_that_is_needed(script, workdir, capsys):
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
    assert 'PHANTOM' in capsys.readouterr().out


def test_the_data_can_be_others_of_the_same_classes(script, workdir, tmp_path):
    names = checkpoint.read_class_table(workdir)['classes']
    data = write_coco(tmp_path / 'data', names)
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


def test_validation_data_are_read_by_class_name_whatever_their_ids_and_order(script, workdir, tmp_path, caplog):
    """A class that the data lack, one that the model does not know, and another order: what both know is measured."""
    names = list(checkpoint.read_class_table(workdir)['classes'])
    data = write_coco(tmp_path / 'data', ['Zebra', *names[:0:-1]])
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


def test_images_without_annotations_are_detected_in_and_have_no_metrics(script, workdir, tmp_path, caplog):
    data = write_coco(tmp_path / 'data', ['x'])
    (data / 'instances.json').write_text(json.dumps(dict(images=[dict(id='film/1', coco_url='http://a.b/x.png')])))
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
    with pytest.raises(ValueError, match='no annotations: no metrics'):
        evaluate.sweep_boxes(str(workdir), config, [8], out=str(tmp_path / 'out'))


def test_the_validation_data_are_opened_once(script, workdir, tmp_path, caplog):
    data = write_coco(tmp_path / 'data', list(checkpoint.read_class_table(workdir)['classes']))
    config = checkpoint.read_config(workdir)
    with config.unlocked():
        config.data.format = 'coco'
        config.data.val.update(annotations=str(data / 'instances.json'), images=str(data / 'images'))
    with caplog.at_level('INFO', logger='absl'):
        evaluate.evaluate_checkpoint(str(workdir), config, out=str(tmp_path / 'out'), num_overlays=0)
    assert caplog.text.count('instances: 1 images (0 without objects)') == 1


def test_a_config_for_another_model_does_not_load(workdir, script):
    config = checkpoint.read_config(workdir)
    with config.unlocked():
        config.model.box_head_dim = 24
    with pytest.raises(checkpoint.CheckpointError, match='does not fit the model'):
        evaluate.evaluate_checkpoint(str(workdir), config)


def test_one_checkpoint_at_several_numbers_of_test_boxes(script, workdir, tmp_path, capsys):
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


@pytest.mark.parametrize('text', ['512,', '512,x', '0', '64,64', '-3', '1.5'])
def test_wrong_numbers_of_boxes_are_refused(script, text):
    assert script.box_counts('1000, 64') == [1000, 64]
    with pytest.raises(app.UsageError, match='--boxes: expected different positive numbers'):
        script.box_counts(text)


@pytest.mark.parametrize('argv, expected', [
    (['eval.py', '--ckpt=a/b'], 'a/b'), (['eval.py', '-ckpt', 'a'], 'a'),
    (['eval.py', '--out=x', '--ckpt', 'a', '-y'], 'a'),
    (['eval.py', '--ckpt_of=x'], ''), (['eval.py', 'ckpt=x'], ''), (['eval.py', '--ckpt'], ''), (['eval.py'], '')])
def test_the_checkpoint_is_found_among_the_arguments(script, argv, expected):
    assert script.checkpoint_of(argv) == expected


def test_a_wrong_checkpoint_ends_with_one_clear_line(tmp_path):
    done = subprocess.run([sys.executable, ROOT / 'eval.py', f'--ckpt={tmp_path}/nowhere'], cwd=ROOT, text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"eval.py: no checkpoint folder '{tmp_path}/nowhere'")
    assert 'Traceback' not in done.stderr


def test_prediction_of_files_with_a_real_detector(workdir, tmp_path):
    for name, size in (('one', (40, 50)), ('two', (90, 30))):
        cv2.imwrite(str(tmp_path / f'{name}.png'), np.random.default_rng(1).integers(0, 256, size, np.uint8))
    code = predict.main([f'--ckpt={workdir}', f'--images={tmp_path}/one.png,{tmp_path}/two.png',
                         f'--out={tmp_path}/out', '--score=0'])
    assert code == 0
    written = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert [i['overlay'] for i in written['images']] == ['one.png', 'two.png']
    assert written['annotations']
    for a in written['annotations']:
        h, w = ((40, 50), (90, 30))[a['image_id'] - 1]
        x, y, bw, bh = a['bbox']
        assert 0 <= x and 0 <= y and x + bw <= w + 1e-4 and y + bh <= h + 1e-4
        assert a['segmentation']['size'] == [h, w]
