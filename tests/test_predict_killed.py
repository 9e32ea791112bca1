"""predict killed at any moment and started again: the folder is that of a run that was left alone."""
import random
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tiny_run import tiny_config, write_run

ROOT = Path(__file__).parents[1]
FILMS, KILLS = 200, 8


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_to_the_same_files(tmp_path):
    run, films, rng = write_run(tmp_path / 'run', tiny_config()), tmp_path / 'films', np.random.default_rng(0)
    films.mkdir()
    for i in range(FILMS):
        cv2.imwrite(str(films / f'{i:03d}.png'), rng.integers(0, 256, (60 + i % 7, 50), np.uint8))

    def start(out):
        return subprocess.Popen(
            [sys.executable, '-m', 'relnet_jax.predict', f'--ckpt={run}', f'--images={films}', f'--out={out}',
             '--score=0'], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def lines(out):
        file = out / 'predictions.jsonl'
        return file.read_bytes().count(b'\n') if file.exists() else 0

    with start(tmp_path / 'whole') as child:
        assert child.communicate(timeout=600)[1] and child.returncode == 0
    moments, done = random.Random(0), []
    for _ in range(KILLS):
        with start(tmp_path / 'out') as child:
            goal = lines(tmp_path / 'out') + moments.randrange(25)
            while lines(tmp_path / 'out') < goal and child.poll() is None:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.05))
            child.kill()
        done.append(lines(tmp_path / 'out'))
    assert 0 < done[0] + done[-1] and done == sorted(done) and done[-1] < FILMS, done
    with start(tmp_path / 'out') as child:
        said = child.communicate(timeout=600)[1]
    assert child.returncode == 0 and 'resuming' in said

    def contents(folder):
        return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith('.')}
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')
