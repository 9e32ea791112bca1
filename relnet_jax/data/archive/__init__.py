"""Results as DICOM documents that go back to where a film came from: a structured report, and a segmentation.

`documents.write` takes the path of the film, what was found on it, and where that comes from. It reads nothing of the
film but its header, and never writes over it. The documents belong to the film's study, refer to it, are marked as
research and say which checkpoint made them; their UIDs follow from the film, the checkpoint and the findings, so that
the same results are the same documents. What is found outside of the table of `codes`, and everything that a model of
synthetic images finds, carries a code of the private scheme 99RELNET.

Needs the extra packages `relnet_jax[dicom]`: pydicom and highdicom.
"""
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import relnet_jax


class Finding(NamedTuple):
    """One detection, in the film's own pixels: column 0 begins at x = 0 and ends at x = 1."""
    name: str                       # of its class
    score: float                    # 0 to 1
    box: tuple[float, float, float, float]      # xyxy
    mask: dict | None = None        # COCO RLE: `size` (rows, columns) and `counts`


class Origin(NamedTuple):
    """Where findings come from."""
    checkpoint: str                 # its name
    synthetic: bool                 # learnt from drawn images, whose classes borrow the names of findings
    score_threshold: float | dict[str, float]       # weaker detections were left out; of all classes, or of each
    name: str = 'relnet_jax'
    version: str = relnet_jax.__version__

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines for whoever reads the document."""
        lowest = self.score_threshold
        scores = ', '.join(f'{k} {v:g}' for k, v in lowest.items()) if isinstance(lowest, dict) else f'{lowest:g}'
        lines = (RESEARCH, f'checkpoint: {self.checkpoint}', f'score threshold: {scores}')
        return (*lines, SYNTHETIC) if self.synthetic else lines


RESEARCH = 'Research only, not for clinical use'
SYNTHETIC = 'Trained on synthetic images: says nothing about a patient'


def findings(results: Iterable[Mapping], names: Mapping[int, str]) -> list[Finding]:
    """Those of COCO result records of one film, in their order; `names`: category id -> class."""
    return [Finding(names[r['category_id']], float(r['score']), (x, y, x + w, y + h), r.get('segmentation'))
            for r in results for x, y, w, h in [r['bbox']]]
