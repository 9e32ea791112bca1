"""What was found on a film as a DICOM structured report: Comprehensive SR, template TID 1500 (PS3.16).

Every finding is a group of TID 1410 (planar region): its code, its score as 'Certainty of Finding' in percent, the
algorithm with its remarks (TID 4019), and one closed polyline, around the mask where there is one, else around the box.
A film on which nothing was found says so by the number 0, which is no statement that it is normal.
"""
import warnings
from collections.abc import Sequence
from pathlib import Path

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes

from relnet_jax.data.archive import RESEARCH, Finding, Origin
from relnet_jax.data.archive.codes import NUMBER_OF_DETECTIONS, PRIVATE_SCHEME, finding_code
from relnet_jax.data.archive.film import tracking_uid, uid, write_document
from relnet_jax.data.archive.masks import full_mask
from relnet_jax.data.archive.outlines import box_outline, mask_outline

SERIES_NUMBER = 9001


def write(film: Dataset, out: Path, findings: Sequence[Finding], origin: Origin) -> Path:
    """Writes the report of a film, whose header `read_film` gives, to `out`, which is returned.

    Raises UserError for masks of another size than the film, and where `out` is there and is no structured report.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')     # of names with a single component, which are the film's
        return write_document(report(film, findings, origin), out)


def report(film: Dataset, findings: Sequence[Finding], origin: Origin) -> sr.ComprehensiveSR:
    """The document."""
    groups = [_group(film, finding, i, origin) for i, finding in enumerate(findings, start=1)]
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=uid('device', origin), name=f'{origin.name}: {RESEARCH}', manufacturer_name=origin.name,
        model_name=origin.checkpoint)
    context = sr.ObservationContext(observer_device_context=sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device))
    content = sr.MeasurementReport(
        observation_context=context, procedure_reported=codes.LN.XRUnspecifiedBodyRegion,
        imaging_measurements=groups or [_nothing_found(film, origin)])
    return sr.ComprehensiveSR(
        evidence=[film], content=content, specific_character_set='ISO_IR 192',
        series_instance_uid=uid('SR series', film.SOPInstanceUID, origin, findings), series_number=SERIES_NUMBER,
        sop_instance_uid=uid('SR', film.SOPInstanceUID, origin, findings), instance_number=1,
        manufacturer=origin.name, software_versions=origin.version, series_description=RESEARCH,
        content_qualification='RESEARCH', coding_schemes=[PRIVATE_SCHEME])


def _group(film: Dataset, finding: Finding, number: int,
           origin: Origin) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    mask = full_mask(finding, number, film)
    outlined = mask is not None and mask.any()
    line = mask_outline(mask) if outlined else box_outline(finding.box, (film.Rows, film.Columns))
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=tracking_uid(film, origin, finding), identifier=f'{finding.name} {number}'),
        referenced_region=sr.ImageRegion('POLYLINE', line, sr.SourceImageForRegion(film.SOPClassUID,
                                                                                   film.SOPInstanceUID)),
        finding_type=finding_code(finding.name, synthetic=origin.synthetic), algorithm_id=_algorithm(origin),
        geometric_purpose=codes.DCM.Outline if outlined else None,
        measurements=[sr.Measurement(name=codes.DCM.CertaintyOfFinding, value=100 * finding.score,
                                     unit=codes.UCUM.Percent)])


def _nothing_found(film: Dataset, origin: Origin) -> sr.MeasurementsAndQualitativeEvaluations:
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=uid('none', film.SOPInstanceUID, origin),
                                                  identifier='No detections'),
        algorithm_id=_algorithm(origin),
        source_images=[sr.SourceImageForMeasurementGroup(film.SOPClassUID, film.SOPInstanceUID)],
        measurements=[sr.Measurement(name=NUMBER_OF_DETECTIONS, value=0, unit=codes.UCUM.NoUnits)])


def _algorithm(origin: Origin) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(name=origin.name, version=origin.version, parameters=origin.remarks)
