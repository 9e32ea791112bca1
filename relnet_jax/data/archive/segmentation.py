"""The masks of what was found on a film as a DICOM segmentation: a binary segment for each finding, which may overlap.

Segment i is finding i of the structured report, under the same tracking UID.
"""
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence, seg
from pydicom import Dataset
from pydicom.sr.codedict import codes

from relnet_jax.data.archive import RESEARCH, Finding, Origin
from relnet_jax.data.archive.codes import DETECTED_OBJECT, PRIVATE, PRIVATE_SCHEME, finding_code
from relnet_jax.data.archive.film import tracking_uid, uid, write_document
from relnet_jax.data.archive.masks import full_mask
from relnet_jax.errors import UserError

SERIES_NUMBER = 9002


def write(film: Dataset, out: Path, findings: Sequence[Finding], origin: Origin) -> Path | None:
    """As `structured_report.write`; None, and no file, without findings. Raises UserError for one without a mask."""
    if not findings:        # a segmentation has at least one segment
        return None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return write_document(segmentation(film, findings, origin), out)


def segmentation(film: Dataset, findings: Sequence[Finding], origin: Origin) -> seg.Segmentation:
    """The document."""
    masks = [full_mask(finding, i, film) for i, finding in enumerate(findings, start=1)]
    if any(mask is None for mask in masks):
        raise UserError(f'film {film.SOPInstanceUID}: a segmentation needs masks, and the detector gives none')
    document = seg.Segmentation(
        source_images=[film], pixel_array=np.moveaxis(np.stack(masks)[None], 1, -1),
        segmentation_type=seg.SegmentationTypeValues.BINARY, omit_empty_frames=False,
        segment_descriptions=[_segment(film, finding, i, origin) for i, finding in enumerate(findings, start=1)],
        series_instance_uid=uid('SEG series', film.SOPInstanceUID, origin, findings), series_number=SERIES_NUMBER,
        sop_instance_uid=uid('SEG', film.SOPInstanceUID, origin, findings), instance_number=1,
        manufacturer=origin.name, manufacturer_model_name=origin.name, software_versions=origin.version,
        device_serial_number=origin.checkpoint[-64:], content_label='RESEARCH', content_description=RESEARCH,
        content_qualification='RESEARCH', series_description=RESEARCH, specific_character_set='ISO_IR 192',
        coding_schemes=[PRIVATE_SCHEME])
    document.PatientOrientation = film.get('PatientOrientation', '')    # its pixels are the film's
    organisation = uid('dimensions', document.SOPInstanceUID)           # highdicom draws one at random
    document.DimensionOrganizationSequence[0].DimensionOrganizationUID = organisation
    for index in document.DimensionIndexSequence:
        index.DimensionOrganizationUID = organisation
    return document


def _segment(film: Dataset, finding: Finding, number: int, origin: Origin) -> seg.SegmentDescription:
    code = finding_code(finding.name, synthetic=origin.synthetic)
    algorithm = AlgorithmIdentificationSequence(
        name=origin.name, version=origin.version, family=codes.DCM.ArtificialIntelligence,
        parameters={str(i): remark for i, remark in enumerate(origin.remarks, start=1)})
    return seg.SegmentDescription(
        segment_number=number, segment_label=finding.name[:64], segmented_property_type=code,
        segmented_property_category=(DETECTED_OBJECT if code.scheme_designator == PRIVATE else
                                     codes.SCT.MorphologicallyAbnormalStructure),
        algorithm_type='AUTOMATIC', algorithm_identification=algorithm, tracking_id=f'{finding.name} {number}',
        tracking_uid=tracking_uid(film, origin, finding))
