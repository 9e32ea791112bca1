"""The notebooks, executed on a run of two steps that the ablation command has made."""
from pathlib import Path

import pytest

from relnet_jax import ablate
from relnet_jax.ablation.table import LabRun
from relnet_jax.training import startup
from tests.conftest import CACHE

nbformat = pytest.importorskip('nbformat', reason='pip install -e .[notebooks]')
nbclient = pytest.importorskip('nbclient', reason='pip install -e .[notebooks]')
pytest.importorskip('ipykernel', reason='pip install -e .[notebooks]')

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / 'notebooks'
LAB = '''
from configs import phantom

def get_config(argument):
    c = phantom.get_config()
    c.name = argument.split(',')[0]
    with c.unlocked():
        c.model.neck = 'fpn'
    c.data.canvas, c.data.scale, c.data.max_size, c.data.mask_size, c.data.threads = (64, 64), 64, 64, 28, 0
    c.data.phantom.size, c.data.phantom.train_images, c.data.phantom.val_images = 64, 4, 2
    c.model.fpn_channels, c.model.box_head_dim, c.model.mask_channels, c.model.mask_convs = 16, 16, 8, 1
    c.train.steps, c.train.batch_size, c.train.base_batch_size, c.train.log_every, c.train.ema = 2, 2, 2, 1, 0.0
    c.train.pre_nms, c.train.proposals, c.train.rpn_samples, c.train.rois = 20, 10, 8, 8
    c.test.batch_size, c.test.pre_nms, c.test.boxes, c.test.detections, c.test.score_threshold = 2, 20, 8, 4, 0.0
    return c
'''


@pytest.fixture(scope='module')
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp('table')
    (folder / 'lab.py').write_text(LAB)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablate, 'LAB', str(folder / 'lab.py'))
        patch.setattr(ablate, 'lab_texts', lambda: {'base': LabRun('plain', 'F')})
        assert ablate.main(['--runs=base', '--seeds=1', f'--out={folder}']) == 0
    return folder


def execute(name, monkeypatch, **parameters):
    """The notebook with the given values in its parameters cell, executed in its folder as a reader would."""
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv(startup.CACHE_VARIABLE, str(CACHE))
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    cells = [cell for cell in notebook.cells if 'parameters' in cell.metadata.get('tags', ())]
    assert len(cells) == 1
    cells[0].source += ''.join(f'\n{key} = {value!r}' for key, value in parameters.items())
    nbclient.NotebookClient(notebook, timeout=300, resources={'metadata': {'path': str(NOTEBOOKS)}}).execute()
    return notebook


def kinds(notebook):
    """The MIME types that each code cell displays."""
    return [{kind for output in cell.outputs for kind in output.get('data', {})}
            for cell in notebook.cells if cell.cell_type == 'code']


def test_a_run_is_looked_at(out, monkeypatch):
    notebook = execute('analysis.ipynb', monkeypatch, run=str(out / 'runs' / 'base_s0'), images=1)
    assert [bool('image/png' in kind) for kind in kinds(notebook)] == [False, False, True, True, True, False, True]


def test_the_table_and_its_figure_are_shown(out, monkeypatch):
    notebook = execute('ablations.ipynb', monkeypatch, out=str(out), metric='box_AP')
    assert [kind & {'image/png', 'text/markdown'} for kind in kinds(notebook)] == [
        set(), {'text/markdown'}, {'image/png'}]
    assert '| `base` | plain |' in str(notebook.cells)


@pytest.mark.parametrize('path', sorted(NOTEBOOKS.glob('*.ipynb')), ids=lambda path: path.name)
def test_notebooks_are_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
