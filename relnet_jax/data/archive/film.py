"""What a document takes over from its film, and how it is written."""
import logging as python_logging
import os
import uuid
import warnings
from pathlib import Path

from absl import logging
from pydicom import Dataset, config, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.uid import UID
from pydicom.valuerep import DA, TM, validate_value

from relnet_jax.data.archive import Finding, Origin
from relnet_jax.errors import UserError

python_logging.getLogger('highdicom').setLevel(python_logging.WARNING)      # it tells of every module that it copies

REFERRED_TO = ('SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID', 'Rows', 'Columns')
MAY_BE_EMPTY = ('PatientID', 'PatientName', 'PatientBirthDate', 'PatientSex', 'AccessionNumber', 'StudyID', 'StudyDate',
                'StudyTime', 'ReferringPhysicianName')
SEXES = ('M', 'F', 'O')
TEXT_TYPES = ('AE', 'AS', 'CS', 'DA', 'DT', 'LO', 'LT', 'PN', 'SH', 'ST', 'TM', 'UC', 'UI', 'UR', 'UT')


def read_film(path: Path) -> Dataset:
    """The header of a film, without elements that would not be valid in a new document, which a log line names.

    Raises UserError, naming the file, where a document cannot refer to it: no DICOM, several frames, no UIDs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')     # what pydicom warns of is left out below
        try:
            film = dcmread(path, force=True, stop_before_pixels=True)
            dropped = _drop_invalid(film)
        except OSError:
            raise
        except Exception as error:      # parsers raise what they like on bytes that are no DICOM
            raise UserError(f'{path}: no DICOM document can be made of it, damaged header ({error})') from error
    lacking = [keyword for keyword in REFERRED_TO if not film.get(keyword)]
    if lacking:
        raise UserError(f'{path}: no DICOM document can refer to it, its header lacks {", ".join(lacking)}')
    if int(film.get('NumberOfFrames') or 1) != 1:
        raise UserError(f'{path}: no DICOM document can be made of it, {film.NumberOfFrames} frames, expected one')
    if dropped:
        logging.warning('%s: not valid, and left out of the documents: %s', path, ', '.join(dropped))
    for keyword in MAY_BE_EMPTY:
        if keyword not in film:
            setattr(film, keyword, '')
    if film.PatientSex not in SEXES:
        film.PatientSex = ''
    # Without a frame of reference a spacing says nothing that the film does not say, and it may be 0.
    film.pop('PixelSpacing', None)
    return film


def _drop_invalid(dataset: Dataset) -> list[str]:
    """Removes elements whose text their type does not allow, in sequences too; returns their names."""
    dropped = []
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            values = element.value if element.VM > 1 or element.VR == 'SQ' else [element.value]
            for value in values:
                if element.VR == 'SQ':
                    dropped += _drop_invalid(value)
                elif element.VR in TEXT_TYPES and value not in (None, ''):
                    validate_value(element.VR, value, config.RAISE)
                    {'DA': DA, 'TM': TM}.get(element.VR, str)(value)
        except RecursionError:
            raise
        except Exception:
            del dataset[tag]
            dropped.append(keyword_for_tag(tag) or str(tag))
    return dropped


def uid(*parts: object) -> str:
    """A UID that follows from `parts` (name-based UUID, PS3.5, section B.2)."""
    return f'2.25.{uuid.uuid5(uuid.NAMESPACE_OID, repr(parts)).int}'


def tracking_uid(film: Dataset, origin: Origin, finding: Finding) -> str:
    """By which report and segmentation name the same finding."""
    return uid('finding', film.SOPInstanceUID, origin, finding)


def write_document(document: Dataset, out: Path) -> Path:
    """Writes `out` at once; raises UserError instead of writing over anything but a document of the same kind."""
    if out.exists():
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            there = dcmread(out, force=True, stop_before_pixels=True, specific_tags=['SOPClassUID']).get('SOPClassUID')
        if there != document.SOPClassUID:
            raise UserError(f'{out}: is there, and no {UID(document.SOPClassUID).name}; it is not written over')
    scratch = out.with_name(f'{out.name}.tmp')
    document.save_as(scratch, enforce_file_format=True)
    os.replace(scratch, out)
    return out
