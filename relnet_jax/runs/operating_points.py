"""Score thresholds of the classes and a temperature of the scores, chosen on validation data; a file of a checkpoint.

STEP_FOLDER/operating_points.json holds the fields of `OperatingPoints`. `python eval.py --calibrate` writes it, and
whoever shows detections to people may read it.
"""
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit

from relnet_jax import files
from relnet_jax.errors import UserError

FILE = 'operating_points.json'


class OperatingPoints(NamedTuple):
    """`thresholds` are scores as the detector gives them, before the temperature; what reaches its own is shown."""
    thresholds: dict[str, float]    # class name -> lowest score that is shown; 0 = all
    temperature: float              # above 0; see `calibrated`
    fp_per_film: float              # wanted false positives of each class per film
    data_set: str                   # that they were chosen on


def calibrated(scores, temperature: float) -> np.ndarray:
    """sigmoid(logit(score) / temperature), float64: the order stays, above 1 what was too sure becomes less so.

    Temperature scaling (Guo et al., "On calibration of modern neural networks", ICML 2017, sec. 4.2) of a score in 0..1
    in place of the logits, which detections do not keep.
    """
    return expit(logit(np.float64(scores)) / temperature)


def write(step_folder: str | Path, points: OperatingPoints) -> Path:
    """Writes the file at once and returns its path. Raises UserError for what `read` would not take."""
    path = Path(step_folder) / FILE
    files.write_json(path, _checked(points._asdict(), path)._asdict())
    return path


def read(step_folder: str | Path) -> OperatingPoints | None:
    """The operating points of a step folder (`checkpoint.find`); None where none were chosen.

    Raises UserError, naming the file and what is wrong with it.
    """
    path = Path(step_folder) / FILE
    try:
        document = files.read_json(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f'{path}: not JSON: {error}') from error
    return _checked(document, path)


def _checked(document: Any, path: Path) -> OperatingPoints:
    def expect(holds: bool, expected: str) -> None:
        if not holds:
            raise UserError(f'{path}: expected {expected}; python eval.py --calibrate writes it anew')

    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

    expect(isinstance(document, dict) and document.keys() >= {*OperatingPoints._fields},
           f'the keys {", ".join(OperatingPoints._fields)}')
    points = OperatingPoints(**{name: document[name] for name in OperatingPoints._fields})
    expect(isinstance(points.thresholds, dict) and all(is_number(t) and t >= 0 for t in points.thresholds.values()),
           'thresholds of 0 or more by class name')
    expect(is_number(points.temperature) and points.temperature > 0, 'a temperature above 0')
    expect(is_number(points.fp_per_film) and points.fp_per_film >= 0, 'fp_per_film of 0 or more')
    expect(isinstance(points.data_set, str), 'the name of a data_set')
    return points
