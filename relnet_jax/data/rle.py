"""Run-length encoded masks of COCO files: run lengths of background and object in turn, down the columns.

pycocotools encodes them; decoding is done here, because it trusts the runs (with too few of them its mask holds
whatever the memory held) and because it warns under NumPy 2.
"""
from typing import Any

import numpy as np


def decode_runs(counts: Any) -> list[int] | None:
    """The run lengths of a compressed COCO RLE string, None if it is no such string.

    Characters carry 5 bits each, lowest first, offset 48; bit 5 says that more follow, bit 4 of the last is the sign;
    from the fourth run on the numbers are differences to the run two before (the COCO mask format).
    """
    if not isinstance(counts, (str, bytes)) or not counts:
        return None
    if isinstance(counts, str) and not counts.isascii():
        return None
    codes = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    last = (codes & 0x20) == 0
    if codes.min() < 0 or codes.max() > 63 or not last[-1]:
        return None
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > 6:       # more than 35 bits: no image is that large
        return None
    shift = 5 * (np.arange(len(codes)) - np.repeat(starts, ends - starts + 1))
    runs = np.add.reduceat((codes & 0x1F) << shift, starts)
    runs -= np.where(codes[ends] & 0x10, np.int64(32) << shift[ends], 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs.tolist()


def decode_mask(rle: dict) -> np.ndarray:
    """bool [h, w] from a checked RLE dict: `size` (h, w) and `counts`, a compressed string."""
    runs = decode_runs(rle['counts'])
    height, width = rle['size']
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
