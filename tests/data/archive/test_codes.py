"""Standard codes are given for what is surely meant, and nothing else."""
import pytest
from pydicom.sr import _concepts_dict
from pydicom.sr.codedict import codes

from relnet_jax.data.archive.codes import IN_DICOM, IN_SNOMED_CT, PRIVATE, finding_code


@pytest.mark.parametrize('name', IN_DICOM)
def test_codes_of_dicom_mean_there_what_they_mean_here(name):
    code = IN_DICOM[name]
    meanings = [known[code.value][0].casefold() for known in _concepts_dict.concepts[code.scheme_designator].values()
                if code.value in known]
    assert code.meaning.casefold() in meanings


@pytest.mark.parametrize('name', IN_SNOMED_CT)
def test_no_other_code_contradicts_dicom(name):
    code = IN_SNOMED_CT[name]
    assert not any(code.value in known for known in _concepts_dict.concepts['SCT'].values())


def verhoeff(number: str) -> bool:
    """Whether the last digit checks the others: as SNOMED CT identifiers have it, in the dihedral group of order 10."""
    def times(a: int, b: int) -> int:       # 0..4 turn, 5..9 mirror
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
        return 5 + (a - b) % 5 if b < 5 else (a - b) % 5

    total = 0
    for place, digit in enumerate(map(int, reversed(number))):
        for _ in range(place % 8):
            digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
        total = times(total, digit)
    return total == 0


@pytest.mark.parametrize('code', [code for code in (IN_DICOM | IN_SNOMED_CT).values()
                                  if code.scheme_designator == 'SCT'], ids=lambda code: code.meaning)
def test_the_check_digits_of_snomed_ct_are_right(code):
    assert verhoeff(code.value) and not verhoeff(code.value[:-1] + str((int(code.value[-1]) + 1) % 10))


@pytest.mark.parametrize('name, value, scheme', [
    ('Mass', '4147007', 'SCT'), ('pleural_effusion', '60046008', 'SCT'), ('Lung  Opacity', '112001', 'DCM'),
    ('Cardiomegaly', '8186001', 'SCT')])
def test_case_underscores_and_spaces_do_not_matter(name, value, scheme):
    code = finding_code(name, synthetic=False)
    assert (code.value, code.scheme_designator) == (value, scheme)


@pytest.mark.parametrize('name', ['Nodule/Mass', 'Diffuse Nodule', 'Pleural Thickening', 'left lung', 'phantom mass'])
def test_other_names_are_codes_of_their_own_scheme(name):
    code = finding_code(name, synthetic=False)
    assert (code.value, code.scheme_designator, code.meaning) == (name, PRIVATE, name)


def test_what_a_model_of_drawn_images_finds_is_no_finding():
    code = finding_code('Mass', synthetic=True)
    assert (code.value, code.scheme_designator) == ('Mass', PRIVATE) and code != codes.SCT.Mass
