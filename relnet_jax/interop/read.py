"""Files of weights as name -> numpy array: torch.save in both its formats, safetensors, Detectron pickles.

Neither torch is needed nor code of the file run. The kind of file is told by its first bytes, never by its name.
Whatever a file claims (sizes, offsets, strides) is compared with what it holds before anything is read.
"""
import json
import math
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, Mapping, NamedTuple

import ml_dtypes
import numpy as np

from relnet_jax.errors import UserError
from relnet_jax.interop import pickles
from relnet_jax.interop.pickles import RefusedPickle, Storage, Tensor

TORCH_MAGIC = 0x1950a86a20f9469cfc6c     # first pickle of a torch file without zip (before 1.6)
SAFETENSORS = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16, 'I64': np.int64,
               'I32': np.int32, 'I16': np.int16, 'I8': np.int8, 'U64': np.uint64, 'U32': np.uint32, 'U16': np.uint16,
               'U8': np.uint8, 'BOOL': np.bool_}
SAFETENSORS = {k: np.dtype(v) for k, v in SAFETENSORS.items()}
INNER = ('model', 'state_dict', 'blobs', 'model_state_dict', 'model_state')  # where training scripts put the weights
# What damaged bytes make the standard library raise: IndexError by an empty stack, RuntimeError by a zip flag ...
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, IndexError, KeyError, TypeError, AttributeError,
          OverflowError, MemoryError, RuntimeError, UnicodeError, json.JSONDecodeError, OSError)


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
        if head.startswith(b'PK\x03\x04'):
            return _read_zip(path)
        if len(head) == 9 and head[8:] == b'{':
            return _read_safetensors(path)
        if head[:1] == b'\x80' or head[:1] in (b'(', b'c', b'}', b']'):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', DeprecationWarning)  # odd escapes in the text of a damaged file
                return _read_pickles(path)
        raise ValueError(f'a file of another kind (first bytes {head!r}): expected torch.save, safetensors or pickle')
    except RefusedPickle as error:
        raise RefusedPickle(f'{path}: refused, {error}') from None
    except DAMAGE as error:
        raise UserError(f'{path}: damaged or cut off ({type(error).__name__}: {error})') from error
    except ValueError as error:
        raise UserError(f'{path}: {error}') from error


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
        order = archive.read(root + 'byteorder').decode() if root + 'byteorder' in names else 'little'
        if order not in ('little', 'big'):
            raise ValueError(f"byte order '{order}', expected 'little' or 'big'")
        with archive.open(pickles_in[0]) as file:
            tree = pickles.load(file)

        def read(storage: Storage) -> np.ndarray:
            data = archive.read(f'{root}data/{storage.key}')
            dtype = storage.dtype.newbyteorder('<' if order == 'little' else '>')
            if len(data) < storage.size * dtype.itemsize:
                raise ValueError(f"storage '{storage.key}' should hold {storage.size} {dtype.name}, "
                                 f'has {len(data)} bytes')
            return np.frombuffer(data, dtype, storage.size)

        return _resolve(tree, read)


def _read_pickles(path: Path) -> Weights:
    """A plain pickle, or torch.save before 1.6: magic, version, system, object, storage keys, their numbers."""
    with path.open('rb') as file:
        tree = pickles.load(file)
        if tree != TORCH_MAGIC or type(tree) is not int:
            return _resolve(tree, None)
        version, system = pickles.load(file), pickles.load(file)
        if version != 1001 or not isinstance(system, dict):
            raise ValueError(f'torch file of version {version}, expected 1001')
        tree, keys = pickles.load(file), pickles.load(file)
        if not isinstance(keys, list):
            raise ValueError('the list of storages is missing')
        wanted = {t.storage.key: t.storage for t in _leaves(tree) if isinstance(t, Tensor)}
        order = '<' if system.get('little_endian', True) else '>'
        end = path.stat().st_size
        numbers = {}
        for key in keys:
            size, = struct.unpack('<q', file.read(8))
            if key not in wanted:
                raise ValueError(f"storage '{key}' belongs to no tensor: its number type is unknown")
            dtype = wanted[key].dtype.newbyteorder(order)
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

        return _resolve(tree, read)


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


def _leaves(tree: Any, depth: int = 0):
    """Values of nested dictionaries and lists, a few levels deep (a checkpoint keeps its weights near the top)."""
    if isinstance(tree, (dict, list, tuple)) and type(tree) is not Tensor and depth < 6:
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(value, depth + 1)
    else:
        yield pickles.unwrap(tree)


def _resolve(tree: Any, read) -> Weights:
    """The weights' dictionary of the file's object, with every tensor read by `read(storage)`."""
    if not isinstance(tree, dict):
        raise ValueError(f'holds {type(tree).__name__} instead of a dictionary of weights')
    beside = tree
    for key in INNER:
        if isinstance(tree.get(key), dict):
            beside, tree = tree, tree[key]
            break
    storages: dict[str, np.ndarray] = {}
    state = {}
    for name, value in tree.items():
        value = pickles.unwrap(value)
        if isinstance(value, Tensor):
            if read is None:
                raise ValueError(f"'{name}' is a tensor of torch, but the file holds no storages")
            if value.storage not in storages:
                storages[value.storage] = read(value.storage)
            value = _window(value, storages[value.storage])
        if isinstance(value, np.ndarray) and isinstance(name, str):
            state[name] = np.asarray(value, value.dtype.newbyteorder('='))
    if not state:
        raise ValueError(f'no weights found (keys: {", ".join(str(k) for k in list(tree)[:8])})')
    meta = {k: v for k, v in beside.items() if isinstance(k, str) and isinstance(v, (str, bool))}
    return Weights(state, {k: str(v) for k, v in meta.items()})


def _read_safetensors(path: Path) -> Weights:
    """8 bytes of header length, a JSON header name -> {dtype, shape, data_offsets}, then the numbers, little-endian."""
    with path.open('rb') as file:
        length, = struct.unpack('<Q', file.read(8))
        room = path.stat().st_size - 8
        if length > room:
            raise ValueError(f'header of {length} bytes in a file with {room} left: cut off')
        header = json.loads(file.read(length))
        data = file.read()
    meta = header.pop('__metadata__', {})
    state = {}
    for name, entry in header.items():
        if entry['dtype'] not in SAFETENSORS:
            raise ValueError(f"'{name}': number type {entry['dtype']} is not read")
        dtype, shape, (start, end) = SAFETENSORS[entry['dtype']], entry['shape'], entry['data_offsets']
        if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
            raise ValueError(f"'{name}': shape {shape} and offsets {[start, end]} must be integers >= 0")
        if end > len(data) or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"'{name}': {dtype.name} {shape} at bytes {start} to {end} of {len(data)}: "
                             'cut off or wrong')
        state[name] = np.frombuffer(data, dtype.newbyteorder('<'), math.prod(shape), start).reshape(shape).astype(dtype)
    return Weights(state, {str(k): str(v) for k, v in meta.items()})


def write_safetensors(path: str | Path, state: Mapping[str, np.ndarray], meta: Mapping[str, str] | None = None) -> None:
    """Writes arrays by name, in the order given; raises ValueError for a number type the format has no name for."""
    names = {v: k for k, v in SAFETENSORS.items()}
    header: dict[str, Any] = {'__metadata__': dict(meta)} if meta else {}
    start = 0
    for name, value in state.items():
        dtype = np.dtype(value.dtype).newbyteorder('=')
        if dtype not in names:
            raise ValueError(f"{path}: '{name}' has type {value.dtype}, which safetensors cannot hold")
        end = start + value.nbytes
        header[name] = {'dtype': names[dtype], 'shape': list(value.shape), 'data_offsets': [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with Path(path).open('wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        for value in state.values():
            file.write(np.ascontiguousarray(value, value.dtype.newbyteorder('<')).tobytes())
