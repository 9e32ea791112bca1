"""Masks of findings at the size of their film."""
import numpy as np
from pydicom import Dataset

from relnet_jax.data.archive import Finding
from relnet_jax.data.rle import decode_mask
from relnet_jax.errors import UserError


def full_mask(finding: Finding, number: int, film: Dataset) -> np.ndarray | None:
    """bool [Rows, Columns], None without a mask. Raises UserError if it is of another size than the film."""
    if finding.mask is None:
        return None
    height, width = finding.mask['size']
    if (height, width) != (film.Rows, film.Columns):
        raise UserError(f'finding {number} ({finding.name}): mask of {width} x {height} pixels, but film '
                        f'{film.SOPInstanceUID} has {film.Columns} x {film.Rows}')
    return decode_mask(finding.mask)
