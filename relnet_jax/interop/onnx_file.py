"""A detector as an ONNX model, by jax2onnx; onnxruntime runs it without JAX.

jax2onnx pins an older Orbax than this package works with, and brings much that it does not need for this, so that it is
no extra of the package: `pip install --no-deps` takes the six packages that are used (docs/export.md).
"""
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

from relnet_jax.errors import UserError
from relnet_jax.interop.lax_only import lax_only
from relnet_jax.interop.standalone import INPUTS

PACKAGES = ('jax2onnx', 'onnx', 'onnx-ir', 'onnxruntime', 'sympy', 'mpmath')
INSTALL = "pip install --no-deps jax2onnx onnx onnx-ir onnxruntime sympy 'mpmath<1.4'"
OPSET = 18              # the lowest that has what the detector needs is read by the most runtimes
LARGEST_KEPT = 64       # values; constants that repeat themselves are cut down from this size on
# Operators whose inputs stretch to a common shape.
STRETCHING = {'Add', 'And', 'Div', 'Equal', 'Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual', 'Max', 'Min', 'Mul',
              'Or', 'Pow', 'Sub', 'Where'}

RUNNER = '''
import sys
import numpy as np
import onnxruntime
path, inputs, outputs = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
detector = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
takes, gives = ([array.name for array in arrays] for arrays in (detector.get_inputs(), detector.get_outputs()))
with np.load(inputs) as stored:
    batches = [{name: stored[f'{i}_{j}'] for j, name in enumerate(takes)} for i in range(len(stored) // len(takes))]
found = [dict(zip(gives, detector.run(None, batch))) for batch in batches]
np.savez(outputs, **{f'{i}_{name}': value for i, lines in enumerate(found) for name, value in lines.items()})
there = {name.partition('.')[0] for name in sys.modules} & {'relnet_jax', 'jax', 'flax'}
assert not there, there
'''


def serialise(call: Callable, shapes: Sequence[jax.ShapeDtypeStruct], platforms: Sequence[str] = ()) -> bytes:
    """The file's bytes: inputs are called as in `INPUTS`, outputs as the keys of what `call` returns.

    Raises UserError where packages are missing, and for an operation that jax2onnx does not know.
    """
    modules = [package.replace('-', '_') for package in PACKAGES]
    if missing := [package for package, module in zip(PACKAGES, modules) if find_spec(module) is None]:
        raise UserError(f'--format=onnx: {", ".join(missing)} missing: {INSTALL}')
    import jax2onnx
    logging.disable(logging.WARNING)        # it speaks of each optional package that is not there
    try:
        model = jax2onnx.to_onnx(
            lax_only(call, shapes), inputs=list(shapes), model_name='detector', opset=OPSET,
            input_names=INPUTS[:len(shapes)], output_names=sorted(jax.eval_shape(call, *shapes)))
    except NotImplementedError as error:
        raise UserError(f'--format=onnx: jax2onnx cannot convert this detector: {error}') from error
    finally:
        logging.disable(logging.NOTSET)
    shrink_constants(model.graph)
    return model.SerializeToString()


def shrink_constants(graph: Any) -> None:
    """Cuts constants down along axes on which they repeat themselves, where the operator stretches them again.

    A zero that was spread over a feature map takes megabytes otherwise, once for each layer.
    """
    from onnx import numpy_helper
    large = {t.name: t for t in graph.initializer if np.prod(t.dims) > LARGEST_KEPT}
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*graph.value_info, *graph.input]
              if v.name not in large}       # of two constants each would count on the other
    made = {}
    for node in graph.node:
        if node.op_type not in STRETCHING:
            continue
        for i, name in enumerate(node.input):
            others = [shapes.get(other) for j, other in enumerate(node.input) if j != i]
            if name not in large or list(large[name].dims) not in others:
                continue
            if name not in made:
                array = numpy_helper.to_array(large[name])
                for axis in range(array.ndim):
                    first = array.take([0], axis)
                    array = first if np.array_equal(array, np.broadcast_to(first, array.shape)) else array
                made[name] = numpy_helper.from_array(array, f'{name}_once')
                graph.initializer.append(made[name])
            node.input[i] = made[name].name
    used = {name for node in graph.node for name in _inputs(node)} | {output.name for output in graph.output}
    kept = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _inputs(node: Any) -> set[str]:
    """Names that a node reads, those in its subgraphs too."""
    inner = {name for attribute in node.attribute for child in attribute.g.node for name in _inputs(child)}
    return {*node.input, *inner, *(out.name for attribute in node.attribute for out in attribute.g.output)}


def made_with() -> dict:
    """Versions, for the JSON file."""
    return dict(opset=OPSET, **{name: version(name) for name in ('jax', 'jax2onnx', 'onnx', 'onnxruntime')})


def told(versions: dict, platforms: Sequence[str]) -> str:
    """The same in a line for people."""
    return f'ONNX opset {versions["opset"]}, by jax2onnx {versions["jax2onnx"]}'
