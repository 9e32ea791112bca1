"""Codes of findings: a standard one where the name of a class says what it says, else one of a scheme of our own.

A code is a statement that other software acts upon. A name gets a standard one only if it means the same and the code
stands in DICOM's own dictionary (PS3.16, schemes SCT and DCM) or is that of the disorder of this name in SNOMED CT. So
'Nodule/Mass', 'Diffuse Nodule', 'Pleural Thickening' and 'Aortic enlargement' have none, and neither has 'Cardiomegaly'
the one of PS3.16, which SNOMED CT gives another meaning.
"""
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.coding import Code

PRIVATE = '99RELNET'
PRIVATE_SCHEME = CodingSchemeIdentificationItem(designator=PRIVATE, name='Class names of relnet_jax models')
DETECTED_OBJECT = Code('object', PRIVATE, 'Detected object')
NUMBER_OF_DETECTIONS = Code('detections', PRIVATE, 'Number of detections')

IN_DICOM = {
    'calcification': Code('18115005', 'SCT', 'Pathologic calcification'),
    'edema': Code('79654002', 'SCT', 'Edema'),
    'effusion': Code('41699000', 'SCT', 'Effusion'),
    'fibrosis': Code('112674009', 'SCT', 'Fibrosis'),
    'infiltrate': Code('112121', 'DCM', 'Infiltrate'),
    'infiltration': Code('112121', 'DCM', 'Infiltrate'),
    'lung opacity': Code('112001', 'DCM', 'Opacity'),
    'mass': Code('4147007', 'SCT', 'Mass'),
    'nodule': Code('27925004', 'SCT', 'Nodule'),
    'opacity': Code('112001', 'DCM', 'Opacity'),
    'pleural effusion': Code('60046008', 'SCT', 'Pleural effusion'),
    'pneumothorax': Code('36118008', 'SCT', 'Pneumothorax'),
    'pulmonary edema': Code('19242006', 'SCT', 'Pulmonary edema'),
}
IN_SNOMED_CT = {
    'atelectasis': Code('46621007', 'SCT', 'Atelectasis'),
    'cardiomegaly': Code('8186001', 'SCT', 'Cardiomegaly'),
    'consolidation': Code('95436008', 'SCT', 'Lung consolidation'),
    'emphysema': Code('87433001', 'SCT', 'Pulmonary emphysema'),
    'fracture': Code('125605004', 'SCT', 'Fracture of bone'),
    'ild': Code('233703007', 'SCT', 'Interstitial lung disease'),
    'interstitial lung disease': Code('233703007', 'SCT', 'Interstitial lung disease'),
    'pulmonary fibrosis': Code('51615001', 'SCT', 'Fibrosis of lung'),
    'rib fracture': Code('33737001', 'SCT', 'Fracture of rib'),
}


def finding_code(name: str, *, synthetic: bool) -> Code:
    """The code of a class: a private one with the name as its value if no standard one is known, or if `synthetic`."""
    known = (IN_DICOM | IN_SNOMED_CT).get(' '.join(name.casefold().replace('_', ' ').split()))
    return Code(name, PRIVATE, name[:64]) if synthetic or known is None else known
