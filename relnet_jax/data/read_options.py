"""How image files are read: the keys of `config.data` that concern pixels, checked once.

`data.dicom_overrides` names a JSON file of {file name pattern: {keyword: value}} for DICOM files whose own header is
wrong; null removes an element:

    {"scanner7_*.dcm": {"PhotometricInterpretation": "MONOCHROME1"},
     "ward/*": {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTSequence": null}}

A pattern is matched against the end of the path, as `pathlib.PurePath.match` does it; of several that match, the later
ones win.
"""
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from relnet_jax.errors import UserError

EXIF = ('auto', 'apply', 'ignore')
CORRECTABLE = (
    'PhotometricInterpretation', 'BitsStored', 'HighBit', 'PixelRepresentation', 'PixelPaddingValue',
    'PixelPaddingRangeLimit', 'WindowCenter', 'WindowWidth', 'VOILUTFunction', 'VOILUTSequence', 'RescaleIntercept',
    'RescaleSlope', 'ModalityLUTSequence')


class ReadOptions(NamedTuple):
    """See `configs/base.py`, `data.window`, `data.max_pixels`, `data.exif` and `data.dicom_overrides`."""
    window: tuple[float, float] = (0.5, 99.5)
    max_pixels: int = 100_000_000
    exif: str = 'auto'
    dicom_overrides: Mapping[str, Mapping[str, Any]] = {}

    def tags(self, path: Path | str) -> dict[str, Any]:
        """DICOM keyword -> value that replaces that of the file at `path`."""
        tags = {}
        for pattern, values in self.dicom_overrides.items():
            if Path(path).match(pattern):
                tags |= values
        return tags


DEFAULTS = ReadOptions()


def read_options(data: ConfigDict) -> ReadOptions:
    """The options of `config.data`. Raises ValueError or FileNotFoundError, naming the key."""
    low, high = data.window
    if not 0 <= low < high <= 100:
        raise UserError(f'data.window: expected two percentiles in order, got {tuple(data.window)}')
    if data.max_pixels < 1:
        raise UserError(f'data.max_pixels: expected at least 1, got {data.max_pixels}')
    if data.exif not in EXIF:
        raise UserError(f"data.exif: expected one of {EXIF}, got '{data.exif}'")
    return ReadOptions(window=(low, high), max_pixels=data.max_pixels, exif=data.exif,
                       dicom_overrides=_read_overrides(data.dicom_overrides) if data.dicom_overrides else {})


def _read_overrides(file: str) -> dict[str, dict[str, Any]]:
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"data.dicom_overrides: no file '{file}'")
    try:
        table = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise UserError(f'data.dicom_overrides: {file}: not valid JSON: {e}') from e
    if not isinstance(table, dict) or not all(isinstance(values, dict) for values in table.values()):
        raise UserError(f'data.dicom_overrides: {file}: expected {{file name pattern: {{keyword: value}}}}')
    for pattern, values in table.items():
        wrong = [keyword for keyword in values if keyword not in CORRECTABLE]
        if not pattern or wrong:
            raise UserError(f"data.dicom_overrides: {file}: '{pattern}': {wrong} cannot be corrected, only "
                             f'{", ".join(CORRECTABLE)}')
    return table
