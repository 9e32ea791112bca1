"""A checkpoint becomes one file that needs only JAX and numpy, as docs/usage.md runs it; what differs is not kept."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jaxlib
import numpy as np
import pytest
from jax import export as jax_export

from relnet_jax.detector.run import load_detector
from relnet_jax.interop import export, export_check, stablehlo, standalone
from relnet_jax.interop.agreement import rows
from relnet_jax.models.mask_rcnn import build
from relnet_jax.runs import checkpoint
from relnet_jax.types import Detections
from tests.tiny_run import tiny_config, write_run

ROOT = Path(__file__).parents[2]
USAGE = ROOT / 'docs' / 'usage.md'
PARTS = 5       # of the phantom


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('run'), tiny_config())


@pytest.fixture(scope='module')
def exported(run, tmp_path_factory):
    """(file, report of the export)."""
    out = tmp_path_factory.mktemp('exported') / 'model.stablehlo'
    return out, export.export(str(run), out)


def test_the_report_says_what_was_written_and_how_it_compares(exported):
    out, report = exported
    assert sorted(path.name for path in out.parent.iterdir()) == ['model.json', 'model.stablehlo']
    assert re.search(r'for cpu, cuda, tpu, by JAX [\d.]+; JAX promises to read it with any jaxlib built', report)
    assert 'takes image, image_size; batch 1, canvas 64 x 64' in report
    found = re.search(r"on cpu: (\d+) of (\d+) detections in 4 images", report)     # 2 of noise, 2 of the phantom
    assert found and found[1] == found[2] and int(found[1]) >= 8


def test_the_json_beside_it_tells_a_user_what_is_needed(exported):
    about = json.loads(exported[0].with_suffix('.json').read_text())
    assert about['inputs'] == {'image': {'dtype': 'uint8', 'shape': [1, 64, 64, 3]},
                               'image_size': {'dtype': 'float32', 'shape': [1, 2]}}
    assert {name: array['shape'] for name, array in about['outputs'].items()} == {
        'boxes': [1, 4, 4], 'scores': [1, 4], 'labels': [1, 4], 'valid': [1, 4], 'masks': [1, 4, 28, 28]}
    assert (about['classes']['1'], len(about['classes']), about['scale']) == ('Atelectasis', 13, 64)
    assert about['platforms'] == ['cpu', 'cuda', 'tpu'] and about['agreement']['matched'] >= 8


def test_the_json_says_until_when_jax_reads_the_file(exported):
    made = json.loads(exported[0].with_suffix('.json').read_text())['made_with']
    assert (made['jax'], made['jaxlib']) == (jax.__version__, jaxlib.__version__)
    assert 'at most 6 months after jaxlib' in made['readable'] and made['source'].startswith('https://docs.jax.dev/')


def test_the_date_counts_from_the_build_of_jaxlib():
    assert stablehlo.made_with('0.10.2')['readable_until'] == '2026-12-17'      # built on 17 June
    assert stablehlo.made_with('9.9.9')['readable_until'] is None
    assert 'in the 6 months after 9.9.9' in stablehlo.told(stablehlo.made_with('9.9.9'), ['cpu'])


def test_the_build_of_the_pinned_jaxlib_is_known():
    pinned = re.search(r'^jaxlib==(.*)$', (ROOT / 'requirements.txt').read_text(), re.MULTILINE)[1]
    assert pinned in stablehlo.BUILT


def test_the_lines_of_the_docs_run_it_in_a_process_without_this_package(exported, run, tmp_path):
    out, _ = exported
    image = np.random.default_rng(3).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    np.save(tmp_path / 'image.npy', image)
    (tmp_path / out.name).write_bytes(out.read_bytes())
    lines = re.search(r'```python\n((?:(?!```).)*?deserialize.*?)```', USAGE.read_text(), re.DOTALL)[1]
    assert len(lines.strip().splitlines()) == 5
    more = ("import sys\nassert not {'relnet_jax', 'flax'} & set(sys.modules)\n"
            "np.savez('found.npz', **found)\n")
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    subprocess.run([sys.executable, '-c', lines + more], cwd=tmp_path, env=environment, check=True, timeout=300)

    with np.load(tmp_path / 'found.npz') as stored:
        found = rows(Detections(**stored), 0)
    canvas = np.zeros((1, 64, 64, 3), np.uint8)
    canvas[0, :48, :60] = image
    config, table = checkpoint.read_config(run), checkpoint.read_class_table(run)
    detect, params = load_detector(run, config, table)
    expected = rows(jax.device_get(detect(params, canvas, np.float32([[48, 60]]), np.zeros((1, PARTS, 4), np.float32),
                                          np.zeros((1, PARTS), bool))), 0)
    assert len(expected['boxes']) == len(found['boxes']) > 0
    np.testing.assert_array_equal(found['labels'], expected['labels'])
    for name, atol in (('boxes', 1e-3), ('scores', 1e-5), ('masks', 1e-4)):
        np.testing.assert_allclose(found[name], expected[name], atol=atol, rtol=0)


def test_a_file_that_finds_something_else_is_not_kept(run, tmp_path, monkeypatch, capsys):
    def other(path, runner, batches):
        assert path.read_bytes() == b'the file' and 'export.deserialize' in runner
        boxes = np.float32([[[1, 2, 30, 40]]])
        return [dict(boxes=boxes, scores=np.ones((1, 1)), labels=np.ones((1, 1), int), valid=np.ones((1, 1), bool),
                     masks=np.zeros((1, 1, 28, 28))) for _ in batches]
    monkeypatch.setattr(export, 'run_file', other)
    monkeypatch.setattr(stablehlo, 'serialise', lambda *_: b'the file')
    assert export.main([f'--ckpt={run}', f'--out={tmp_path}/new/model.stablehlo']) == 2
    assert 'export: the file differs from the model' in capsys.readouterr().err
    assert not list((tmp_path / 'new').iterdir())


@pytest.mark.parametrize('name, change', [('boxes', 0.1), ('scores', 0.01), ('masks', 0.01), ('labels', 1)])
def test_each_kind_of_difference_is_a_disagreement(name, change):
    live = Detections(boxes=np.float32([[[1, 2, 30, 40]]]), scores=np.float32([[0.5]]), labels=np.int32([[1]]),
                      valid=np.array([[True]]), masks=np.full((1, 1, 28, 28), 0.5, np.float32))
    assert export_check.agreement([live], [live._asdict()]).complete
    found = live._asdict()
    found[name] = found[name] + np.asarray(change, found[name].dtype)
    with pytest.raises(export_check.Disagreement):
        export_check.agreement([live], [found])
    with pytest.raises(export_check.Disagreement):
        export_check.agreement([live], [live._asdict() | {'valid': np.array([[False]])}])


def test_a_process_that_has_more_than_jax_is_refused(exported):
    """The check of the new process is one that can fail."""
    with pytest.raises(export_check.Disagreement, match="AssertionError: {'optax'}"):
        export_check.run_file(exported[0], 'import optax\n' + stablehlo.RUNNER, [])


def test_known_parts_are_inputs_where_relations_look_at_them():
    c = tiny_config()
    with c.unlocked():
        c.model.relations = ('part',)
    assert standalone.takes_parts(c, PARTS) and not standalone.takes_parts(c, 0)
    shapes = standalone.input_shapes(c, batch=2, parts=PARTS)
    assert [(s.shape, s.dtype) for s in shapes[2:]] == [((2, PARTS, 4), np.float32), ((2, PARTS), np.bool_)]

    batch = export_check.noise(shapes, seed=0)
    assert [(a.shape, a.dtype) for a in batch] == [(s.shape, s.dtype) for s in shapes]
    assert batch[3].any() and not batch[3].all()
    assert standalone.detector_inputs(batch, PARTS) == tuple(batch)      # what is known goes to the detector as it is
    with c.unlocked():
        c.model.update(parts='predicted', anatomy_head=True)
    assert len(standalone.input_shapes(c, batch=2, parts=PARTS)) == 2
    with c.unlocked():
        c.model.update(parts='given_or_predicted')
    assert len(standalone.input_shapes(c, batch=2, parts=PARTS)) == 4


def test_a_model_with_parts_is_exported_with_them():
    c = tiny_config()
    with c.unlocked():
        c.model.update(relations=('part',), mask_head=False)
    model = build(c, num_classes=3)
    shapes = standalone.input_shapes(c, batch=1, parts=PARTS)
    params = jax.eval_shape(model.init, jax.random.key(0), *shapes)['params']
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    call = standalone.standalone(lambda params, *arrays: model.apply({'params': params}, *arrays), params, PARTS)
    content = stablehlo.serialise(call, shapes, ('cpu',))
    assert sorted(jax.eval_shape(call, *shapes)) == ['boxes', 'labels', 'scores', 'valid']     # no mask head, no masks
    read = jax_export.deserialize(content)
    assert [a.shape for a in read.in_avals] == [(1, 64, 64, 3), (1, 2), (1, PARTS, 4), (1, PARTS)]


@pytest.mark.parametrize('options, message', [
    (['--platforms=cpu,abacus'], 'expected some of cpu,cuda,rocm,tpu, got abacus'),
    (['--platforms=tpu'], 'tpu cannot be checked on this machine, which is cpu'),
    (['--size=100,64'], 'multiples of 64, got (100, 64)'),
    (['--format=onnx', '--platforms=cuda'], 'an ONNX file is not written for platforms'),
    (['--format=onnx', '--config.model.dtype=bfloat16'], 'add --config.model.dtype=float32')])
def test_what_cannot_be_exported_ends_in_one_line(run, tmp_path, options, message, capsys):
    assert export.main([f'--ckpt={run}', f'--out={tmp_path}/model.stablehlo', *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
