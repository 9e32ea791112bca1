import json

import numpy as np
import pytest

from relnet_jax.errors import UserError
from relnet_jax.runs import operating_points
from relnet_jax.runs.operating_points import OperatingPoints, calibrated

POINTS = OperatingPoints({'Mass': 0.1 + 0.2, 'Pleural Thickening': 0.0}, 1.5, 0.2, 'films val')


def test_what_was_written_is_read_to_the_last_bit_and_a_folder_without_it_has_none(tmp_path):
    assert operating_points.read(tmp_path) is None
    path = operating_points.write(tmp_path, POINTS)
    assert path == tmp_path / 'operating_points.json' and [p.name for p in tmp_path.iterdir()] == [path.name]
    assert operating_points.read(tmp_path) == POINTS
    operating_points.write(tmp_path, POINTS._replace(temperature=2))
    assert operating_points.read(tmp_path).temperature == 2


@pytest.mark.parametrize('change, said', [
    (dict(thresholds=[0.5]), 'expected thresholds of 0 or more by class name'),
    (dict(thresholds={'Mass': -1}), 'thresholds'), (dict(thresholds={'Mass': None}), 'thresholds'),
    (dict(temperature=0), 'a temperature above 0'), (dict(temperature=True), 'temperature'),
    (dict(fp_per_film=None), 'fp_per_film'), (dict(data_set=3), 'data_set')])
def test_a_damaged_file_is_named_with_what_was_expected(tmp_path, change, said):
    path = tmp_path / 'operating_points.json'
    path.write_text(json.dumps(POINTS._asdict() | change))
    with pytest.raises(UserError, match=said) as raised:
        operating_points.read(tmp_path)
    assert str(path) in str(raised.value)
    with pytest.raises(UserError, match=said):
        operating_points.write(tmp_path, POINTS._replace(**change))


@pytest.mark.parametrize('text, said', [('{"thresholds": {}', 'not JSON'), ('[]', 'expected the keys thresholds, temp'),
                                        ('{"thresholds": {}}', 'expected the keys')])
def test_what_is_no_such_file_is_refused(tmp_path, text, said):
    (tmp_path / 'operating_points.json').write_text(text)
    with pytest.raises(UserError, match=said):
        operating_points.read(tmp_path)


def test_a_temperature_divides_the_logit():
    # logit(0.8) = ln 4; at temperature 2 the odds are 4 ** (1 / 2) = 2, at 1/2 they are 16
    assert calibrated([0.8, 0.5, 0.2], 2) == pytest.approx([2 / 3, 1 / 2, 1 / 3])
    assert calibrated(0.8, 0.5) == pytest.approx(16 / 17)
    scores = np.linspace(0, 1, 101)
    assert calibrated(scores, 1) == pytest.approx(scores)
    assert calibrated([0, 1], 3).tolist() == [0, 1]
    assert (np.diff(calibrated(scores, 3)) > 0).all() and np.isfinite(calibrated(scores, 1e-4)).all()
