"""Files made to crash, hang or fill the memory are refused in one line, quickly and in little memory."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.interop import hostile, writers

SECONDS, MIB = 5, 1000      # of a core, and of memory beside what Python and numpy take
# One of each kind, where it did the most harm. Each of the others takes a second or is a variation.
QUICK = re.compile(r'((deep|doubling|wide)_\w+_as_(key|keys|value|shape)|'
                   r'(doubling_tuple|wide_list|itself|long_number)_.*|'
                   r'stream_(?!many_).*|stream_many_(marks|dicts)|safetensors_.*|zip_(?!.*_in_).*|'
                   r'legacy_(key|count|one|keys_(deep_tuple|doubling|wide)).*)')


def answers(paths):
    run = subprocess.run([sys.executable, '-m', 'tests.interop.hostile', str(SECONDS), str(MIB), *map(str, paths)],
                         capture_output=True, text=True, cwd=Path(__file__).parents[2],
                         env=os.environ | {'OPENBLAS_NUM_THREADS': '1'}, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def check(paths):
    found = answers(paths)
    assert [answer['name'] for answer in found] == [path.name for path in paths]
    for answer in found:
        kind, text = answer['outcome'] or ('read', '')
        assert kind in ('UserError', 'WeightsError', 'RefusedPickle'), answer
        assert answer['name'] in text and len(text) < 1000 and text.isprintable(), answer
        assert answer['seconds'] < SECONDS and answer['mib'] < MIB, answer


def test_a_file_of_ten_thousand_tensors_is_read_within_the_same_limits(tmp_path):
    base = np.arange(4, dtype=np.float32)
    names = ('conv1.weight', 'layer1.0.conv1.weight', *(f'x{i}' for i in range(10_000)))
    tree = {'state_dict': {name: writers.tensor('0', base) for name in names}, 'epoch': [[[[[3]]]]]}
    assert answers([writers.torch_zip(tmp_path / 'good.pth', writers.pickled(tree), [base])])[0]['outcome'] is None


def test_hostile_files_are_refused_in_one_line_and_little_time_and_memory(tmp_path):
    paths = hostile.write_all(tmp_path, only=QUICK.fullmatch)
    assert len(paths) > 250
    check(list(paths.values()))


@pytest.mark.slow
def test_every_hostile_file_is_refused(tmp_path):
    paths = hostile.write_all(tmp_path)
    assert len(paths) > 500
    check(list(paths.values()))
