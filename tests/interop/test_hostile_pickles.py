"""A file of weights that wants to run something is refused by the name of what it wants, and nothing runs."""
import os
import pickle
import struct

import numpy as np
import pytest

from relnet_jax.interop.pickles import RefusedPickle
from relnet_jax.interop.read import read_state
from tests.interop import writers
from tests.interop.writers import Call, Global, Persistent

BASE = np.arange(4, dtype=np.float32)


class Runs:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def in_pickle(path, data):
    path.write_bytes(data)
    return path


def in_zip(path, data):
    return writers.torch_zip(path, data, [BASE])


def in_legacy(path, data):
    return writers.torch_legacy(path, data, [BASE])


@pytest.mark.parametrize('save', [in_pickle, in_zip, in_legacy])
@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_reduce_tricks_are_refused_by_name_and_do_not_run(save, protocol, tmp_path):
    mark = tmp_path / 'ran'
    write = f'open({str(mark)!r}, "w")'
    for function, args, name in ((os.system, (f'touch {mark}',), 'system'), (eval, (write,), 'eval'),
                                 (exec, (write,), 'exec'), (getattr, ('x', 'upper'), 'getattr'),
                                 (open, (str(mark), 'w'), 'open')):
        hostile = {'weight': np.ones(2, np.float32), 'deep': [({'er': Runs(function, *args)},)]}
        with pytest.raises(RefusedPickle, match=rf'weights\.pth: refused, .*\.{name}\'.*nothing was run'):
            read_state(save(tmp_path / 'weights.pth', pickle.dumps(hostile, protocol)))
    assert not mark.exists()


@pytest.mark.parametrize('module, name', [
    ('os', 'system'), ('posix', 'system'), ('subprocess', 'Popen'), ('builtins', 'eval'), ('__builtin__', 'eval'),
    ('builtins', 'getattr'), ('importlib', 'import_module'), ('functools', 'partial'), ('operator', 'attrgetter'),
    ('copyreg', '_reconstructor'), ('torch', 'load'), ('torch.hub', 'load'), ('torch.storage', '_load_from_bytes'),
    ('torch', 'FloatStorage.__init__'), ('torch._utils', '_rebuild_tensor_v2.__globals__'), ('numpy', 'load'),
    ('numpy.core.multiarray', '_reconstruct.__self__'), ('numpy', 'fromfile'), ('argparse', 'Namespace'),
    ('torch.nn.modules.linear', 'Linear'), ('collections', 'OrderedDict.fromkeys')])
def test_any_other_global_is_refused_by_name(module, name, tmp_path):
    whole = f"'{module}.{name}'".replace('.', r'\.')
    as_text = b'\x80\x04' + b''.join(b'\x8c' + bytes([len(s)]) + s.encode() for s in (module, name)) + b'\x93.'
    for data in (writers.pickled({'x': Global(module, name)}), as_text, f'(i{module}\n{name}\n.'.encode()):
        with pytest.raises(RefusedPickle, match=whole):
            read_state(in_pickle(tmp_path / 'a.pkl', data))


ARRAY_DTYPE = Call(Global('numpy', 'dtype'), ('f4', False, True), (3, '<', None, None, None, -1, -1, 0))
RECONSTRUCT = Global('numpy.core.multiarray', '_reconstruct'), (Global('numpy', 'ndarray'), (0,), b'b')


@pytest.mark.parametrize('hostile, message', [
    (Persistent('os.system'), 'persistent reference'),
    (Persistent(('storage', Global('torch', 'FloatTensor'), '0', 'cpu', 4)), 'persistent reference'),
    (Persistent(('module', Global('torch', 'FloatStorage'), 'source.py', 'import os')), 'persistent reference'),
    (Persistent(('storage', Global('torch', 'FloatStorage'), '../../../etc/passwd', 'cpu', -4)), 'integers >= 0'),
    (Call(Global('torch', 'FloatStorage'), ()), 'torch.FloatStorage'),
    (Call(Global('numpy', 'ndarray'), ((2,),)), 'numpy.ndarray'),
    (Call(Global('numpy', 'dtype'), ('O', False, True)), "arrays of type 'O'"),
    (Call(Global('numpy', 'dtype'), ('V8', False, True)), "arrays of type 'V8'"),
    (Call(Global('numpy', 'dtype'), ('S4', False, True)), "arrays of type 'S4'"),
    (Call(*RECONSTRUCT, (1, (4,), ARRAY_DTYPE, False, bytes(15))), 'needs 16 bytes, got 15'),
    (Call(*RECONSTRUCT, (1, (-4,), ARRAY_DTYPE, False, bytes(16))), 'integers >= 0'),
    (Call(*RECONSTRUCT, (1, (4,), ARRAY_DTYPE, False, [1, 2, 3, 4])), 'without bytes'),
    (Call(*RECONSTRUCT, (1, (2**40, 2**40), ARRAY_DTYPE, False, bytes(16))), 'bytes, got 16'),
    (Call(*RECONSTRUCT, {'shape': (4,)}), '_array_of_state'),
    (Call(Global('torch._utils', '_rebuild_tensor_v2'), ('0', 0, (4,), (1,))), 'without storage'),
    (Call(Global('torch._utils', '_rebuild_parameter'), ({'no': 'tensor'}, True, {})), 'without tensor'),
    (Call(Call(Global('collections', 'OrderedDict'), ()), ()), "'Dictionary' object is not callable"),
    (Call(Global('collections', 'OrderedDict'), (['ab', 'cd'],)), 'something else than pairs'),
])
def test_known_names_used_otherwise_are_refused(hostile, message, tmp_path):
    with pytest.raises(RefusedPickle, match=message.replace('.', r'\.')):
        read_state(in_zip(tmp_path / 'a.pth', writers.pickled({'x': hostile})))


@pytest.mark.parametrize('body, message', [
    (b'ctorch\nFloatStorage\n}(X\x04\x00\x00\x00nameNub.',                          # attributes of a class
     "'Global' object has no attribute '__dict__'"),
    (b'ccollections\nOrderedDict\nX\x01\x00\x00\x00aNs.', "'Global' object does not support item assignment"),
    (b'ccollections\nOrderedDict\nNa.', "'Global' object has no attribute 'append'"),
    (b'\x82\x01.', 'EXT1'),                                                         # extension registry
    (b'P0\n.', 'PERSID'),
    (b'ccollections\nOrderedDict\n)}\x92.', 'NEWOBJ_EX'),
    (b'(ccollections\nOrderedDict\no.', 'OBJ'),
])
def test_opcodes_that_weights_do_not_need_are_refused(body, message, tmp_path):
    with pytest.raises(RefusedPickle, match=message):
        read_state(in_pickle(tmp_path / 'a.pkl', b'\x80\x02' + body))


def test_a_storage_key_reaches_nothing_outside_the_file(tmp_path):
    (tmp_path / 'secret').write_bytes(BASE.tobytes())
    for key in ('../secret', str(tmp_path / 'secret'), '../data.pkl/../../secret'):
        with pytest.raises(ValueError, match='no item named'):
            read_state(in_zip(tmp_path / 'a.pth', writers.pickled({'x': writers.tensor(key, BASE)})))


def test_hostile_streams_behind_the_first_of_a_legacy_file_are_refused(tmp_path):
    good = [writers.pickled(0x1950a86a20f9469cfc6c), writers.pickled(1001), writers.pickled({'little_endian': True}),
            writers.pickled({'x': writers.tensor('0', BASE, legacy=True)}), writers.pickled(['0'])]
    numbers = struct.pack('<q', 4) + BASE.tobytes()
    path = tmp_path / 'a.pth'
    path.write_bytes(b''.join(good) + numbers)
    np.testing.assert_array_equal(read_state(path)['x'], BASE)
    for position in range(1, 5):
        parts = list(good)
        parts[position] = writers.pickled(Call(Global('os', 'system'), ('true',)))
        path.write_bytes(b''.join(parts) + numbers)
        with pytest.raises(RefusedPickle, match=r"'os\.system'"):
            read_state(path)
