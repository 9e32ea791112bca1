"""Weight files made to crash, hang or fill the memory of whoever reads them: each small, none runs anything.

`write_all` writes them; as a command, python -m tests.interop.hostile FILE ..., reads files, each in a process of its
own with limits, and prints a JSON line per file: name, outcome (None: read; else the error), seconds, peak of memory in
MiB.
"""
import json
import os
import resource
import signal
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np

from tests.interop import writers
from tests.interop.writers import Call, Global, Persistent, Raw, pickled

DEEP = 160_000
BASE = np.arange(4, dtype=np.float32)
BIG = np.zeros(1_000_000, np.float32)
P2 = b'\x80\x02'

# Things that are harmless until somebody hashes, compares, prints or walks them.
NESTS = {
    'deep_tuple': Raw(b')' + b'\x85' * DEEP),
    'deep_list': Raw(b']' * DEEP + b'a' * (DEEP - 1)),
    'deep_dict': Raw(b'}' + b'K\x00}' * DEEP + b's' * DEEP),
    'doubling_tuple': Raw(b')q\x00' + b'h\x00\x86q\x00' * 100),
    'doubling_list': Raw(b']q\x000' + b'](h\x00h\x00eq\x000' * 60 + b'h\x00'),
    'doubling_dict': Raw(b'}q\x000' + b'}(K\x00h\x00K\x01h\x00uq\x000' * 60 + b'h\x00'),
    'wide_list': Raw(b']q\x000' + (b'](' + b'h\x00' * 1000 + b'eq\x000') * 8 + b'h\x00'),
    'wide_tuple': Raw(b')q\x000' + (b'(' + b'h\x00' * 1000 + b'tq\x000') * 8 + b'h\x00'),
    'itself': Raw(b']q\x00h\x00a'),
    'long_number': Raw(b'\x8b' + struct.pack('<i', 1_000_000) + b'\x7f' * 1_000_000),
}


def places(nest):
    """name -> pickle with `nest` where a reader may hash, compare, print or walk it."""
    dtype = Call(Global('numpy', 'dtype'), ('f4', False, True), (3, '<', None, None, None, -1, -1, 0))
    reconstruct = Global('numpy.core.multiarray', '_reconstruct'), (Global('numpy', 'ndarray'), (0,), b'b')
    rebuild = Global('torch._utils', '_rebuild_tensor_v2')
    ordered = Global('collections', 'OrderedDict')
    storage = ('storage', Global('torch', 'FloatStorage'))
    entry = writers.tensor('0', BASE, legacy=True)
    trees = {
        'top': nest, 'value': {'x': nest}, 'inner': {'model': nest}, 'inner_value': {'state_dict': {'x': nest}},
        'beside_a_tensor': {'x': entry, 'y': nest}, 'called': {'x': Call(nest, ())},
        'built': {'x': Raw(writers.opcodes(nest) + b'Nb')}, 'state': {'x': Call(ordered, (), nest)},
        'pairs': {'x': Call(ordered, (nest,))}, 'pairs_key': {'x': Call(ordered, ([(nest, 1)],))},
        'shape': {'x': Call(rebuild, (Persistent((*storage, '0', 'cpu', 4)), 0, nest, (1,)))},
        'offset': {'x': Call(rebuild, (Persistent((*storage, '0', 'cpu', 4)), nest, (4,), (1,)))},
        'strides': {'x': Call(rebuild, (Persistent((*storage, '0', 'cpu', 4)), 0, (4,), (nest,)))},
        'no_storage': {'x': Call(rebuild, (nest, 0, (4,), (1,)))}, 'reference': {'x': Persistent(nest)},
        'storage_kind': {'x': Persistent((nest, nest, '0', 'cpu', 4))},
        'storage_type': {'x': Persistent(('storage', nest, '0', 'cpu', 4))},
        'storage_key': {'x': Persistent((*storage, nest, 'cpu', 4))},
        'storage_size': {'x': Persistent((*storage, '0', 'cpu', nest))},
        'storage_view': {'x': Persistent((*storage, '0', 'cpu', 4, nest))},
        'dtype': {'x': Call(Global('numpy', 'dtype'), (nest, False, True))},
        'dtype_state': {'x': Call(Global('numpy', 'dtype'), ('f4', False, True), nest)},
        'byte_order': {'x': Call(Global('numpy', 'dtype'), ('f4', False, True), (3, nest, None, None, None))},
        'array_state': {'x': Call(*reconstruct, nest)},
        'array_shape': {'x': Call(*reconstruct, (1, nest, dtype, False, bytes(16)))},
        'array_dtype': {'x': Call(*reconstruct, (1, (4,), nest, False, bytes(16)))},
        'array_data': {'x': Call(*reconstruct, (1, (4,), dtype, False, nest))},
        'array_order': {'x': Call(*reconstruct, (1, (2, 2), dtype, nest, bytes(16)))},
        'array_class': {'x': Call(reconstruct[0], (nest, nest, nest))},
        'codec': {'x': Call(Global('_codecs', 'encode'), ('a', nest))},
        'coded': {'x': Call(Global('_codecs', 'encode'), (nest, 'latin1'))},
        'size': {'x': Call(Global('torch', 'Size'), (nest,))},
        'parameter': {'x': Call(Global('torch._utils', '_rebuild_parameter'), (nest, True, {}))},
        'old_tensor': {'x': Call(Global('torch', 'FloatTensor'), (), nest)},
        'name_of_global': {'x': Raw(writers.opcodes(nest) + writers.opcodes('OrderedDict') + b'\x93')},
    }
    found = {name: pickled(tree) for name, tree in trees.items()}
    found['key'] = P2 + b'}' + writers.opcodes(nest) + b'Ns.'
    found['keys'] = P2 + b'}(' + writers.opcodes(nest) + b'Nu.'
    found['key_of_dict'] = P2 + b'(' + writers.opcodes(nest) + b'Nd.'
    return found


def streams():
    """name -> pickle whose opcodes themselves are too many, too large, or lie about sizes."""
    many = 1_500_000        # more than pickles.READS
    collide = b''.join(writers.opcodes(k * (2**61 - 1)) + b'N' for k in range(1, 60_000))
    return {
        'marks': b'(' * 200_000 + b'0' * 200_000 + b'N.', 'marks_and_tuples': b'(' * 200_000 + b't' * 200_000 + b'.',
        'many_marks': b'(' * many, 'many_dicts': b'}' * many, 'many_lists': b']' * many, 'many_none': b'N' * many,
        'many_duplicates': b'N' + b'2' * many, 'many_memos': b'N' + b'\x94' * many,
        'many_dicts_kept': b'}\x94' * (many // 2), 'many_lists_of_marks': b'(l' * (many // 2),
        'many_calls': b'ccollections\nOrderedDict\nq\x000' + b'h\x00)R' * (many // 4),
        'many_numbers': b'G@\x00\x00\x00\x00\x00\x00\x00' * (many // 8),
        'many_texts': b'I1000\n' * (many // 4), 'many_protocols': b'\x80\x02' * many,
        'many_frames': b'\x95' + bytes(8) + (b'\x95' + bytes(8)) * (many // 8),
        'memo_far': b'Nr\xff\xff\xff\x7f.', 'memo_text': b'Np999999999999999\n.', 'memo_below': b'Np-5\n.',
        'memo_missing': b'h\x07.', 'bytes_claimed': b'\x8e' + struct.pack('<Q', 2**40),
        'text_claimed': b'\x8d' + struct.pack('<Q', 2**33), 'bytearray_claimed': b'\x96' + struct.pack('<Q', 2**33),
        'frame_claimed': b'\x95' + struct.pack('<Q', 2**40) + b'N.',
        'bytes_below': b'T' + struct.pack('<i', -5) + b'.',
        'long_text': b'V' + b'\\u1234' * 700_000 + b'\n.', 'digits': b'I' + b'9' * 4_000_000 + b'\n.',
        'long_digits': b'L' + b'9' * 4_000_000 + b'L\n.', 'float_text': b'F' + b'9' * 4_000_000 + b'\n.',
        'escapes': b"S'" + b'\\x41' * 1_000_000 + b"'\n.", 'global_name': b'c' + b'm' * 3_000_000 + b'\nx\n.',
        'lines_in_a_name': b'\x8c\x05o\ns\nx\x8c\x06\nsystem\x93.', 'extension': b'\x84\xff\xff\xff\x7f.',
        'out_of_band': b'\x97.', 'read_only': b'N\x98.', 'empty': b'.', 'underflow': b'a.',
        'pop_nothing': b'0' * 9 + b'.',
        'collisions': b'}(' + collide + b'u.', 'odd_items': b'}(NNNu.', 'protocol_200': b'\x80\xc8N.',
        'names_changed': b'ctorch._utils\n_rebuild_tensor_v2\n(NX\x0c\x00\x00\x00__defaults__)u\x86b.',
    }


def tensor_pickles():
    """name -> (pickle, arrays) whose tensors ask for far more than the file holds."""
    def tensors(windows, array=BASE):
        lines = (writers.opcodes(f'w{i}') + writers.opcodes(writers.tensor('0', array, legacy=True, **window))
                 for i, window in enumerate(windows))
        return P2 + b'}(' + b''.join(lines) + b'u.', [array]

    as_numbers = (writers.opcodes(f'w{i}') + writers.opcodes(writers.tensor('0', BIG.view(dtype), legacy=True))
                  for dtype in ('float32', 'int32') for i in range(1000))
    long_names = (b'X' + struct.pack('<I', 10**6) + bytes([97 + i]) * 10**6 + b'K\x01s' for i in range(4))
    return {
        'one_storage_of_all': tensors([{}] * 3000, BIG),
        'one_storage_in_types': (P2 + b'}(' + b''.join(as_numbers) + b'u.', [BIG]),
        'one_storage_in_sizes': tensors(({'size': i} for i in range(900_000, 903_000)), BIG),
        'one_number_many_times': tensors([{'shape': (10**5, 10**5), 'strides': (0, 0)}]),
        'shape_of_many': tensors([{'shape': (1,) * 200_000, 'strides': (1,) * 200_000}]),
        'stride_far': tensors([{'shape': (1, 4), 'strides': (2**61, 1)}]),
        'no_rows_far': tensors([{'shape': (0, 2**61), 'strides': (1, 1)}]),
        'size_claimed': tensors([{'size': 2**61}]),
        'long_names': (P2 + b'}' + b''.join(long_names) + b'.', [BASE]),
    }


def zips(folder):
    """name -> zip file that lies about its entries."""
    good = writers.state_dict({'x': BASE})
    found = {}

    def archive(name, entries, compression=zipfile.ZIP_STORED):
        found[name] = folder / f'zip_{name}.pth'
        with zipfile.ZipFile(found[name], 'w', compression) as out:
            for entry, data in entries:
                out.writestr(entry, data)
        return found[name]

    archive('bomb', [('a/data.pkl', good), ('a/data/0', bytes(10**9 // 4))], zipfile.ZIP_DEFLATED)
    archive('many_entries', [('a/data.pkl', good), *((f'a/{i}', b'') for i in range(60_000))])
    archive('byte_order', [('a/data.pkl', good), ('a/byteorder', b'x' * 4_000_000), ('a/data/0', BASE.tobytes())])
    archive('two_pickles', [('a/data.pkl', good), ('b/data.pkl', good)])
    path = archive('overlap', [('a/data.pkl', writers.state_dict({f'w{i}': BIG for i in range(500)})),
                               *((f'a/data/{i}', BIG.tobytes() if i == 0 else b'') for i in range(500))])
    # Every storage becomes the first one's bytes: the directory says where an entry lies, and how long it is.
    data = bytearray(path.read_bytes())
    at, first = struct.unpack('<I', data[-6:-2])[0], None
    while data[at:at + 4] == b'PK\x01\x02':
        length, extra, comment = struct.unpack('<HHH', data[at + 28:at + 34])
        entry = bytes(data[at + 46:at + 46 + length])
        if entry == b'a/data/0':
            first = data[at + 16:at + 28], data[at + 42:at + 46]
        elif first and entry.startswith(b'a/data/'):
            data[at + 16:at + 28], data[at + 42:at + 46] = first
        at += 46 + length + extra + comment
    assert first
    path.write_bytes(data)
    path = archive('entry_size', [('a/data.pkl', good), ('a/data/0', BASE.tobytes())])
    data = bytearray(path.read_bytes())
    at = data.index(b'PK\x01\x02')
    data[at + 20:at + 28] = struct.pack('<II', 2**32 - 2, 2**32 - 2)
    path.write_bytes(data)
    return found


def legacy(folder):
    """name -> legacy torch file whose later streams lie."""
    head = [pickled(0x1950a86a20f9469cfc6c), pickled(1001), pickled({'little_endian': True}),
            pickled({'x': writers.tensor('0', BASE, legacy=True)}), pickled(['0'])]
    numbers = struct.pack('<q', 4) + BASE.tobytes()
    parts = {f'{stream}_{name}': (at, pickled(nest)) for name, nest in NESTS.items()
             for at, stream in enumerate(('version', 'system', 'tree', 'keys'), start=1)}
    parts |= {f'key_{name}': (4, pickled([nest])) for name, nest in NESTS.items()}
    parts |= {f'stream_{at}_of_many': (at, P2 + b'}0' * 2_000_000 + b'N.') for at in (1, 2)}
    parts |= {'keys_of_nothing': (4, pickled([str(i) for i in range(200_000)]))}
    found = {}
    for name, (at, stream) in parts.items():
        found[name] = folder / f'legacy_{name}.pth'
        found[name].write_bytes(b''.join([*head[:at], stream, *head[at + 1:]]) + numbers)
    for name, size in (('count_far', 2**62), ('count_below', -1), ('count_more', 5)):
        found[name] = folder / f'legacy_{name}.pth'
        found[name].write_bytes(b''.join(head) + struct.pack('<q', size) + BASE.tobytes())
    return found


def safetensors(folder):
    """name -> safetensors file whose header lies."""
    def tensor(dtype, shape, start, end):
        return {'dtype': dtype, 'shape': shape, 'data_offsets': [start, end]}

    one, zero = tensor('F32', [4], 0, 16), tensor('F32', [0], 0, 0)
    logits = 'roi_heads.box_predictor.cls_score.weight'
    headers = {     # what becomes of the header, and the number of bytes behind it
        'overlap': ({f'w{i}': tensor('F32', [10**6], 0, 4 * 10**6) for i in range(10_000)}, 4 * 10**6),
        'partly_overlap': ({'a': one, 'b': tensor('F32', [4], 8, 24)}, 24),
        'hole': ({'a': one, 'b': tensor('F32', [4], 32, 48)}, 48),
        'rest': ({'a': one}, 4000),
        'offset_below': ({'a': tensor('F32', [4], -16, 0)}, 16),
        'offset_nan': ({'a': tensor('F32', [float('nan')], 0, 16)}, 16),
        'offset_infinite': ({'a': tensor('F32', [float('inf')], 0, 16)}, 16),
        'offset_float': ({'a': tensor('F32', [4.0], 0, 16.0)}, 16),
        'offset_digits': ({'a': tensor('F32', [4], 0, 10**400)}, 16),
        'offset_true': ({'a': tensor('F32', [4], False, 16)}, 16),
        'shape_wraps': ({'a': tensor('F32', [2**62, 4], 0, 16)}, 16),
        'shape_long': ({'a': tensor('F32', [1] * 10**6, 0, 4)}, 4),
        'shape_none': ({'a': tensor('F32', None, 0, 16)}, 16),
        'shape_far_of_none': ({'a': tensor('F32', [0, 2**62], 0, 0)}, 0),
        'no_dtype': ({'a': {'shape': [4], 'data_offsets': [0, 16]}}, 16),
        'float8': ({'a': tensor('F8_E4M3', [16], 0, 16)}, 16),
        'half_bytes': ({'a': tensor('F4', [32], 0, 16)}, 16),
        'no_type': ({'a': tensor('x' * 10**6, [4], 0, 16)}, 16),
        'complex': ({'a': tensor('C64', [2], 0, 16)}, 16),
        'list': ([1], 16), 'text': ({'a': 'b'}, 16), 'nothing': ({}, 0), 'only_meta': ({'__metadata__': {'a': 'b'}}, 0),
        'deep_meta': ({'__metadata__': {'config': '[' * 10**5}, 'backbone.body.conv1.weight': one}, 16),
        'other_meta': ({'__metadata__': {'config': '{"model": 3}'}, 'backbone.body.conv1.weight': one}, 16),
        'meta_of_numbers': ({'__metadata__': {'a': 1}, 'w': one}, 16),
        'meta_list': ({'__metadata__': [1], 'w': one}, 16),
        'many': ({f'w{i}': zero for i in range(200_000)}, 0),
        'long_name': ({'w' * 5 * 10**6: one}, 16),
        'lines_in_a_name': ({'w\nx\n' * 9: one}, 16),
        'flat_logits': ({'backbone.body.conv1.weight': zero, logits: tensor('F32', [], 0, 4)}, 4),
    }
    texts = {name: (json.dumps(header), size) for name, (header, size) in headers.items()} | {
        'twice': (f'{{"a": {json.dumps(one)}, "a": {json.dumps(tensor("F32", [4], 16, 32))}}}', 32),
        'twice_the_same': (f'{{"a": {json.dumps(one)}, "a": {json.dumps(one)}}}', 16),
        'many_digits': (json.dumps({'a': one}).replace('16', '9' * 10**6), 16),
        'surrogate': (f'{{"\\ud800": {json.dumps(one)}}}', 16), 'no_utf8': (f'{{"\xff": {json.dumps(one)}}}', 16),
        'deep': ('{"a":' + '[' * 10**5 + ']' * 10**5 + '}', 16), 'deep_dict': ('{"a":' * 10**5 + '1' + '}' * 10**5, 16),
        'broken': ('{"a": ', 16),
    }
    files = {name: (len(text), text.encode('latin1') + bytes(size)) for name, (text, size) in texts.items()} | {
        'header_far': (2**63, b'{}'), 'header_most': (2**64 - 1, b'{}'), 'header_cut': (10**6, b'{}'),
        'header_spaces': (30 * 10**6, b'{' + b' ' * (30 * 10**6 - 2) + b'}'),
    }
    found = {name: folder / f'safetensors_{name}.safetensors' for name in files}
    for name, (length, data) in files.items():
        found[name].write_bytes(struct.pack('<Q', length) + data)
    return found


def write_all(folder, *, only=lambda name: True):
    """Writes the hostile files whose names are wanted into `folder` (all: some 200 MB); returns name -> path."""
    found = {}

    def write(name, data):
        if only(name):
            found[name] = folder / f'{name}.pkl'
            found[name].write_bytes(data)

    for name, nest in NESTS.items():
        for place, data in places(nest).items():
            write(f'{name}_as_{place}', data)
    for name, data in streams().items():
        write(f'stream_{name}', (b'' if data[:1] == b'\x80' else P2) + data)
    for name, (data, arrays) in tensor_pickles().items():
        found[f'legacy_{name}'] = writers.torch_legacy(folder / f'legacy_{name}.pth', data, arrays)
        found[f'zip_{name}'] = writers.torch_zip(folder / f'zip_{name}.pth', data, arrays)
    for make in (zips, legacy, safetensors):
        found |= {f'{make.__name__}_{name}': path for name, path in make(folder).items()}
    return {name: path for name, path in found.items() if only(name)}


def answer(path, *, seconds, memory):
    """What reading `path` gives, measured in a fork of this process. `memory`: bytes beside those taken already."""
    from relnet_jax.interop.load import read_family
    out, into = os.pipe()
    child = os.fork()
    if not child:
        with open('/proc/self/statm') as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        signal.alarm(20 * seconds)
        try:
            read_family(path)
            outcome = None
        except BaseException as error:
            outcome = [type(error).__name__, str(error)[:2000]]
        os.write(into, json.dumps(outcome).encode())
        os._exit(0)
    os.close(into)
    with open(out, 'rb') as pipe:
        told = pipe.read()
    _, status, usage = os.wait4(child, 0)
    outcome = json.loads(told) if told else ['Died', signal.Signals(os.WTERMSIG(status)).name]
    return dict(name=Path(path).name, outcome=outcome, seconds=round(usage.ru_utime + usage.ru_stime, 3),
                mib=usage.ru_maxrss // 1024)


if __name__ == '__main__':
    _seconds, _memory, *_paths = sys.argv[1:]
    for _path in _paths:
        print(json.dumps(answer(_path, seconds=int(_seconds), memory=int(_memory) << 20)), flush=True)
