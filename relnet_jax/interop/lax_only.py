"""A function as nothing but lax primitives: for converters that know these and not everything JAX wraps around them."""
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

CALLS = ('jit', 'pjit', 'closed_call', 'remat', 'checkpoint', 'custom_jvp_call', 'custom_vjp_call')
CALLED = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')       # parameters of theirs that hold the function


def lax_only(function: Callable, shapes: Sequence[jax.ShapeDtypeStruct]) -> Callable:
    """`function` with its outputs as a list (`jax.tree.leaves`), for arguments of `shapes`, as it is traced now.

    Calls, derivative rules and barriers are gone; of what depends on the platform the default remains; selection
    between booleans, which onnxruntime lacks, is made of `and`, `or` and `not`, and they are gathered as numbers.
    """
    closed = jax.make_jaxpr(function)(*shapes)
    return lambda *arguments: _run(closed.jaxpr, closed.consts, arguments)


def _run(jaxpr: Jaxpr, constants: Sequence, arguments: Sequence) -> list:
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments]))
    for equation in jaxpr.eqns:
        inputs = [x.val if isinstance(x, Literal) else values[x] for x in equation.invars]
        values.update(zip(equation.outvars, _outputs(equation, inputs)))
    return [x.val if isinstance(x, Literal) else values[x] for x in jaxpr.outvars]


def _outputs(equation, inputs: list) -> list:
    name, parameters = equation.primitive.name, equation.params
    if name == 'platform_index':
        return [parameters['platforms'].index(None)]
    if name == 'cond' and isinstance(inputs[0], int):       # the index above
        return _called(parameters['branches'][inputs[0]], inputs[1:])
    if name in CALLS:
        return _called(next(parameters[key] for key in CALLED if key in parameters), inputs)
    if name == 'optimization_barrier':
        return inputs
    if name == 'select_n' and equation.outvars[0].aval.dtype == bool:
        which, *cases = jnp.broadcast_arrays(*inputs)
        return [(~which & cases[0]) | (which & cases[1])]
    if name == 'gather' and equation.outvars[0].aval.dtype == bool:
        return [equation.primitive.bind(inputs[0].astype(jnp.int32), inputs[1], **parameters) != 0]
    found = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(parameters))
    return found if equation.primitive.multiple_results else [found]


def _called(function: ClosedJaxpr | Jaxpr, inputs: list) -> list:
    if isinstance(function, ClosedJaxpr):
        return _run(function.jaxpr, function.consts, inputs)
    return _run(function, (), inputs)
