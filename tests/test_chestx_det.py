"""configs/chestx_det.py end to end: films in ChestX-Det's form (phantoms, and the four real ones if they are there)
train, are evaluated and predicted, with a small backbone in place of ResNet-50."""
import json
import shutil

import cv2
import numpy as np
import pytest

from relnet_jax import config as config_lib
from relnet_jax import predict
from relnet_jax.data import pipeline
from relnet_jax.data.formats.chestx_det import CLASSES
from relnet_jax.data.phantom import annotate, render
from relnet_jax.data.phantom.anatomy import PARTS
from relnet_jax.data.phantom.labels import classes as phantom_classes
from relnet_jax.evaluation import evaluate
from relnet_jax.runs import checkpoint
from relnet_jax.training import loop

REAL = ('36199.png', '36203.png', '36216.png', '36229.png')


def write_films(folder, start, count):
    """Phantom films at 256 px, annotated at 1024 px as ChestX-Det is, with a file of their parts; (records, parts)."""
    folder.mkdir(exist_ok=True)
    records, parts = [], {}
    for index in range(start, start + count):
        name = f'{50000 + index}.png'
        image, _ = render(0, index, ambiguity=0.5, size=256)
        cv2.imwrite(str(folder / name), image)
        truth = annotate(0, index, size=1024)
        names = [phantom_classes()[label - 1] for label in truth.labels]
        records.append(dict(file_name=name, syms=names, boxes=np.rint(truth.boxes).astype(int).tolist(),
                            polygons=[np.rint(p).astype(int).tolist() for p in truth.polygons]))
        parts[name] = {part: box.tolist() for part, box, there in zip(PARTS, truth.part_boxes, truth.part_valid)
                       if there}
    return records, parts


@pytest.fixture
def narrowed(tmp_path, request):
    """narrowed(variant): the config on such films, small enough for a minute on two cores."""
    def narrowed(variant=''):
        train, parts = write_films(tmp_path / 'train', 0, 6)
        val, more = write_films(tmp_path / 'val', 100, 2)
        real = request.config.rootpath.parent / 'shared' / 'data' / 'chestx_det'
        if real.is_dir():
            for name in REAL:
                shutil.copy(real / 'images_sample' / name, tmp_path / 'train')
            everything = json.loads((real / 'ChestX_Det_train.json').read_text()) + json.loads(
                (real / 'ChestX_Det_test.json').read_text())
            train += [record for record in everything if record['file_name'] in REAL]
        for name, content in (('train.json', train), ('val.json', val), ('parts.json', parts | more)):
            (tmp_path / name).write_text(json.dumps(content))
        c = config_lib.load('configs/chestx_det.py' + (f':{variant}' if variant else '')).copy_and_resolve_references()
        with c.unlocked():
            c.data.train.update(annotations=str(tmp_path / 'train.json'), images=str(tmp_path / 'train'))
            c.data.val.update(annotations=str(tmp_path / 'val.json'), images=str(tmp_path / 'val'))
            c.data.update(canvas=(128, 128), scale=128, max_size=128, mask_size=28, max_objects=10, threads=1,
                          prefetch=1)
            if variant:
                c.data.parts_file = str(tmp_path / 'parts.json')
            c.model.update(backbone='tiny', norm='group_norm', frozen_stages=0, fpn_channels=16, box_head_dim=32,
                           mask_channels=8, mask_convs=1)
            c.train.update(steps=3, batch_size=2, base_batch_size=2, warmup_steps=1, pre_nms=40, proposals=20, rois=16,
                           rpn_samples=16, log_every=1, eval_every=0, checkpoint_every=3, learning_rate=1e-3)
            c.test.update(batch_size=2, pre_nms=40, boxes=20, detections=10, score_threshold=0.0)
        return c
    return narrowed


def run(config, tmp_path):
    """Trains, evaluates and predicts, and checks what is left by each."""
    state = loop.train(config, tmp_path / 'run')
    assert int(state.step) == 3
    lines = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    losses = [v for line in lines if line['split'] == 'train' for k, v in line.items() if k.startswith('loss')]
    assert np.isfinite(losses).all()
    evaluate.evaluate_checkpoint(str(tmp_path / 'run'), checkpoint.read_config(tmp_path / 'run'), num_overlays=1)
    detections = json.loads((tmp_path / 'run' / 'eval' / 'detections.json').read_text())
    assert {d['image_id'] for d in detections} == {1, 2} and {d['category_id'] for d in detections} <= set(range(1, 14))
    boxes = np.array([d['bbox'] for d in detections])
    assert (boxes[:, :2] + boxes[:, 2:]).max() > 256 and (boxes[:, :2] + boxes[:, 2:]).max() <= 1024.01
    assert detections[0]['segmentation']['size'] == [1024, 1024]        # the annotation's pixels, not the file's
    flags = [f'--ckpt={tmp_path}/run', f'--images={tmp_path}/val', f'--out={tmp_path}/out', '--score=0']
    assert predict.main(flags) == 0
    predictions = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert len(predictions['images']) == 2 and len(predictions['annotations']) == len(detections)
    assert predictions['images'][0]['width'] == 256                     # of the file: there is no annotation


def test_the_films_and_their_parts_are_read_with_real_ones_beside_them(narrowed, real_data):
    train, val = pipeline.open_sources(narrowed('sar_net'))
    assert train.classes == val.classes == CLASSES and train.parts == PARTS and train.issues == ()
    assert len(train) == 10 and len(val) == 2
    real = train.load(next(i for i, r in enumerate(train.records) if r['file_name'] == '36216.png'))
    assert real.image.shape == (1024, 1024, 3) and not real.part_valid.any()
    assert {CLASSES[label - 1] for label in real.labels} == {'Consolidation', 'Effusion'} and real.has_mask.all()
    phantom = train.load(0)
    assert phantom.image.shape == (256, 256, 3) and phantom.part_valid.all() and phantom.boxes.max() <= 256


def test_parts_without_a_file_for_them_are_an_error_that_says_what_to_give(narrowed):
    config = narrowed('sar_net')
    with config.unlocked():
        config.data.parts_file = ''
    with pytest.raises(ValueError, match="no category 'Left Scapula'.*data.parts_file"):
        pipeline.open_sources(config)
    with config.unlocked():
        config.data.parts_file = 'none'
    train, _ = pipeline.open_sources(config)
    assert train.parts == PARTS and not train.load(0).part_valid.any()


@pytest.mark.slow
def test_the_plain_detector_trains_is_evaluated_and_predicts(narrowed, tmp_path):
    run(narrowed(), tmp_path)


@pytest.mark.slow
def test_sar_net_trains_is_evaluated_and_predicts(narrowed, tmp_path):
    config = narrowed('sar_net')
    run(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    assert all('loss_part_box' in line for line in lines if line['split'] == 'train')
    assert (tmp_path / 'run' / 'eval' / 'parts.json').is_file()
