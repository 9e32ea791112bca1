"""Pickles of weights, read by the standard library's unpickler, which is left nothing to call.

A name in the file is looked up among the few that tensors, arrays and dictionaries are written with, and calling it
calls a function of this module. Any other name, opcode or call raises `RefusedPickle` before anything happened. torch
is not imported. Read are protocols 0 to 5 as torch.save (2017 till now) and numpy write them, and protocol 2 of Python
2, whose byte strings come back as latin-1 text.

It is `pickle._Unpickler`, the one written in Python. The same in C (`pickle.Unpickler`) has no place for limits: it
makes dictionaries whose keys it hashes, nested tuples till its stack overflows or for ever, allocates its memo up to
whatever index the file names, and reads objects till the memory is full. Here nothing of a file is hashed, compared,
printed or walked before its type is known.
"""
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from relnet_jax.errors import UserError

READS = 1_000_000       # of a file; a tensor takes some 65. So many take 1 s, and 100 MB of empty objects
DEPTH = 64              # of containers in containers


class RefusedPickle(UserError):
    """A pickle that wants something else than tensors, arrays, dictionaries, lists, numbers and strings."""


def _check(ok: Any, message: str) -> None:
    if not ok:
        raise RefusedPickle(message)


# ---- what a file may hold beside lists, tuples, numbers and strings ----
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


class Made:
    """What a call gave: a `Tensor`, an array or a number type, as `value`; some get it later, by opcode BUILD."""
    def __init__(self, value: Any, finish: Callable | None = None):
        self.value, self.finish = value, finish

    def __setstate__(self, state: Any) -> None:
        if self.finish:     # else what is no weight: hooks of a parameter
            self.value = self.finish(*state)


class Dictionary(dict):
    """Its keys are plain, and integers small enough to be their own hash: others can be made that all have the same."""
    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        _check(type(key) in (str, bytes, bool, float, type(None)) or (type(key) is int and abs(key) < 2**60),
               f'a dictionary with a key of type {type(key).__name__}, expected text or a number below 2**60')
        super().__setitem__(key, value)

    def __setstate__(self, state: Any) -> None:
        """Drops `_metadata`, which a state dict has."""


class Global(NamedTuple):
    """A name that the file mentions, one of CALLS."""
    name: str

    def __call__(self, *args) -> Any:
        _check(CALLS[self.name], f"it calls '{self.name}'")
        return CALLS[self.name](*args)


# ---- what calls give ----
STORAGES = {f'torch.{place}{name}Storage': np.dtype(dtype) for place in ('', 'cuda.') for name, dtype in (
    ('Float', np.float32), ('Double', np.float64), ('Half', np.float16), ('BFloat16', ml_dtypes.bfloat16),
    ('Long', np.int64), ('Int', np.int32), ('Short', np.int16), ('Char', np.int8), ('Byte', np.uint8),
    ('Bool', np.bool_))}
DTYPE = re.compile('[<>|=]?(f[248]|[iu][1248]|b1)')


def _integers(values: Any, what: str = 'torch.Size') -> tuple[int, ...]:
    _check(type(values) in (tuple, list) and len(values) <= 32
           and all(type(v) is int and 0 <= v < 2**62 for v in values), f'{what}: expected up to 32 integers >= 0')
    return tuple(values)


def _ordered_dict(pairs: Any = ()) -> Dictionary:
    _check(type(pairs) in (list, tuple) and all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs),
           'an OrderedDict of something else than pairs')
    made = Dictionary()
    for key, value in pairs:
        made[key] = value
    return made


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_) -> Tensor:
    _check(type(storage) is Storage, f'a tensor without storage, but {type(storage).__name__}')
    shape, strides = _integers(shape, 'shape'), _integers(strides, 'strides')
    _check(len(shape) == len(strides), f'shape {shape} and strides {strides} do not go together')
    return Tensor(storage, *_integers((offset,), 'offset'), shape, strides)


def _parameter(data: Any, *_) -> Made:
    _check(type(data) is Made and isinstance(data.value, Tensor), 'a parameter without tensor')
    return Made(data.value)


def _bytes(data: Any, encoding: Any = 'latin1') -> bytes:
    """Bytes as they are, as Python 2 wrote them, or as Python 3 does in protocol 2 (`_codecs.encode`)."""
    _check(type(encoding) is str and encoding in ('latin1', 'latin-1'), 'text in another encoding than latin1')
    _check(type(data) in (str, bytes), f'an array without bytes, but {type(data).__name__}')
    return data if type(data) is bytes else data.encode('latin1')


def _dtype(name: Any, *_) -> Made:
    _check(type(name) is str and DTYPE.fullmatch(name), f'arrays of type {name[:20]!r} are not read'
           if type(name) is str else 'arrays of a type that is no text are not read')

    def ordered(version: Any, order: Any, *_) -> np.dtype:
        _check(type(order) is str and order in ('<', '>', '=', '|'), 'arrays of unknown byte order are not read')
        return np.dtype(name) if order == '|' else np.dtype(name).newbyteorder(order)
    return Made(np.dtype(name), ordered)


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """`order`: 'C' or 'F', or whether it is 'F'."""
    _check(type(dtype) is Made and isinstance(dtype.value, np.dtype), 'an array without a number type')
    data, shape, dtype = _bytes(data), _integers(shape, 'shape'), dtype.value
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    _check(len(data) == size, f'an array of shape {shape} and type {dtype} needs {size} bytes, got {len(data)}')
    _check(type(order) in (str, bool, int) and order in ('C', 'F', 0, 1), 'an array of another order than C or F')
    return np.frombuffer(data, dtype).reshape(shape, order='F' if order in ('F', 1) else 'C')


def _array_of_state(version: Any, shape: Any, dtype: Any, fortran: Any, data: Any) -> np.ndarray:
    return _array(data, dtype, shape, fortran)


CALLS: dict[str, Callable | None] = {  # None: the name of a type, an argument of calls
    **dict.fromkeys((*STORAGES, 'numpy.ndarray')),
    'collections.OrderedDict': _ordered_dict,
    'torch.Size': _integers,
    'numpy.dtype': _dtype,
    '_codecs.encode': _bytes,
    '__builtin__.bytes': lambda: b'',
    'torch._utils._rebuild_parameter': _parameter,
    'torch.nn.parameter.Parameter': _parameter,
    **dict.fromkeys(
        ('torch._utils._rebuild_tensor', 'torch._utils._rebuild_tensor_v2'), lambda *args: Made(_tensor(*args))
    ),
    # torch before 0.4: an empty tensor, then its state
    **dict.fromkeys((name.replace('Storage', 'Tensor') for name in STORAGES), lambda: Made(None, _tensor)),
}
for _core in ('numpy.core', 'numpy._core'):     # before numpy 2 and since
    CALLS |= {
        f'{_core}.multiarray._reconstruct': lambda *_: Made(None, _array_of_state),
        f'{_core}.multiarray.scalar': lambda dtype, data: Made(_array(data, dtype, (), 'C')),
        f'{_core}.numeric._frombuffer': lambda *args: Made(_array(*args))}      # protocol 5


# ---- reading ----
class _Counted:
    """A file that is read READS times, and never beyond its end."""
    def __init__(self, file: BinaryIO):
        self.file, self.left = file, READS

    def read(self, size: int | None = None) -> bytes:
        self.left -= 1
        _check(self.left >= 0, f'it has more than {READS} opcodes and values')
        data = self.file.readline() if size is None else self.file.read(size)
        if size is not None and len(data) < size:
            raise EOFError('ran out of input')
        return data

    readline = read


def _check_depth(tree: Any) -> None:
    """Level by level, and every container once, however often it is referred to."""
    level, seen = [tree], set()
    for _ in range(DEPTH):
        new = {id(x): x for x in level if isinstance(x, (dict, list, tuple)) and id(x) not in seen}
        seen |= new.keys()
        level = [child for x in new.values() for child in (x.values() if isinstance(x, dict) else x)]
    _check(not level, f'containers nested more than {DEPTH} deep')


class Reader(pickle._Unpickler):
    """Reads the pickles of a file one after another, each from the file's position, and leaves it behind the pickle."""
    def __init__(self, file: BinaryIO):
        super().__init__(_Counted(file), encoding='latin1')
        self.storages: dict[str, Storage] = {}      # all that were referred to, without their views

    def load(self) -> Any:
        """The next object. Raises RefusedPickle for anything but data, by name, and others for a damaged file."""
        self.memo = {}
        try:
            tree = super().load()
        except (AttributeError, TypeError) as error:    # arguments of other number or type than what is called takes
            raise RefusedPickle(f'it is not how weights are written ({error})') from None
        _check_depth(tree)
        return tree

    def find_class(self, module: str, name: str) -> Global:
        full = f'{module}.{name}'
        _check(full in CALLS, f'it asks for {full[:100]!r}, which is no tensor, array or dictionary; nothing was run')
        return Global(full)

    def persistent_load(self, pid: Any) -> Storage:
        """torch's reference to a storage: ('storage', type, key, place, number of elements[, view])."""
        _check(type(pid) is tuple and len(pid) in (5, 6) and type(pid[1]) is Global and pid[1].name in STORAGES
               and type(pid[2]) is str, 'a persistent reference that is no storage')
        whole = Storage(pid[2], STORAGES[pid[1].name], *_integers((pid[4],), 'storage size'), None)
        _check(self.storages.setdefault(whole.key, whole) == whole, 'a storage of two types or sizes')
        if len(pid) == 5 or pid[5] is None:
            return whole
        _check(type(pid[5]) is tuple and len(pid[5]) == 3, 'a storage view that is not (key, offset, size)')
        return whole._replace(view=_integers(pid[5][1:], 'storage view'))


def _dict(reader: Reader) -> None:
    items = reader.pop_mark()
    reader.append(_ordered_dict(list(zip(items[::2], items[1::2], strict=True))))


def _refused(name: str) -> Callable[[Reader], None]:
    return lambda reader: _check(False, f'it uses opcode {name}, which weights do not need')


_STANDARD = pickle._Unpickler.dispatch
_AS_THEY_ARE = (
    'PROTO STOP MARK POP POP_MARK DUP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET NONE NEWTRUE NEWFALSE INT '
    'BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE '
    'SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE '
    'TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BUILD INST BINPERSID').split()
Reader.dispatch = {ord(op.code): _STANDARD[ord(op.code)] if op.name in _AS_THEY_ARE else _refused(op.name)
                   for op in pickletools.opcodes} | {
    pickle.EMPTY_DICT[0]: lambda reader: reader.append(Dictionary()), pickle.DICT[0]: _dict,
    pickle.NEWOBJ[0]: _STANDARD[pickle.REDUCE[0]], pickle.BYTEARRAY8[0]: _STANDARD[pickle.BINBYTES8[0]],
    pickle.FRAME[0]: lambda reader: reader.read(8)}     # how much may be read ahead
