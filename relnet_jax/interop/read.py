"""Files of weights as name -> numpy array: torch.save in both its formats, safetensors, Detectron pickles.

Neither torch is needed nor code of the file run. The kind of file is told by its first bytes, never by its name.
Whatever a file claims (sizes, offsets, strides) is compared with what it holds before anything is read.
"""
import io
import json
import math
import pickle
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from relnet_jax.errors import UserError
from relnet_jax.interop.pickles import Made, Reader, RefusedPickle, Storage, Tensor

TORCH_MAGIC = 0x1950a86a20f9469cfc6c     # first pickle of a torch file without zip (before 1.6)
SAFETENSORS = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16, 'I64': np.int64,
               'I32': np.int32, 'I16': np.int16, 'I8': np.int8, 'U64': np.uint64, 'U32': np.uint32, 'U16': np.uint16,
               'U8': np.uint8, 'BOOL': np.bool_}
SAFETENSORS = {k: np.dtype(v) for k, v in SAFETENSORS.items()}
MAX_HEADER = 10**7      # bytes of safetensors' header: 100,000 tensors
MAX_NAME = 500          # characters
MAX_SHARING = 4         # tensors may share storages, but not hold more than so many times the file
INNER = ('model', 'state_dict', 'blobs', 'model_state_dict', 'model_state')  # where training scripts put the weights
# What damaged bytes make the libraries raise: IndexError by an empty stack, RuntimeError by a zip flag ...
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError, SafetensorError, EOFError, IndexError,
          KeyError, OverflowError, MemoryError, RuntimeError, UnicodeError, OSError)


class Weights(NamedTuple):
    """What a file of weights holds: the arrays, and strings beside them such as Detectron2's `__author__`."""
    tensors: dict[str, np.ndarray]
    meta: dict[str, str]


def read_state(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file of weights by name, in the file's own number types. Errors as `read_weights`."""
    return read_weights(path).tensors


def read_weights(path: str | Path) -> Weights:
    """Reads a .pth (zip or legacy), .safetensors or Detectron(2) .pkl file.

    Raises:
        FileNotFoundError: if there is no such file.
        RefusedPickle: if a pickle asks for anything but tensors, arrays and dictionaries; names what.
        ValueError: if the file is of another kind, damaged, cut off or contradicts itself; names the file and what.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file of weights')
    with path.open('rb') as file:
        head = file.read(9)
    try:
        weights = _read(path, head)
        _check_names(weights)
        return weights
    except RefusedPickle as error:
        raise RefusedPickle(f'{path}: refused, {_line(error)}') from None
    except DAMAGE as error:
        raise UserError(f'{path}: damaged or cut off ({type(error).__name__}: {_line(error)})') from None
    except ValueError as error:
        raise UserError(f'{path}: {_line(error)}') from None


def _read(path: Path, head: bytes) -> Weights:
    if head.startswith(b'PK\x03\x04'):
        return _read_zip(path)
    if len(head) == 9 and head[8:] == b'{':
        return _read_safetensors(path)
    if head[:1] == b'\x80' or head[:1] in (b'(', b'c', b'}', b']'):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)  # odd escapes in the text of a damaged file
            return _read_pickles(path)
    raise ValueError(f'a file of another kind (first bytes {head!r}): expected torch.save, safetensors or pickle')


def _check_names(weights: Weights) -> None:
    """Names are printed later on, in lists and messages."""
    if not weights.tensors:
        raise ValueError('no weights found')
    for name in weights.tensors:
        if len(name) > MAX_NAME or not name.isprintable():
            raise ValueError(f'a tensor whose name has {len(name)} characters, {name[:40]!r} ..., expected at most '
                             f'{MAX_NAME} printable ones')


def _line(error: Exception) -> str:
    """The message as one line, and not all of a name that the file made long."""
    text = ' '.join(str(error)[:1000].split())
    return text if len(text) <= 300 else f'{text[:300]} ...'


def _read_zip(path: Path) -> Weights:
    """torch.save since 1.6: one uncompressed zip entry per storage beside the pickle."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles_in = [n for n in names if n.count('/') == 1 and n.endswith('/data.pkl')]
        if len(pickles_in) != 1:
            raise ValueError(f'a zip file with {len(pickles_in)} entries */data.pkl instead of one: not written by '
                             'torch.save')
        root = pickles_in[0].removesuffix('data.pkl')
        if any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
            raise ValueError('compressed entries, which torch.save does not write')
        if sum(i.file_size for i in archive.infolist()) > path.stat().st_size:
            raise ValueError('entries that together are larger than the file: they overlap, or it is cut off')
        order = archive.read(root + 'byteorder').decode() if root + 'byteorder' in names else 'little'
        if order not in ('little', 'big'):
            raise ValueError(f"byte order {order[:20]!r}, expected 'little' or 'big'")
        tree = Reader(io.BytesIO(archive.read(pickles_in[0]))).load()

        def read(storage: Storage) -> np.ndarray:
            if storage.view:
                raise ValueError('a storage in parts, which only files of torch before 1.6 have')
            data = archive.read(f'{root}data/{storage.key}')
            dtype = storage.dtype.newbyteorder('<' if order == 'little' else '>')
            if len(data) < storage.size * dtype.itemsize:
                raise ValueError(f"storage '{storage.key}' should hold {storage.size} {dtype.name}, "
                                 f'has {len(data)} bytes')
            return np.frombuffer(data, dtype, storage.size)

        return _resolve(tree, read, room=MAX_SHARING * path.stat().st_size)


def _read_pickles(path: Path) -> Weights:
    """A plain pickle, or torch.save before 1.6: magic, version, system, object, storage keys, their numbers."""
    with path.open('rb') as file:
        reader, end = Reader(file), path.stat().st_size
        tree = reader.load()
        if type(tree) is not int or tree != TORCH_MAGIC:
            return _resolve(tree, None, room=MAX_SHARING * end)
        version, system = reader.load(), reader.load()
        if type(version) is not int or version != 1001 or not isinstance(system, dict):
            raise ValueError('a torch file of another version than 1001')
        tree, keys = reader.load(), reader.load()
        if not isinstance(keys, list) or not all(type(key) is str for key in keys):
            raise ValueError('the list of storages is missing')
        order = '<' if system.get('little_endian', True) else '>'
        numbers = {}
        for key in keys:
            size, = struct.unpack('<q', file.read(8))
            if key not in reader.storages:
                raise ValueError(f'storage {key[:80]!r} belongs to no tensor: its number type is unknown')
            dtype = reader.storages[key].dtype.newbyteorder(order)
            if not 0 <= size * dtype.itemsize <= end - file.tell():
                raise ValueError(f"storage '{key}' should hold {size} {dtype.name}, "
                                 f'but only {end - file.tell()} bytes are left: cut off')
            numbers[key] = np.frombuffer(file.read(size * dtype.itemsize), dtype)

        def read(storage: Storage) -> np.ndarray:
            data = numbers[storage.key]
            start, size = storage.view or (0, storage.size)
            if data.dtype.newbyteorder('=') != storage.dtype or start + size > data.size:
                raise ValueError(f"storage '{storage.key}' holds {data.size} {data.dtype.name}, expected {size} "
                                 f'{storage.dtype.name} from {start} on')
            return data[start:start + size]

        return _resolve(tree, read, room=MAX_SHARING * end)


def _window(tensor: Tensor, data: np.ndarray) -> np.ndarray:
    """The numbers of `tensor` out of its storage, never beyond its end and never more than the storage has."""
    count = math.prod(tensor.shape)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides)) if count else tensor.offset
    if count > data.size or (count and last >= data.size):
        raise ValueError(f'a tensor of shape {tensor.shape}, strides {tensor.strides} and offset {tensor.offset} '
                         f"does not fit into its storage '{tensor.storage.key}' of {data.size} numbers")
    if not count:
        return np.zeros(tensor.shape, tensor.storage.dtype)
    strides = [s * data.itemsize for s in tensor.strides]
    view = np.lib.stride_tricks.as_strided(data[tensor.offset:], tensor.shape, strides, writeable=False)
    return view.astype(tensor.storage.dtype)


def _resolve(tree: Any, read: Callable[[Storage], np.ndarray] | None, *, room: int) -> Weights:
    """The weights' dictionary of the file's object, with every tensor read by `read(storage)`; `room` in bytes."""
    if not isinstance(tree, dict):
        raise ValueError(f'holds {type(tree).__name__} instead of a dictionary of weights')
    beside = tree
    for key in INNER:
        if isinstance(tree.get(key), dict):
            beside, tree = tree, tree[key]
            break
    storages: dict[Storage, np.ndarray] = {}
    state = {}
    for name, value in tree.items():
        value = value.value if isinstance(value, Made) else None
        if not isinstance(value, (Tensor, np.ndarray)) or not isinstance(name, str):
            continue
        if isinstance(value, Tensor):
            if read is None:
                raise ValueError(f'{name[:80]!r} is a tensor of torch, but the file holds no storages')
            if value.storage not in storages:
                storages[value.storage] = read(value.storage)
            value = _window(value, storages[value.storage])
            room -= value.nbytes
            if room < 0:
                raise ValueError('tensors that share their numbers, and together are more than '
                                 f'{MAX_SHARING} times as large as the file')
        state[name] = np.asarray(value, value.dtype.newbyteorder('='))
    if not state:
        raise ValueError(f'no weights found (keys: {", ".join(str(key)[:40] for key in list(tree)[:8])})')
    meta = {k: v for k, v in beside.items() if isinstance(k, str) and isinstance(v, (str, bool))}
    return Weights(state, {k: str(v) for k, v in meta.items()})


def _read_safetensors(path: Path) -> Weights:
    with path.open('rb') as file:
        length, = struct.unpack('<Q', file.read(8))
        if length > MAX_HEADER:
            raise ValueError(f'a header of {length} bytes, expected at most {MAX_HEADER}')
        header = file.read(length)
    state = {}
    with safe_open(path, framework='numpy') as file:
        json.loads(header, object_pairs_hook=_without_repeats)     # the package takes the last of two
        for name in file.keys():
            dtype = file.get_slice(name).get_dtype()
            if dtype not in SAFETENSORS:
                raise ValueError(f'{name[:80]!r}: number type {dtype} is not read')
            state[name] = file.get_tensor(name)
        return Weights(state, dict(file.metadata() or {}))


def _without_repeats(pairs: list[tuple[str, Any]]) -> None:
    if repeated := [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]:
        raise ValueError(f'{len(repeated)} names that stand there twice, such as {repeated[0][:80]!r}')


def write_safetensors(path: str | Path, state: Mapping[str, np.ndarray], meta: Mapping[str, str] | None = None) -> None:
    """Writes arrays by name; raises ValueError for a number type that is not read either."""
    for name, value in state.items():
        if value.dtype.newbyteorder('=') not in SAFETENSORS.values():
            raise ValueError(f"{path}: '{name}' has type {value.dtype}, expected one of "
                             f'{", ".join(dtype.name for dtype in SAFETENSORS.values())}')
    save_file({name: np.asarray(value, order='C') for name, value in state.items()}, path, metadata=dict(meta or {}))
