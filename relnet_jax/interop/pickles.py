"""Pickles of weights, read by an interpreter that cannot run anything.

Python's own unpickler imports and calls what a file names. Here a pickle is walked opcode by opcode (pickletools), a
global is nothing but its name, and "calling" one is only understood for the few names below that build tensors, arrays
and dictionaries. Any other name, opcode or call raises `RefusedPickle` before anything happened. torch is not imported.

Understood are pickles of protocol 0 to 5 as torch.save (2017 till now) and numpy write them, and of protocol 2 by
Python 2, whose byte strings come back as latin-1 text.
"""
import pickletools
import re
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from relnet_jax.errors import UserError


class RefusedPickle(UserError):
    """A pickle that wants something else than tensors, arrays, dictionaries, lists, numbers and strings."""


class Storage(NamedTuple):
    """A flat run of `size` numbers named `key`, held elsewhere in the file; a part of it if `view` = (offset, size)."""
    key: str
    dtype: np.dtype
    size: int
    view: tuple[int, int] | None


class Tensor(NamedTuple):
    """A torch tensor whose numbers are not read yet: a window of its storage. Offset and strides count elements."""
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Global(NamedTuple):
    name: str


class _Built:
    """A thing still to receive its state (opcode BUILD), such as an array made by numpy's `_reconstruct`."""
    def __init__(self, kind: str, value: Any = None):
        self.kind, self.value = kind, value


STORAGES = {'Float': np.float32, 'Double': np.float64, 'Half': np.float16, 'BFloat16': ml_dtypes.bfloat16,
            'Long': np.int64, 'Int': np.int32, 'Short': np.int16, 'Char': np.int8, 'Byte': np.uint8, 'Bool': np.bool_}
STORAGES = {k: np.dtype(v) for k, v in STORAGES.items()}
_TYPE = re.compile(r'torch\.(?:cuda\.)?([A-Za-z0-9]+)(Storage|Tensor)')
_DTYPE = re.compile(r'[<>|=]?[fiub][1248]')
_ARRAY = {f'numpy{core}.multiarray._reconstruct' for core in ('.core', '._core')}
_SCALAR = {f'numpy{core}.multiarray.scalar' for core in ('.core', '._core')}
_FROM_BUFFER = {f'numpy{core}.numeric._frombuffer' for core in ('.core', '._core')}
_KNOWN = _ARRAY | _SCALAR | _FROM_BUFFER | {
    'collections.OrderedDict', 'numpy.ndarray', 'numpy.dtype', '_codecs.encode', '__builtin__.bytes',
    'torch._utils._rebuild_tensor', 'torch._utils._rebuild_tensor_v2', 'torch._utils._rebuild_parameter',
    'torch.nn.parameter.Parameter', 'torch.Size'}


def _check(ok, message: str):
    if not ok:
        raise RefusedPickle(message)


def _global(module: str, name: str) -> _Global:
    full = f'{module}.{name}'
    kind = _TYPE.fullmatch(full)
    _check(full in _KNOWN or (kind and kind[1] in STORAGES),
           f"it asks for '{full}', which is no tensor, array or dictionary; nothing was run")
    return _Global(full)


def _integers(values, what: str) -> tuple[int, ...]:
    _check(isinstance(values, (tuple, list)) and all(type(v) is int and 0 <= v < 2**62 for v in values),
           f'{what} {values!r:.80} is not a tuple of integers >= 0')
    return tuple(values)


def _tensor(storage, offset, shape, strides) -> Tensor:
    _check(isinstance(storage, Storage), f'a tensor without storage, but {type(storage).__name__}')
    tensor = Tensor(storage, *_integers((offset,), 'offset'), _integers(shape, 'shape'), _integers(strides, 'strides'))
    _check(len(tensor.shape) == len(tensor.strides) <= 32, f'shape {shape} and strides {strides} do not go together')
    return tensor


def _dtype(text) -> np.dtype:
    _check(isinstance(text, str) and _DTYPE.fullmatch(text) and text[-2:] not in ('f1', 'b2', 'b4', 'b8'),
           f'arrays of type {text!r:.40} are not read')
    return np.dtype(text)


def _raw(data) -> bytes:
    if isinstance(data, str):  # bytes as Python 2 wrote them
        try:
            return data.encode('latin1')
        except UnicodeEncodeError:
            data = None
    _check(isinstance(data, (bytes, bytearray)), f'an array without bytes, but {type(data).__name__}')
    return bytes(data)


def _array(data, dtype, shape, fortran: bool) -> np.ndarray:
    _check(isinstance(dtype, _Built) and dtype.kind == 'dtype', 'an array without a number type')
    data, shape, dtype = _raw(data), _integers(shape, 'shape'), dtype.value
    count = int(np.prod(shape, dtype=object)) if shape else 1
    _check(len(shape) <= 32 and len(data) == count * dtype.itemsize,
           f'an array of shape {shape} and type {dtype} needs {count * dtype.itemsize} bytes, got {len(data)}')
    return np.frombuffer(data, dtype).reshape(shape, order='F' if fortran else 'C')


def _call(function, args):
    """What calling the named thing would give. Names that carry data only (classes as arguments) cannot be called."""
    _check(isinstance(function, _Global) and isinstance(args, tuple), f'it calls {type(function).__name__}')
    name, n = function.name, len(args)
    if name == 'collections.OrderedDict' and n <= 1:
        pairs = args[0] if args else []
        _check(isinstance(pairs, (list, tuple)) and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs),
               'an OrderedDict of something else than pairs')
        return {k: v for k, v in pairs}
    if name in ('torch._utils._rebuild_tensor', 'torch._utils._rebuild_tensor_v2') and n >= 4:
        return _tensor(*args[:4])
    if name in ('torch._utils._rebuild_parameter', 'torch.nn.parameter.Parameter') and n >= 1:
        _check(unwrap(args[0]) is not None, 'a parameter without tensor')
        return unwrap(args[0])
    if name.endswith('Tensor') and not args:  # torch before 0.4: an empty tensor, then its state
        return _Built('tensor')
    if name == 'torch.Size' and n == 1:
        return _integers(args[0], 'torch.Size')
    if name in _ARRAY:
        return _Built('array')
    if name in _FROM_BUFFER and n == 4:  # protocol 5
        return _array(args[0], args[1], args[2], args[3] == 'F')
    if name in _SCALAR and n == 2:
        return _array(args[1], args[0], (), False)
    if name == 'numpy.dtype' and n >= 1:
        return _Built('dtype', _dtype(args[0]))
    if name == '_codecs.encode' and args[1:] in (('latin1',), ('latin-1',)):  # bytes of Python 3 in protocol 2
        return _raw(args[0])
    if name == '__builtin__.bytes' and not args:    # and this for no bytes
        return b''
    raise RefusedPickle(f"it calls '{name}' with {n} arguments, which is not how tensors are written")


def unwrap(x) -> Tensor | np.ndarray | None:
    x = x.value if isinstance(x, _Built) else x
    return x if isinstance(x, (Tensor, np.ndarray)) else None


def _build(target, state):
    """State for a thing just made; what is no weight (a state dict's `_metadata`, hooks) is dropped."""
    if not isinstance(target, _Built):
        _check(isinstance(target, (dict, Tensor)), f'it sets the state of {type(target).__name__}')
    elif target.kind == 'tensor':
        _check(isinstance(state, tuple) and len(state) == 4,
               'a tensor state that is not (storage, offset, shape, strides)')
        target.value = _tensor(*state)
    elif target.kind == 'array':
        _check(isinstance(state, tuple) and len(state) == 5,
               'an array state that is not (1, shape, type, order, bytes)')
        target.value = _array(state[4], state[2], state[1], bool(state[3]))
    else:
        _check(isinstance(state, tuple) and len(state) >= 2 and state[1] in ('<', '>', '|', '='),
               f'arrays of type {state!r:.40} are not read')
        _check(all(x is None for x in state[2:5]), 'arrays of records are not read')
        target.value = target.value if state[1] == '|' else target.value.newbyteorder(state[1])


def _persistent(pid) -> Storage:
    """torch's reference to a storage: ('storage', type, key, place, number of elements[, view])."""
    _check(isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == 'storage' and isinstance(pid[1], _Global)
           and pid[1].name.endswith('Storage') and isinstance(pid[2], str),
           f'a persistent reference that is no storage: {pid!r:.80}')
    view = pid[5] if len(pid) == 6 else None
    if view is not None:
        _check(isinstance(view, tuple) and len(view) == 3, f'storage view {view!r:.80}')
        view = _integers(view[1:], 'storage view')
    return Storage(pid[2], STORAGES[_TYPE.fullmatch(pid[1].name)[1]], *_integers((pid[4],), 'storage size'), view)


_PLAIN = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_NUMBERS = {'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT'}
_TEXTS = {'STRING', 'BINSTRING', 'SHORT_BINSTRING', 'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8',
          'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8'}
_EMPTY = {'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_MARK = object()


def load(file: BinaryIO) -> Any:
    """The object of the pickle at `file`'s position, which ends up behind it. Tensors are `Tensor`, numbers unread.

    Raises:
        RefusedPickle: for anything that is not data, by name.
        ValueError, IndexError, KeyError, TypeError: for a damaged file.
    """
    stack: list = []
    memo: dict[int, Any] = {}

    def since_mark() -> list:
        at = max(i for i, x in enumerate(stack) if x is _MARK)
        items = stack[at + 1:]
        del stack[at:]
        return items

    def fill(target, pairs):
        _check(isinstance(target, dict) and len(pairs) % 2 == 0, f'it sets items of {type(target).__name__}')
        target.update(zip(pairs[::2], pairs[1::2]))

    for op, arg, _ in pickletools.genops(file):
        name = op.name
        if name in ('PROTO', 'FRAME'):
            continue
        elif name in _PLAIN:
            stack.append(_PLAIN[name])
        elif name in _NUMBERS or name in _TEXTS:
            stack.append(arg)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == 'MARK':
            stack.append(_MARK)
        elif name in ('PUT', 'BINPUT', 'LONG_BINPUT'):
            memo[int(arg)] = stack[-1]
        elif name == 'MEMOIZE':
            memo[len(memo)] = stack[-1]
        elif name in ('GET', 'BINGET', 'LONG_BINGET'):
            stack.append(memo[int(arg)])
        elif name in _TUPLES:
            n = _TUPLES[name]
            _check(len(stack) >= n, 'a tuple of more than there is')
            stack[-n:] = [tuple(stack[-n:])]
        elif name == 'TUPLE':
            stack.append(tuple(since_mark()))
        elif name == 'LIST':
            stack.append(since_mark())
        elif name == 'DICT':
            pairs = since_mark()
            stack.append({})
            fill(stack[-1], pairs)
        elif name in ('APPEND', 'APPENDS'):
            items = [stack.pop()] if name == 'APPEND' else since_mark()
            _check(isinstance(stack[-1], list), f'it appends to {type(stack[-1]).__name__}')
            stack[-1].extend(items)
        elif name in ('SETITEM', 'SETITEMS'):
            pairs = [stack.pop(-2), stack.pop()] if name == 'SETITEM' else since_mark()
            fill(stack[-1], pairs)
        elif name == 'GLOBAL':
            stack.append(_global(*arg.partition(' ')[::2]))
        elif name == 'STACK_GLOBAL':
            attribute, module = stack.pop(), stack.pop()
            stack.append(_global(module, attribute))
        elif name in ('REDUCE', 'NEWOBJ'):
            args = stack.pop()
            stack.append(_call(stack.pop(), args))
        elif name == 'BUILD':
            state = stack.pop()
            _build(stack[-1], state)
        elif name == 'BINPERSID':
            stack.append(_persistent(stack.pop()))
        elif name == 'POP':
            stack.pop()
        elif name == 'POP_MARK':
            since_mark()
        elif name == 'DUP':
            stack.append(stack[-1])
        elif name == 'STOP':
            _check(len(stack) == 1, f'it ends with {len(stack)} values instead of one')
            return stack[0]
        elif name == 'INST':
            _global(*arg.partition(' ')[::2])
            raise RefusedPickle(f"it makes an instance of '{arg}'")
        else:
            raise RefusedPickle(f'it uses opcode {name}, which weights do not need')
    raise ValueError('the pickle has no end')
