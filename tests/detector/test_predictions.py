"""The folder of a long prediction, as files; what the command makes of it is in tests/test_predict.py."""
import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from configs import base
from relnet_jax.detector import outputs, predictions
from relnet_jax.errors import UserError

CATEGORIES = [dict(id=3, name='Mass'), dict(id=5, name='Nodule')]


def settings(score=0.3, params=1.0, **more):
    detector = SimpleNamespace(params=dict(a=np.float32([params])), names=('Mass', 'Nodule'), config=base.get_config(),
                               points=None)
    for key, value in more.items():
        detector.config[key.split('_')[0]].update({key.split('_', 1)[1]: value})
    return predictions.settings_of(detector, [score, score] if isinstance(score, float) else score, overlays=True)


def begin(out, settings):
    with predictions.begun(out, settings) as (done, _):
        return done


def line(name, count=1):
    findings = [dict(category_id=3, name='Mass', score=0.5 + i / 100, bbox=[1.0, 2.0, 3.5, 4.0], area=14.0)
                for i in range(count)]
    return dict(file_name=name, width=9, height=8, unfamiliar=False, film_distance=0.5, findings=findings,
                path=f'/films/{name}', overlay=f'{name}.png')


def write(out, *written):
    with open(out / 'predictions.jsonl', 'a') as file:
        for one in written:
            predictions.append(file, one)


def test_what_is_done_is_known_by_its_path(tmp_path):
    assert begin(tmp_path / 'out', settings()) == {}
    write(tmp_path / 'out', line('a'), line('b', 0))
    done = begin(tmp_path / 'out', settings())
    assert {str(path): overlay for path, overlay in done.items()} == {'/films/a': 'a.png', '/films/b': 'b.png'}
    assert list(predictions.lines(tmp_path / 'out')) == [line('a'), line('b', 0)]


@pytest.mark.parametrize('cut', [1, 5, 100])
def test_a_last_line_that_was_cut_off_is_dropped_and_made_again(tmp_path, cut):
    begin(tmp_path, settings())
    write(tmp_path, line('a'), line('b'))
    path = tmp_path / 'predictions.jsonl'
    path.write_bytes(path.read_bytes()[:-cut])
    assert len(list(predictions.lines(tmp_path))) == 1
    assert len(begin(tmp_path, settings())) == 1
    write(tmp_path, line('b'))
    assert list(predictions.lines(tmp_path)) == [line('a'), line('b')]


@pytest.mark.parametrize('text', ['not JSON\n', '[]\n', '{"path": "a"}\n'])
def test_a_line_that_is_none_is_named(tmp_path, text):
    begin(tmp_path, settings())
    write(tmp_path, line('a'))
    with open(tmp_path / 'predictions.jsonl', 'a') as file:
        file.write(text)
    write(tmp_path, line('b'))
    with pytest.raises(UserError, match='predictions.jsonl: line 2 is no prediction of a film'):
        begin(tmp_path, settings())


@pytest.mark.parametrize('other, said', [
    (dict(score=0.5), 'score: 0.3 -> 0.5'), (dict(score=[0.3, 0.5]), 'score.Nodule: absent -> 0.5'),
    (dict(params=1.0001), 'parameters: '), (dict(test_boxes=17), 'config.test.boxes: 1000 -> 17')])
def test_another_checkpoint_and_other_options_are_refused_with_what_differs(tmp_path, other, said):
    begin(tmp_path, settings())
    write(tmp_path, line('a'))
    with pytest.raises(UserError, match=f'holds predictions of another checkpoint or of other options(.|\n)*{said}'):
        begin(tmp_path, settings(**other))
    assert begin(tmp_path, settings(data_threads=7, test_batch_size=1)), 'what changes nothing'
    (tmp_path / 'predict.json').unlink()
    with pytest.raises(UserError, match='predictions.jsonl without a readable predict.json'):
        begin(tmp_path, settings())


@pytest.mark.parametrize('counts', [(), (0,), (2, 0, 3), (0, 0, 1)])
def test_what_is_written_bit_by_bit_is_what_is_made_at_once(tmp_path, counts):
    begin(tmp_path, settings())
    written = [line(f'{i}"é', count) for i, count in enumerate(counts)]
    write(tmp_path, *written)
    (tmp_path / 'predictions.jsonl').touch()
    coco, table = predictions.finish(tmp_path, CATEGORIES)
    without_path = [{k: v for k, v in one.items() if k != 'path'} for one in written]
    document = json.loads(coco.read_text())
    assert document == outputs.coco_document(without_path, CATEGORIES)
    assert len(document['annotations']) == sum(counts) and len(document['images']) == len(counts)
    assert table.read_text() == outputs.table_text(written)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == sum(counts) and all((r['x2'], r['y2'], r['finding']) == ('4.50', '6.00', 'Mass') for r in rows)
    assert not list(tmp_path.glob('*.tmp'))


def test_one_process_at_a_time(tmp_path):
    with predictions.begun(tmp_path, settings()) as (_, file):
        predictions.append(file, line('a'))
        with pytest.raises(UserError, match=f'{tmp_path}: another process writes predictions there'):
            begin(tmp_path, settings())
    assert len(begin(tmp_path, settings())) == 1


def test_a_folder_that_holds_no_film_yet_takes_other_options(tmp_path):
    assert begin(tmp_path, settings()) == begin(tmp_path, settings(score=0.5)) == {}
    write(tmp_path, line('a'))
    assert len(begin(tmp_path, settings(score=0.5))) == 1
