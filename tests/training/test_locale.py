"""Another language of the system changes no number and no file: decimal commas, encodings without all letters, and the
names of classes and patients in any script."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from relnet_jax.runs import checkpoint
from tests.training.test_interruption import assert_same_run
from tests.training.test_processes import environment

ROOT = Path(__file__).parents[2]
CLASSES = ('Ödem', '肺炎')

RUN = """
import locale, os, signal, sys, warnings
from relnet_jax import cli
from relnet_jax.data import check
from relnet_jax.models import mask_rcnn
from relnet_jax.training import loop
from tests.training import standin
from tests.training.conftest import loop_config

warnings.filterwarnings('error', category=EncodingWarning, module='relnet_jax')     # a text file without encoding=
locale.setlocale(locale.LC_ALL, '')
mask_rcnn.build = standin.build
data, run, stop = sys.argv[1:]
read = loop.pipeline.train_batches

def batches(*args, **options):
    for step, batch in enumerate(read(*args, **options), 1):
        if step == int(stop):
            os.kill(os.getpid(), signal.SIGTERM)
        yield batch

loop.pipeline.train_batches = batches
config = loop_config()
with config.unlocked():
    config.data.format, config.train.steps, config.train.eval_every = 'coco', 4, 2
    config.data.train.update(annotations=f'{data}/instances.json', images=f'{data}/images')
code = cli.run('train', '', lambda values: None, lambda call: loop.train(config, run) and None, ['--'])
given = [f'--config.data.train.{key}={value}' for key, value in config.data.train.items() if value]
print('decimal', locale.localeconv()['decimal_point'], 'file names', sys.getfilesystemencoding())
sys.exit(code or check.main(['--config=coco', f'--json={run}/check.json', f'--plot={run}/plot', *given]))
"""


@pytest.fixture
def data(tmp_path):
    """A COCO set with names in other scripts, in the file and in its images' records."""
    def write(file_name):
        folder = tmp_path / 'data'
        (folder / 'images').mkdir(parents=True)
        names = [file_name.format(i) for i in range(10)]
        for i, name in enumerate(names):
            cv2.imwrite(str(folder / 'images' / name), np.random.default_rng(i).integers(0, 256, (64, 64), np.uint8))
        (folder / 'instances.json').write_text(json.dumps(dict(
            images=[dict(id=i, file_name=n, width=64, height=64, patient='Müller') for i, n in enumerate(names)],
            categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)],
            annotations=[dict(id=i + 1, image_id=i, category_id=1 + i % 2, bbox=[5, 5, 20, 20], area=400, iscrowd=0)
                         for i in range(10)]), ensure_ascii=False), encoding='utf-8')
        return folder
    return write


@pytest.fixture(scope='module')
def german(tmp_path_factory):
    """Environment of a German locale of 8 bits, made for the test; Python would turn to UTF-8 only for 'C'."""
    if not shutil.which('localedef') or not Path('/usr/share/i18n/locales/de_DE').exists():
        pytest.skip('needs localedef and the sources of the locale de_DE')
    folder = tmp_path_factory.mktemp('locales')
    made = subprocess.run(['localedef', '-i', 'de_DE', '-f', 'ISO-8859-1', folder / 'de_DE.ISO-8859-1'],
                          capture_output=True)
    if made.returncode:
        pytest.skip('the locale de_DE.ISO-8859-1 cannot be made')
    return dict(LC_ALL='de_DE.ISO-8859-1', LOCPATH=str(folder), PYTHONUTF8='0')


def run(data, workdir, language, *, stop=0):
    """Trains and checks the data, in a process of its own. stop: the step at which it is told to stop."""
    done = subprocess.run([sys.executable, '-X', 'warn_default_encoding', '-c', RUN, data, workdir, str(stop)],
                          cwd=ROOT, env=environment(1) | language, capture_output=True, timeout=300)
    return done.returncode, done.stdout.decode('latin1'), done.stderr.decode('latin1')


def test_names_in_any_script_are_printed_and_written_in_a_german_8_bit_locale(data, german, tmp_path):
    code, said, errors = run(data('film{}.png'), tmp_path / 'run', german)
    assert code == 0 and 'decimal ,' in said and 'file names iso8859-1' in said, errors
    assert '\\u80ba\\u708e' in said and 'Ödem' in said     # what Latin-1 lacks, and what it has
    for name in ('check.json', 'eval/ground_truth.json', 'eval/report.html'):
        text = (tmp_path / 'run' / name).read_text(encoding='utf-8')
        assert all(name in text or json.dumps(name)[1:-1] in text for name in CLASSES)


@pytest.mark.slow
def test_a_run_begun_in_such_a_locale_and_ended_in_another_is_that_of_one(data, german, tmp_path):
    folder = data('film{}.png')
    assert run(folder, tmp_path / 'cut', german, stop=2)[0] == 0 and checkpoint.steps(tmp_path / 'cut') == [2]
    assert run(folder, tmp_path / 'cut', dict(LC_ALL='C'))[0] == 0
    code, said, errors = run(folder, tmp_path / 'whole', dict(LC_ALL='C'))
    assert code == 0 and 'decimal .' in said and 'file names utf-8' in said, errors
    assert_same_run(tmp_path / 'whole', tmp_path / 'cut')
    texts = [(tmp_path / way / 'check.json').read_text(encoding='utf-8') for way in ('whole', 'cut')]
    assert texts[0] == texts[1]


def test_file_names_that_such_a_locale_cannot_read_are_named_with_what_to_set(data, german, tmp_path):
    folder = data('Röntgen{}.png')
    code, _, errors = run(folder, tmp_path / 'run', german)
    assert code == 2 and 'Traceback' not in errors
    assert 'file not found (this system writes file names in iso8859-1; PYTHONUTF8=1 makes it UTF-8)' in errors
    assert run(folder, tmp_path / 'run', german | dict(PYTHONUTF8='1'))[0] == 0
