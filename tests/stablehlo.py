"""What stands in a lowered program: its StableHLO operations with their types and shapes."""
from collections.abc import Iterator
from typing import Any, NamedTuple


class Tensor(NamedTuple):
    dtype: str                  # as MLIR writes it: 'f32', 'bf16', 'i1', 'ui8', ...
    shape: tuple[int, ...]


class Op(NamedTuple):
    name: str                   # 'stablehlo.dot_general', ...
    operands: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    permutation: tuple[int, ...]        # of a transpose, else ()


def _tensors(values: Any) -> tuple[Tensor, ...]:
    return tuple(Tensor(str(v.type.element_type), tuple(v.type.shape)) for v in values if hasattr(v.type, 'shape'))


def _walk(operation: Any) -> Iterator[Any]:
    yield operation
    for region in operation.regions:
        for block in region:
            for inner in block:
                yield from _walk(inner.operation)


def read_ops(lowered: Any, *names: str) -> list[Op]:
    """The operations of a jax.stages.Lowered, in loops and branches too, by name ('dot_general'); all without names."""
    wanted = {f'stablehlo.{name}' for name in names}
    return [Op(op.name, _tensors(op.operands), _tensors(op.results),
               tuple(op.attributes['permutation']) if op.name == 'stablehlo.transpose' else ())
            for op in _walk(lowered.compiler_ir('stablehlo').operation) if not wanted or op.name in wanted]


def donated(lowered: Any) -> list[bool]:
    """Of every argument that the program reads, whether an output takes its place in memory."""
    main = next(op for op in _walk(lowered.compiler_ir('stablehlo').operation)
                if op.name == 'func.func' and str(op.attributes['sym_name']).strip('"') == 'main')
    return ['tf.aliasing_output' in attributes for attributes in main.attributes['arg_attrs']]
