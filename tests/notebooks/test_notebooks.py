"""The notebooks, executed on runs of two steps: that of the ablation command has FPN with every module at once."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from relnet_jax import ablate
from relnet_jax.runs import startup
from tests.conftest import CACHE
from tests.tiny_run import TINY

nbformat = pytest.importorskip('nbformat', reason='pip install -e .[notebooks]')
nbclient = pytest.importorskip('nbclient', reason='pip install -e .[notebooks]')
pytest.importorskip('ipykernel', reason='pip install -e .[notebooks]')

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / 'notebooks'
RELATIONS = (
    'region',
    'class',
    'part',
    'context',
    'lung_feature',
    'gaussian_mixture',
    'object_position',
    'presence',
    'object_attention',
)
EVERYTHING = (f'model.relations={RELATIONS}', 'model.cascade=(0.5,0.6)', 'model.deformable=v2', 'model.box_dropout=0.1',
              'model.anatomy_head=True', 'model.parts=given_or_predicted', 'model.relation.context.grid=(2,1)')
LOSSES = {
    'loss_cls',
    'loss_bbox',
    'loss_mask',
    'loss_cls_first',
    'loss_bbox_first',
    'loss_cls_stage1',
    'loss_bbox_stage1',
    'loss_part_box',
    'loss_part_presence',
}


@pytest.fixture(scope='module')
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp('table')
    assert ablate.main(['--runs=fpn_8', '--seeds=1', f'--out={folder}',
                         *(f'--config.{o}' for o in TINY + EVERYTHING)]) == 0
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


def test_every_module_at_once_trains_and_every_reported_term_is_in_the_loss(out):
    lines = [json.loads(line) for line in (out / 'runs' / 'fpn_8_s0' / 'metrics.jsonl').read_text().splitlines()]
    train = [line for line in lines if line['split'] == 'train']
    assert [line['step'] for line in train] == [1, 2]
    for values in train:
        terms = [k for k in values if k.startswith(('loss_', 'rpn_cls_p', 'rpn_bbox_p'))]
        assert {k for k in terms if k.startswith('loss_')} == LOSSES
        assert np.isclose(values['loss'], sum(values[k] for k in terms), rtol=1e-4)


def test_a_run_is_looked_at(out, monkeypatch):
    notebook = execute('analysis.ipynb', monkeypatch, run=str(out / 'runs' / 'fpn_8_s0'), images=1, score=0)
    assert [bool('image/png' in kind) for kind in kinds(notebook)] == [False, False, True, True, True, False, True]
    assert 'Found(array, 64 x 64: ' in str(notebook.cells[-2])
    assert 'change of the score without a class (relation_head/presence)' in str(notebook.cells[-1])


def test_a_film_of_ones_own_is_explained(out, tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / 'film.png'), np.random.default_rng(0).integers(0, 256, (90, 70), np.uint8))
    notebook = execute('analysis.ipynb', monkeypatch, run=str(out / 'runs' / 'fpn_8_s0'), images=1, score=0,
                       film=str(tmp_path / 'film.png'))
    assert 'film.png, 70 x 90: ' in str(notebook.cells[-2])
    assert 'change of the score without a class (relation_head/presence)' in str(notebook.cells[-1])


def test_a_first_look_trains_and_shows_what_is_found(tmp_path, monkeypatch):
    notebook = execute('quickstart.ipynb', monkeypatch, run=str(tmp_path / 'run'), steps=2, overrides=list(TINY))
    assert [bool('image/png' in kind) for kind in kinds(notebook)] == [False, False, True, False, False, False]
    assert 'file_name,StudyInstanceUID' in str(notebook.cells)


def test_the_table_and_its_figure_are_shown(out, monkeypatch):
    notebook = execute('ablations.ipynb', monkeypatch, out=str(out), metric='box_AP')
    assert [kind & {'image/png', 'text/markdown'} for kind in kinds(notebook)] == [
        set(), {'text/markdown'}, {'image/png'}]
    assert '| `fpn_8` | `fpn3` and the spatial relation |' in str(notebook.cells)


@pytest.mark.parametrize('path', sorted(NOTEBOOKS.glob('*.ipynb')), ids=lambda path: path.name)
def test_notebooks_are_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
