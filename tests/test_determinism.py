"""The same checkpoint and images give the same bytes of JSON in two processes, each of which compiles for itself."""
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tiny_run import tiny_config, write_run

ROOT = Path(__file__).resolve().parents[1]
PROCESS = '''
import sys
from relnet_jax import predict
from relnet_jax.evaluation import evaluate
from relnet_jax.runs import checkpoint
run, images, out = sys.argv[1:]
assert predict.main([f'--ckpt={run}', f'--images={images}', f'--out={out}/predict', '--score=0']) == 0
evaluate.evaluate_checkpoint(run, checkpoint.read_config(run), out=f'{out}/eval', num_overlays=0)
'''


@pytest.fixture(scope='module')
def outputs(tmp_path_factory):
    """Folders that two processes wrote predictions and an evaluation to, without a common cache of programs."""
    folder = tmp_path_factory.mktemp('determinism')
    run = write_run(folder / 'run', tiny_config())
    (folder / 'images').mkdir()
    for i, size in enumerate([(60, 50), (90, 64)]):
        image = np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
        cv2.imwrite(str(folder / 'images' / f'{i}.png'), image)
    environment = os.environ | {'RELNET_JAX_CACHE': ''}
    for name in ('first', 'second'):
        subprocess.run([sys.executable, '-c', PROCESS, str(run), str(folder / 'images'), str(folder / name)], cwd=ROOT,
                       env=environment, check=True, timeout=900, capture_output=True)
    return folder / 'first', folder / 'second'


@pytest.mark.slow       # two cold compilations
@pytest.mark.parametrize('name', ['predict/predictions.json', 'eval/detections.json', 'eval/metrics.json'])
def test_two_processes_write_the_same_bytes(outputs, name):
    first, second = (folder / name for folder in outputs)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().count(b'"score"') >= 8 or name == 'eval/metrics.json'
