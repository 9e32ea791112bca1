"""The Python lines of the README, executed as they stand there."""
import re
from pathlib import Path

import cv2
import numpy as np

from relnet_jax.runs import operating_points
from relnet_jax.runs.operating_points import OperatingPoints
from tests.data.dicom_files import write_dicom
from tests.tiny_run import tiny_config, write_run

README = Path(__file__).parents[1] / 'README.md'


def test_the_lines_of_the_python_interface_run(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r'```python\n(.*?)```', README.read_text(), re.DOTALL)
    lines, = (block for block in blocks if 'Detector' in block)
    monkeypatch.chdir(tmp_path)
    c = tiny_config()
    with c.unlocked():
        c.model.relations = ('object_attention',)
    run = write_run(tmp_path / 'runs' / 'mine', c)
    # The random weights are sure of nothing; what they find is to be shown all the same.
    operating_points.write(run / 'checkpoints' / '7', OperatingPoints(dict.fromkeys(
        ('Atelectasis', 'Calcification', 'Cardiomegaly', 'Consolidation', 'Diffuse Nodule', 'Effusion', 'Emphysema',
         'Fibrosis', 'Fracture', 'Mass', 'Nodule', 'Pleural Thickening', 'Pneumothorax'), 0.0), 1.0, 0.2, 'x'))
    write_dicom(tmp_path / 'film.dcm', np.random.default_rng(0).integers(0, 4096, (90, 80), np.uint16))
    names = {}
    exec(lines, names)
    found = names['found']
    assert len(found) == 4 and found.masks.shape == (4, 90, 80)
    assert cv2.imread('found.png').shape[1] > 600
    assert Path('findings.csv').read_text().count('\n') == 5
    assert 'regions it looked at' in capsys.readouterr().out
