"""A checkpoint becomes an ONNX file that onnxruntime runs without JAX; skipped without the packages it takes."""
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from relnet_jax.interop import export, onnx_file
from relnet_jax.interop.agreement import compare, rows
from relnet_jax.interop.export_check import noise
from relnet_jax.interop.standalone import INPUTS, input_shapes, standalone
from relnet_jax.models.mask_rcnn import build
from relnet_jax.types import Detections
from tests.tiny_run import tiny_config, write_run

ROOT = Path(__file__).parents[2]
PARTS = 5
needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(package.replace('-', '_')) is None for package in onnx_file.PACKAGES),
    reason='pip install --no-deps -r requirements-onnx.txt')
# The code of the packages warns of itself.
pytestmark = pytest.mark.filterwarnings('ignore:::jax2onnx', 'ignore:::onnx', 'ignore:::onnx_ir')
MODELS = {
    'all relations': dict(relations=('class', 'region', 'gaussian_mixture', 'class_region', 'part', 'context',
                                     'presence', 'object_attention')),
    'cascade, positions, half pixels': dict(cascade=(0.5, 0.6), relations=('object_position', 'lung_feature'),
                                            roi_aligned=True),
    'predicted parts': dict(relations=('part',), anatomy_head=True, parts='predicted'),
    'C4': dict(backbone='resnet50', neck='c4', anchor_sizes=((16, 32, 64, 128, 256, 512),)),
    'deformable': dict(backbone='resnet18', norm='frozen_bn', deformable='v2'),
    'ConvNeXt, no masks': dict(backbone='convnext_tiny', norm='layer_norm', mask_head=False)}


def test_the_requirements_are_the_packages_it_asks_for():
    pinned = [line.partition('==') for line in (ROOT / 'requirements-onnx.txt').read_text().splitlines()
              if line and not line.startswith('#')]
    assert {name for name, _, _ in pinned} == set(onnx_file.PACKAGES) and all(version for *_, version in pinned)


def test_missing_packages_are_named_with_the_command(monkeypatch):
    monkeypatch.setattr(onnx_file, 'find_spec', lambda name: None if name in ('onnx_ir', 'sympy') else object())
    with pytest.raises(onnx_file.UserError, match='onnx-ir, sympy missing: pip install --no-deps jax2onnx onnx'):
        onnx_file.serialise(lambda: None, [])


@needs_packages
def test_a_run_becomes_a_file_that_finds_the_same_without_jax(tmp_path):
    run, out = write_run(tmp_path / 'run', tiny_config()), tmp_path / 'model.onnx'
    report = export.export(str(run), out, format='onnx')
    found = re.search(r'on cpu: (\d+) of (\d+) detections in 4 images', report)
    assert found and found[1] == found[2] and int(found[1]) >= 8
    assert 'ONNX opset 18, by jax2onnx' in report
    about = json.loads(out.with_suffix('.json').read_text())
    assert about['format'] == 'onnx' and about['agreement']['mask'] < 1e-3
    assert out.stat().st_size < 3.6e6       # 4.3 with constants spread over the maps

    image, canvas = np.random.default_rng(3).integers(0, 256, (48, 60, 3), np.uint8), np.zeros((1, 64, 64, 3), np.uint8)
    canvas[0, :48, :60] = image
    np.save(tmp_path / 'canvas.npy', canvas)
    docs = (ROOT / 'docs' / 'export.md').read_text()
    lines = re.search(r'```python\n(.*?InferenceSession.*?)```', docs, re.DOTALL)[1]
    more = ("import sys\nassert not {'relnet_jax', 'jax'} & set(sys.modules)\n"
            "assert found['masks'].shape == (1, 4, 28, 28)\n")
    subprocess.run([sys.executable, '-c', lines + more], cwd=tmp_path, check=True, timeout=300)


@needs_packages
def test_constants_that_repeat_themselves_are_cut_down_where_operators_stretch_them():
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator
    rng = np.random.default_rng(0)
    shape = [4, 6, 8]
    arrays = dict(zero=np.zeros(shape, np.float32), rows=np.broadcast_to(rng.random((4, 1, 8), np.float32), shape),
                  all=rng.random(shape, np.float32), kept=np.ones(shape, np.float32))
    nodes = [helper.make_node('Max', ['x', 'zero'], ['a']), helper.make_node('Mul', ['a', 'rows'], ['b']),
             helper.make_node('Add', ['b', 'all'], ['c']), helper.make_node('Max', ['zero', 'kept'], ['d']),
             helper.make_node('Concat', ['c', 'd'], ['y'], axis=0)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in
            (('x', shape), ('y', [8, 6, 8])))
    graph = helper.make_graph(nodes, 'g', [x], [y],
                              [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()],
                              value_info=[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                                          for name in [*'abcd', *arrays]])
    model = helper.make_model(graph)
    value = rng.standard_normal(shape, np.float32)
    before = ReferenceEvaluator(model).run(None, {'x': value})[0]
    onnx_file.shrink_constants(model.graph)
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, {'x': value})[0], before)
    assert {t.name: list(t.dims) for t in model.graph.initializer} == {
        'zero': shape, 'zero_once': [1, 1, 1], 'rows_once': [4, 1, 8], 'all_once': shape, 'kept': shape}


@needs_packages
@pytest.mark.slow
@pytest.mark.parametrize('name', MODELS)
def test_every_part_of_the_model_can_be_exported(name):
    import onnxruntime
    config = tiny_config()
    with config.unlocked():
        config.model.update(MODELS[name])
    model = build(config, num_classes=4, adjacency=np.eye(4, dtype=np.float32))
    shapes = input_shapes(config, batch=1, parts=PARTS)
    everything = [*shapes[:2], jax.ShapeDtypeStruct((1, PARTS, 4), np.float32), jax.ShapeDtypeStruct((1, PARTS), bool)]
    params = jax.eval_shape(model.init, jax.random.key(0), *everything)['params']
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.05, leaf.shape).astype(leaf.dtype), params)
    call = standalone(lambda params, *arrays: model.apply({'params': params}, *arrays), params, PARTS)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx_file.serialise(call, shapes), options)
    outputs = [output.name for output in session.get_outputs()]
    for seed in (0, 1):
        arrays = noise(shapes, seed)
        found = dict(zip(outputs, session.run(None, dict(zip(INPUTS, arrays)))))
        expected, found = (rows(Detections(**{'masks': np.zeros((*v['valid'].shape, 0, 0))} | v), 0)
                           for v in (jax.device_get(jax.jit(call)(*arrays)), found))
        result = compare(expected, found)
        assert result.complete and result.expected > 0, result
        assert result.box < 1e-2 and result.score < 1e-4 and (result.mask or 0) < 1e-3
