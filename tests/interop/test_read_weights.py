"""Weight files written byte by byte give the arrays they hold; broken ones stop with their name, whatever is broken."""
import json
import pickle
import re
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from relnet_jax.interop.read import read_state, read_weights, write_safetensors
from tests.interop import writers

RNG = np.random.default_rng(3)
ARRAYS = {
    'conv.weight': RNG.normal(size=(4, 3, 2, 2)).astype(np.float32),
    'half': RNG.normal(size=(3, 5)).astype(np.float16),
    'brain': RNG.normal(size=(2, 3)).astype(ml_dtypes.bfloat16),
    'double': RNG.normal(size=7),
    'count': np.asarray(-12, np.int64),
    'byte': np.arange(6, dtype=np.uint8).reshape(2, 3),
    'flag': np.array([True, False, True]),
    'empty': np.zeros((0, 4), np.float32),
}
NUMPY_ARRAYS = {k: v for k, v in ARRAYS.items() if k != 'brain'}    # numpy itself has no bfloat16


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def write(kind, path):
    """A file of `kind` with ARRAYS (a Detectron pickle without the types numpy's pickles do not have)."""
    if kind == 'zip':
        return writers.torch_zip(path, writers.state_dict(ARRAYS), ARRAYS.values())
    if kind == 'legacy':
        return writers.torch_legacy(path, writers.state_dict(ARRAYS, legacy=True), ARRAYS.values())
    if kind == 'safetensors':
        write_safetensors(path, ARRAYS, {'format': 'pt'})
    else:
        tree = {'model': NUMPY_ARRAYS, '__author__': 'nobody', 'matching_heuristics': True}
        path.write_bytes(pickle.dumps(tree, protocol=2))
    return path


@pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors', 'pickle'])
def test_every_format_gives_the_arrays_with_type_and_shape(kind, tmp_path):
    # The ending says nothing: the first bytes decide.
    same(read_state(write(kind, tmp_path / 'weights.bin')), NUMPY_ARRAYS if kind == 'pickle' else ARRAYS)


def test_big_endian_zip(tmp_path):
    path = writers.torch_zip(tmp_path / 'a.pth', writers.state_dict(ARRAYS), ARRAYS.values(), byteorder='big')
    same(read_state(path), ARRAYS)


@pytest.mark.parametrize('legacy', [False, True])
def test_offsets_strides_and_shared_storages(legacy, tmp_path):
    base = np.arange(60, dtype=np.float32)
    tree = {'state_dict': {
        'transposed': writers.tensor('0', base, legacy=legacy, shape=(12, 5), strides=(1, 12)),
        'window': writers.tensor('0', base, legacy=legacy, offset=14, shape=(3, 2), strides=(12, 3)),
        'scalar': writers.tensor('0', base, legacy=legacy, offset=59, shape=(), strides=()),
        'number': 7, 'text': 'not a weight'}, 'epoch': 3}
    save = writers.torch_legacy if legacy else writers.torch_zip
    found = read_state(save(tmp_path / 'a.pth', writers.pickled(tree), [base]))
    same(found, {'transposed': base.reshape(5, 12).T, 'window': base.reshape(5, 12)[1:4, 2:8:3], 'scalar': base[59]})


def test_forms_of_tensors_from_older_torch(tmp_path):
    base = np.arange(6, dtype=np.float32)
    holder = writers.storage('0', base, legacy=True)
    inner = writers.Call(writers.Global('torch._utils', '_rebuild_tensor'), (holder, 0, (2, 3), (3, 1)))
    old = writers.Call(writers.Global('torch', 'FloatTensor'), (), (holder, 0, (2, 3), (3, 1)))
    tree = {'v1': inner, 'tensor': old,
            'parameter': writers.Call(writers.Global('torch.nn.parameter', 'Parameter'), (old,), (True, False, {}),
                                      opcode=b'\x81'),
            'rebuilt': writers.Call(writers.Global('torch._utils', '_rebuild_parameter'), (inner, True, {})),
            'view': writers.tensor('0', base, legacy=True, size=6, view=('1', 2, 4), shape=(4,), strides=(1,))}
    found = read_state(writers.torch_legacy(tmp_path / 'a.pth', writers.pickled(tree), [base]))
    same(found, {'v1': base.reshape(2, 3), 'tensor': base.reshape(2, 3), 'parameter': base.reshape(2, 3),
                 'rebuilt': base.reshape(2, 3), 'view': base[2:]})


@pytest.mark.parametrize('protocol', range(6))
def test_numpy_pickles_of_every_protocol(protocol, tmp_path):
    arrays = {'a': ARRAYS['conv.weight'], 'fortran': np.asfortranarray(ARRAYS['conv.weight'].reshape(12, 4)),
              'big': np.arange(4, dtype='>f4'), 'one': np.float32(2.5)}
    path = tmp_path / 'model.pkl'
    path.write_bytes(pickle.dumps({'blobs': arrays, 'cfg': 'MODEL: x'}, protocol=protocol))
    weights = read_weights(path)
    same(weights.tensors, {k: np.asarray(v, np.float32) for k, v in arrays.items()})
    assert weights.meta == {'cfg': 'MODEL: x'}


def test_python_2_pickle_with_latin1_bytes(tmp_path):
    array = np.asarray([-1e9, 3.25, np.pi], np.float32)      # bytes beyond ASCII
    path = tmp_path / 'R-50.pkl'
    path.write_bytes(writers.pickled({'blobs': {b'conv1_w': writers.python2_array(array)}}))
    same(read_state(path), {'conv1_w': array})


def test_safetensors_is_the_published_layout(tmp_path):
    path = tmp_path / 'a.safetensors'
    arrays = {
        'x': np.asarray([[1, 2]], np.float32),
        'y': np.asarray(3, np.int64),
        'brain': ARRAYS['brain'],
        'turned': np.arange(6, dtype=np.float32).reshape(2, 3).T,
        'every_other': np.arange(6, dtype=np.uint8)[::2],
        'big_endian': np.arange(3, dtype='>f4'),
    }
    write_safetensors(path, arrays, {'k': 'v'})
    data = path.read_bytes()
    length, = struct.unpack('<Q', data[:8])
    header = json.loads(data[8:8 + length])
    assert header.pop('__metadata__') == {'k': 'v'} and header.keys() == arrays.keys()
    for name, dtype in dict(x='F32', y='I64', brain='BF16', turned='F32', every_other='U8', big_endian='F32').items():
        start, end = header[name]['data_offsets']
        little = arrays[name].astype(arrays[name].dtype.newbyteorder('<'))
        assert (header[name]['dtype'], header[name]['shape']) == (dtype, list(little.shape))
        assert data[8 + length:][start:end] == little.tobytes()
    same(read_state(path), {name: value.astype(value.dtype.newbyteorder('=')) for name, value in arrays.items()})
    assert read_weights(path).meta == {'k': 'v'}


def test_safetensors_of_types_that_are_not_read_are_not_written(tmp_path):
    for dtype in (np.complex64, ml_dtypes.float8_e4m3fn, 'U1'):
        with pytest.raises(ValueError, match=r"a\.safetensors: 'x' has type .*, expected one of float64, "):
            write_safetensors(tmp_path / 'a.safetensors', {'x': np.zeros(2, dtype)})


@pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors', 'pickle'])
def test_a_file_cut_off_anywhere_is_named(kind, tmp_path):
    whole = write(kind, tmp_path / 'whole').read_bytes()
    path = tmp_path / 'cut.pth'
    for size in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match='cut.pth'):
            read_state(path)


@pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors', 'pickle'])
def test_flipped_bytes_never_do_more_than_stop_with_the_files_name(kind, tmp_path):
    whole = write(kind, tmp_path / 'whole').read_bytes()
    path = tmp_path / 'flipped.pth'
    rng = np.random.default_rng(5)
    stopped = 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            read_state(path)        # a flipped number is a number
        except ValueError as error:
            assert 'flipped.pth' in str(error)
            stopped += 1
    assert stopped > 30


BASE = np.arange(10, dtype=np.float32)


@pytest.mark.parametrize('window, message', [
    (dict(offset=1), 'does not fit into its storage'),
    (dict(offset=10, shape=(1,), strides=(1,)), 'does not fit into its storage'),
    (dict(shape=(2, 2), strides=(9, 1)), 'does not fit into its storage'),
    (dict(shape=(100_000, 100_000), strides=(0, 0)), 'does not fit into its storage'),      # many numbers out of one
    (dict(shape=(10,), strides=(-1,)), 'integers >= 0'),
    (dict(offset=-1), 'integers >= 0'),
    (dict(shape=(2, 5), strides=(5,)), 'do not go together'),
    (dict(shape=(2**61, 8), strides=(1, 1)), 'does not fit into its storage'),
    (dict(size=2**40), 'has 40 bytes'),
    (dict(size=11, shape=(11,), strides=(1,)), 'has 40 bytes'),
])
def test_windows_outside_the_storage_are_refused(window, message, tmp_path):
    tree = {'x': writers.tensor('0', BASE, **window)}
    path = writers.torch_zip(tmp_path / 'a.pth', writers.pickled(tree), [BASE])
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_state(path)
    assert 'a.pth' in str(error.value)


@pytest.mark.parametrize('view', [('1', 4, 7), ('1', -1, 3)])
def test_storage_views_outside_the_storage_are_refused(view, tmp_path):
    tree = {'x': writers.tensor('0', BASE, legacy=True, view=view, shape=(1,), strides=(1,))}
    with pytest.raises(ValueError, match='storage'):
        read_state(writers.torch_legacy(tmp_path / 'a.pth', writers.pickled(tree), [BASE]))


@pytest.mark.parametrize('entry, message', [
    ({'dtype': 'F32', 'shape': [3], 'data_offsets': [0, 16]}, 'invalid shape'),
    ({'dtype': 'F32', 'shape': [5], 'data_offsets': [0, 20]}, 'file not fully covered'),
    ({'dtype': 'F32', 'shape': [4], 'data_offsets': [8, 24]}, 'invalid offset'),
    ({'dtype': 'F32', 'shape': [-4], 'data_offsets': [0, 16]}, 'integer `-4`'),
    ({'dtype': 'F32', 'shape': [4], 'data_offsets': [-16, 0]}, 'integer `-16`'),
    ({'dtype': 'F8_E4M3', 'shape': [16], 'data_offsets': [0, 16]}, "'x': number type F8_E4M3 is not read"),
])
def test_safetensors_entries_that_lie_are_refused(entry, message, tmp_path):
    header = json.dumps({'x': entry}).encode()
    path = tmp_path / 'a.safetensors'
    path.write_bytes(struct.pack('<Q', len(header)) + header + bytes(16))
    with pytest.raises(ValueError, match=message):
        read_state(path)


def test_what_is_no_weight_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        read_state(tmp_path / 'nowhere.pth')
    other = tmp_path / 'page.pth'
    other.write_text('<html>404</html>')
    with pytest.raises(ValueError, match='another kind'):
        read_state(other)
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr('notes.txt', 'x')
    with pytest.raises(ValueError, match='not written by torch.save'):
        read_state(tmp_path / 'a.zip')
    packed = writers.torch_zip(tmp_path / 'packed.pth', writers.state_dict(ARRAYS), ARRAYS.values(),
                               compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match='compressed'):
        read_state(packed)
    nothing = tmp_path / 'nothing.pkl'
    nothing.write_bytes(pickle.dumps({'epoch': 3, 'best': 0.5}))
    with pytest.raises(ValueError, match='no weights found .*epoch'):
        read_state(nothing)
