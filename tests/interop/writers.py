"""Hand-made writers of weight files, byte by byte: the reader is tested without torch and not against its own code."""
import io
import struct
import zipfile
from typing import NamedTuple

import numpy as np

STORAGE = {'float32': 'FloatStorage', 'float64': 'DoubleStorage', 'float16': 'HalfStorage',
           'bfloat16': 'BFloat16Storage', 'int64': 'LongStorage', 'int32': 'IntStorage',
           'uint8': 'ByteStorage', 'bool': 'BoolStorage'}


class Global:
    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """function(*args), then `state` by the BUILD opcode if given."""
    def __init__(self, function, args, state=None, opcode=b'R'):
        self.function, self.args, self.state, self.opcode = function, args, state, opcode


class Persistent:
    def __init__(self, pid):
        self.pid = pid


class Raw(NamedTuple):
    """Opcodes as they are, which push one thing."""
    data: bytes


def opcodes(x) -> bytes:
    """Protocol 2 opcodes that push x."""
    if isinstance(x, Raw):
        return x.data
    if x is None or isinstance(x, bool):
        return {None: b'N', True: b'\x88', False: b'\x89'}[x]
    if isinstance(x, int):
        if -2**31 <= x < 2**31:
            return b'J' + struct.pack('<i', x)
        data = x.to_bytes(x.bit_length() // 8 + 1, 'little', signed=True)
        return b'\x8a' + bytes([len(data)]) + data
    if isinstance(x, float):
        return b'G' + struct.pack('>d', x)
    if isinstance(x, str):
        return b'X' + struct.pack('<I', len(x.encode())) + x.encode()
    if isinstance(x, bytes):        # as Python 2 writes its strings
        return b'T' + struct.pack('<i', len(x)) + x
    if isinstance(x, tuple):
        return b'(' + b''.join(map(opcodes, x)) + b't'
    if isinstance(x, list):
        return b'](' + b''.join(map(opcodes, x)) + b'e'
    if isinstance(x, dict):
        return b'}(' + b''.join(opcodes(k) + opcodes(v) for k, v in x.items()) + b'u'
    if isinstance(x, Global):
        return f'c{x.module}\n{x.name}\n'.encode()
    if isinstance(x, Persistent):
        return opcodes(x.pid) + b'Q'
    assert isinstance(x, Call), x
    state = b'' if x.state is None else opcodes(x.state) + b'b'
    return opcodes(x.function) + opcodes(tuple(x.args)) + x.opcode + state


def pickled(x) -> bytes:
    return b'\x80\x02' + opcodes(x) + b'.'


def storage(key, array, *, legacy=False, size=None, view=None):
    pid = ('storage', Global('torch', STORAGE[array.dtype.name]), key, 'cpu', array.size if size is None else size)
    return Persistent((*pid, view) if legacy else pid)


def tensor(key, array, *, legacy=False, offset=0, shape=None, strides=None, size=None, view=None):
    """Call of _rebuild_tensor_v2 for `array` as the whole storage `key`; the window is given in elements."""
    if strides is None:
        strides = tuple(s // array.itemsize for s in np.array(array, order='C').strides)
    return Call(Global('torch._utils', '_rebuild_tensor_v2'),
                (storage(key, array, legacy=legacy, size=size, view=view), offset,
                 array.shape if shape is None else shape, strides, False,
                 Call(Global('collections', 'OrderedDict'), ())))


def state_dict(arrays, *, legacy=False):
    """What torch pickles for a state dict: an OrderedDict with items and `_metadata`."""
    items = b''.join(opcodes(k) + opcodes(tensor(str(i), v, legacy=legacy)) for i, (k, v) in enumerate(arrays.items()))

    empty = opcodes(Call(Global('collections', 'OrderedDict'), ()))
    meta = opcodes({'_metadata': Call(Global('collections', 'OrderedDict'), ())})
    return b'\x80\x02' + empty + b'(' + items + b'u' + meta + b'b.'


def torch_zip(path, pickle_bytes, arrays, *, byteorder='little', compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr('archive/data.pkl', pickle_bytes)
        archive.writestr('archive/byteorder', byteorder)
        for i, array in enumerate(arrays):
            order = '<' if byteorder == 'little' else '>'
            archive.writestr(f'archive/data/{i}', array.astype(array.dtype.newbyteorder(order)).tobytes())
        archive.writestr('archive/version', '3\n')
    return path


def torch_legacy(path, pickle_bytes, arrays):
    out = io.BytesIO()
    system = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'short': 2, 'int': 4, 'long': 4}}
    for part in (pickled(0x1950a86a20f9469cfc6c), pickled(1001), pickled(system), pickle_bytes,
                 pickled([str(i) for i in range(len(arrays))])):
        out.write(part)
    for array in arrays:
        out.write(struct.pack('<q', array.size) + array.tobytes())
    path.write_bytes(out.getvalue())
    return path


def python2_array(array):
    """An array as numpy under Python 2 pickled it: bytes as a latin-1 string."""
    dtype = Call(Global('numpy', 'dtype'), (array.dtype.str[1:].encode(), 0, 1), (3, b'<', None, None, None, -1, -1, 0))
    return Call(Global('numpy.core.multiarray', '_reconstruct'), (Global('numpy', 'ndarray'), (0,), b'b'),
                (1, array.shape, dtype, False, array.tobytes()))
