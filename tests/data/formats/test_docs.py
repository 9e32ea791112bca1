"""docs/formats.md: commands name what there is, the table has every format; the example of docs/extending.md runs."""
import re
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

from configs import base
from relnet_jax import config as config_lib
from relnet_jax.data import formats, pipeline
from relnet_jax.data.formats import lab

ROOT = Path(formats.__file__).parents[3]
TEXT = (ROOT / 'docs' / 'formats.md').read_text()
RECIPE = (ROOT / 'docs' / 'extending.md').read_text().split('\n## A data format\n')[1].split('\n## ')[0]


def blocks(language, text=TEXT):
    return re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL)


def test_the_table_has_every_format():
    rows = re.findall(r'^\| `(\w+)` \|.*`([\w.]+)(?::[^`]*)?` \|$', TEXT, re.MULTILINE)
    assert {name for name, _ in rows} >= formats.FORMATS.keys()
    assert all((ROOT / 'configs' / config).is_file() for name, config in rows if name in formats.FORMATS)


def test_commands_name_configs_and_keys_that_there_are():
    flat = dict(base.get_config().to_dict())
    commands = '\n'.join(blocks('sh'))
    keys = re.findall(r'--config\.([\w.]+)=', commands)
    assert len(keys) > 12
    for key in keys:
        value = flat
        for part in key.split('.'):
            value = value[part]
    for spec in re.findall(r'--config=(\S+)', commands):
        config_lib.load(str(ROOT / spec))
    for key in re.findall(r'^\| `data\.(\w+)` \|', TEXT, re.MULTILINE):
        assert key in flat['data'], key


def test_the_example_of_the_lab_s_json_is_read(tmp_path):
    text, = blocks('json')
    (tmp_path / 'films.json').write_text(text)
    document, issues = lab.read(tmp_path / 'films.json', tmp_path, base.get_config().data)
    assert issues == [] and document['parts'] == ['Left Lung'] and document['images'][0]['doc_name'] == 'yy'
    assert [bool(a.get('segmentation')) for a in document['annotations']] == [True, True, False, False]


def test_the_example_of_a_new_format_is_one_file_and_one_line(tmp_path, monkeypatch):
    code, = blocks('python', RECIPE)
    assert len(code.splitlines()) <= 35
    nih_boxes = types.ModuleType('nih_boxes')
    exec(compile(code, 'docs/extending.md', 'exec'), nih_boxes.__dict__)
    line = re.search(r"in the table: `'(\w+)': (.*),`", RECIPE)
    monkeypatch.setitem(formats.FORMATS, line[1], eval(line[2], {**vars(formats), 'nih_boxes': nih_boxes}))

    films = [f'{patient:08}_{number:03}.png' for patient in range(1, 7) for number in range(2)]
    for film in films:
        cv2.imwrite(str(tmp_path / film), np.full((64, 64), 100, np.uint8))
    rows = [f'{film},{finding},160,320,80,{16 * (i + 1)}.5,,,' for i, film in enumerate(films)
            for finding in ('Mass', 'Infiltrate')]
    (tmp_path / 'boxes.csv').write_text('\n'.join(['Image Index,Finding Label,Bbox [x,y,w,h],,,', *rows,
                                                   f'{films[0]},Mass,160,,80,16,,,']))
    config = base.get_config()
    config.data.format = line[1]
    config.data.train.update(annotations=str(tmp_path / 'boxes.csv'), images=str(tmp_path))
    config.data.split.update(by='patient', folds=3)
    train, val = pipeline.open_sources(config)
    assert train.classes == ('Mass', 'Infiltrate') and (len(train), len(val)) == (8, 4)
    assert not {r['patient'] for r in train.records} & {r['patient'] for r in val.records}
    height = train.ground_truth()['annotations'][0]['bbox'][3]      # in the pixels of the CSV, not of the small films
    assert train.load(0).boxes[0].tolist() == pytest.approx([10, 20, 15, 20 + height / 16])
    assert [str(issue) for issue in train.issues] == ['boxes.csv: row 26: no number in y: dropped']
