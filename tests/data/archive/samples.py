"""A film in DICOM, what was found on it, and the validator."""
import shutil
import subprocess

import numpy as np
import pytest
from pydicom import uid

from relnet_jax.data.archive import Finding, Origin
from relnet_jax.detector.results import encode_mask
from tests.data.dicom_files import write_dicom

ROWS, COLUMNS = 90, 120
ORIGIN = Origin(checkpoint='mine/700', synthetic=False, score_threshold=0.3)
STUDY = dict(
    SOPClassUID=uid.ComputedRadiographyImageStorage, SOPInstanceUID='1.2.3.4', StudyInstanceUID='1.2.3',
    SeriesInstanceUID='1.2.3.3', Modality='CR', PatientID='P7', PatientName='Doe^Jane', PatientBirthDate='19400305',
    PatientSex='F', PatientAge='064Y', StudyDate='20040826', StudyTime='185059', StudyID='S1', AccessionNumber='A1',
    StudyDescription='Thorax', ReferringPhysicianName='Roe^Richard')


def make_film(path, **elements):
    return write_dicom(path, np.zeros((ROWS, COLUMNS), np.uint16), **(STUDY | elements))


def masks() -> list[np.ndarray]:
    """One with a hole, a second piece and pixels at the film's border, one that overlaps it, one without any pixel."""
    a, b, empty = np.zeros((3, ROWS, COLUMNS), bool)
    a[20:60, 30:70] = a[80:90, 100:120] = True
    a[30:40, 40:50] = False
    b[50:70, 60:80] = True
    return [a, b, empty]


def found(*, with_masks: bool = True) -> list[Finding]:
    boxes = [(29.5, 19.25, 120, 90), (60, 50, 80.125, 70), (-3, 1, 130, 5)]
    return [Finding(name, score, box, encode_mask(mask) if with_masks else None) for name, score, box, mask in
            zip(('Mass', 'Pleural Thickening', 'Mass'), (0.987654321012, 0.5, 1 / 3), boxes, masks())]


def validate(path) -> list[str]:
    """Errors of dciodvfy, of which a valid document has none. Skips without it."""
    if shutil.which('dciodvfy') is None:
        pytest.skip("dciodvfy is not installed (Debian: apt-get install dicom3tools)")
    said = subprocess.run(['dciodvfy', str(path)], capture_output=True, text=True)
    lines = (said.stdout + said.stderr).splitlines()
    assert any(line in ('ComprehensiveSR', 'Segmentation') for line in lines), lines     # it was recognised
    return [line for line in lines if line.startswith(('Error', 'Abort'))]
