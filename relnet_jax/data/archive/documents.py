"""All documents of a film in a folder, called by the film's UID."""
from collections.abc import Sequence
from pathlib import Path

from relnet_jax.data.archive import Finding, Origin, segmentation, structured_report
from relnet_jax.data.archive.film import read_film

KINDS = {'sr': structured_report.write, 'seg': segmentation.write}


def write(film: str | Path, folder: str | Path, findings: Sequence[Finding], origin: Origin, *,
          kinds: Sequence[str] = tuple(KINDS)) -> list[Path]:
    """Writes UID.sr.dcm and UID.seg.dcm of the DICOM file `film`, whose UID it is, to `folder`; returns their paths.

    Without findings there is no segmentation. Raises UserError, naming the film, where no document can refer to it (no
    DICOM, several frames, no UIDs), where masks are missing or of another size, and where another file has such a name.
    """
    header, folder = read_film(Path(film)), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [KINDS[kind](header, folder / f'{header.SOPInstanceUID}.{kind}.dcm', findings, origin) for kind in kinds]
    return [path for path in paths if path]
