"""Reports and segmentations: read back by pydicom they hold what was found, and dciodvfy finds no error in them."""
import numpy as np
import pydicom
import pytest

from relnet_jax.data.archive import Finding, documents, findings, segmentation, structured_report
from relnet_jax.data.archive.film import read_film
from relnet_jax.detector.results import encode_mask
from relnet_jax.errors import UserError
from tests.data.archive.samples import COLUMNS, ORIGIN, ROWS, STUDY, found, make_film, masks, validate
from tests.data.archive.test_outlines import inside

FIELDS = ('PatientID', 'PatientName', 'PatientBirthDate', 'PatientSex', 'PatientAge', 'StudyInstanceUID', 'StudyDate',
          'StudyTime', 'StudyID', 'AccessionNumber', 'StudyDescription', 'ReferringPhysicianName')
TIMES = ('InstanceCreationDate', 'InstanceCreationTime', 'ContentDate', 'ContentTime', 'ContributingEquipmentSequence')
NOT_FOR_PATIENTS = 'Research only, not for clinical use'


@pytest.fixture
def film(tmp_path):
    return read_film(make_film(tmp_path / 'film.dcm'))


def items(node, name: str) -> list:
    """Content items of that concept name, wherever below `node`."""
    children = [item for item in node.get('ContentSequence', []) if 'ConceptNameCodeSequence' in item]
    here = [item for item in children if item.ConceptNameCodeSequence[0].CodeMeaning == name]
    return here + [item for child in children for item in items(child, name)]


def read_report(path) -> list[dict]:
    """Of each measurement group: code, score and polyline."""
    document = pydicom.dcmread(path)
    groups = []
    for group in items(document, 'Measurement Group'):
        finding, score, region = (items(group, name)[0] for name in ('Finding', 'Certainty of Finding', 'Image Region'))
        value = score.MeasuredValueSequence[0]
        assert value.MeasurementUnitsCodeSequence[0].CodeValue == '%' and region.GraphicType == 'POLYLINE'
        source = region.ContentSequence[0].ReferencedSOPSequence[0]
        assert source.ReferencedSOPInstanceUID == STUDY['SOPInstanceUID']
        code = finding.ConceptCodeSequence[0]
        groups.append(dict(
            code=(code.get('CodeValue') or code.LongCodeValue, code.CodingSchemeDesignator), meaning=code.CodeMeaning,
            score=float(value.get('FloatingPointValue', value.NumericValue)) / 100,
            line=np.reshape(region.GraphicData, (-1, 2)),
            tracking=items(group, 'Tracking Unique Identifier')[0].UID,
            remarks=[item.TextValue for item in items(group, 'Algorithm Parameters')]))
    return groups


def test_a_report_gives_back_boxes_scores_and_codes(film, tmp_path):
    out = structured_report.write(film, tmp_path / 'a.sr.dcm', found(with_masks=False), ORIGIN)
    assert out == tmp_path / 'a.sr.dcm' and validate(out) == []
    groups = read_report(out)
    assert [g['code'] for g in groups] == [('4147007', 'SCT'), ('Pleural Thickening', '99RELNET'), ('4147007', 'SCT')]
    np.testing.assert_allclose([g['score'] for g in groups], [f.score for f in found()], rtol=0, atol=1e-12)
    corners = [[*g['line'].min(0), *g['line'].max(0)] for g in groups]
    np.testing.assert_allclose(corners, [(29.5, 19.25, 120, 90), (60, 50, 80.125, 70), (0, 1, COLUMNS, 5)], atol=1e-5)


def test_a_report_gives_back_the_masks(film, tmp_path):
    out = structured_report.write(film, tmp_path / 'a.sr.dcm', found(), ORIGIN)
    assert validate(out) == []
    groups = read_report(out)
    for group, mask in zip(groups[:2], masks()):
        np.testing.assert_array_equal(inside(group['line'], (ROWS, COLUMNS)), mask)
    np.testing.assert_allclose(groups[2]['line'][0], (0, 1))        # no pixel: the box


def test_a_segmentation_gives_back_the_masks(film, tmp_path):
    out = segmentation.write(film, tmp_path / 'a.seg.dcm', found(), ORIGIN)
    assert out == tmp_path / 'a.seg.dcm' and validate(out) == []
    document = pydicom.dcmread(out)
    np.testing.assert_array_equal(document.pixel_array, np.uint8(masks()))
    segments = document.SegmentSequence
    assert [s.SegmentLabel for s in segments] == [f.name for f in found()]
    schemes = [s.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator for s in segments]
    assert schemes == ['SCT', '99RELNET', 'SCT']
    frames = document.PerFrameFunctionalGroupsSequence
    assert [f.SegmentIdentificationSequence[0].ReferencedSegmentNumber for f in frames] == [1, 2, 3]
    assert {f.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for f in frames} == {'1.2.3.4'}
    reported = read_report(structured_report.write(film, tmp_path / 'a.sr.dcm', found(), ORIGIN))
    assert [s.TrackingUID for s in segments] == [group['tracking'] for group in reported]


@pytest.mark.parametrize('write', [structured_report.write, segmentation.write])
def test_documents_belong_to_the_films_study_and_say_what_they_are(film, tmp_path, write):
    document = pydicom.dcmread(write(film, tmp_path / 'a.dcm', found(), ORIGIN))
    assert {field: document[field].value for field in FIELDS} == {field: STUDY[field] for field in FIELDS}
    assert document.SeriesInstanceUID != STUDY['SeriesInstanceUID']
    assert document.ContentQualification == 'RESEARCH' and document.SeriesDescription == NOT_FOR_PATIENTS
    assert document.SoftwareVersions == ORIGIN.version


def test_reports_name_their_checkpoint_and_are_preliminary(film, tmp_path):
    origin = ORIGIN._replace(synthetic=True)
    out = structured_report.write(film, tmp_path / 'a.dcm', found(), origin)
    document = pydicom.dcmread(out)
    assert (document.PreliminaryFlag, document.VerificationFlag) == ('PRELIMINARY', 'UNVERIFIED')
    assert NOT_FOR_PATIENTS in items(document, 'Device Observer Name')[0].TextValue
    for group in read_report(out):
        assert group['code'][1] == '99RELNET'       # 'Mass' of a phantom is none
        assert group['remarks'] == [NOT_FOR_PATIENTS, 'checkpoint: mine/700', 'score threshold: 0.3',
                                    'Trained on synthetic images: says nothing about a patient']


def test_thresholds_of_each_class_are_named(film, tmp_path):
    origin = ORIGIN._replace(score_threshold={'Mass': 0.25, 'Pleural Thickening': 0.4})
    for group in read_report(structured_report.write(film, tmp_path / 'a.dcm', found(), origin)):
        assert 'score threshold: Mass 0.25, Pleural Thickening 0.4' in group['remarks']


def test_a_film_without_findings_has_a_report_that_says_so_and_no_segmentation(film, tmp_path):
    out = structured_report.write(film, tmp_path / 'a.sr.dcm', [], ORIGIN)
    assert validate(out) == []
    document = pydicom.dcmread(out)
    assert items(document, 'Number of detections')[0].MeasuredValueSequence[0].NumericValue == 0
    assert not items(document, 'Finding') and items(document, 'Source of Measurement')
    assert segmentation.write(film, tmp_path / 'a.seg.dcm', [], ORIGIN) is None
    assert not (tmp_path / 'a.seg.dcm').exists()


@pytest.mark.parametrize('write', [structured_report.write, segmentation.write])
def test_the_same_results_are_the_same_document_and_others_are_another(film, tmp_path, write):
    def uids(name, what, origin):
        document = pydicom.dcmread(write(film, tmp_path / name, what, origin))
        for keyword in TIMES:
            document.pop(keyword, None)
        return (document.SOPInstanceUID, document.SeriesInstanceUID), document

    first, second = uids('a.dcm', found(), ORIGIN), uids('a.dcm', found(), ORIGIN)
    assert first == second
    others = [uids('b.dcm', found()[:2], ORIGIN)[0], uids('c.dcm', found(), ORIGIN._replace(checkpoint='mine/800'))[0],
              uids('d.dcm', found(), ORIGIN._replace(version='0.2'))[0]]
    assert len({first[0], *others}) == 4
    assert all(pydicom.uid.UID(part).is_valid for pair in others for part in pair)


def test_nothing_but_a_document_of_its_kind_is_written_over(film, tmp_path):
    path = tmp_path / 'film.dcm'
    before = path.read_bytes()
    with pytest.raises(UserError, match='film.dcm: is there, and no Comprehensive SR'):
        structured_report.write(film, path, found(), ORIGIN)
    with pytest.raises(UserError, match='film.dcm: is there, and no Segmentation'):
        segmentation.write(film, path, found(), ORIGIN)
    notes = tmp_path / 'notes.txt'
    for text in ('keep', ''):
        notes.write_text(text)
        with pytest.raises(UserError, match='notes.txt: is there'):
            structured_report.write(film, notes, found(), ORIGIN)
        assert notes.read_text() == text
    assert path.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ['film.dcm', 'notes.txt']


@pytest.mark.parametrize('elements, message', [
    (dict(SOPInstanceUID=None, StudyInstanceUID=None), 'lacks SOPInstanceUID, StudyInstanceUID'),
    (dict(SOPInstanceUID='../../1.2'), 'lacks SOPInstanceUID'),
    (dict(NumberOfFrames=3), '3 frames, expected one')])
def test_films_that_no_document_can_refer_to_are_refused_by_name(tmp_path, elements, message):
    with pytest.raises(UserError, match=f'odd.dcm: .*{message}'):
        documents.write(make_film(tmp_path / 'odd.dcm', **elements), tmp_path / 'out', found(), ORIGIN)
    assert not (tmp_path / 'out').exists()


def test_other_files_are_refused_by_name(tmp_path):
    (tmp_path / 'x.png').write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(300))
    with pytest.raises(UserError, match='x.png: no DICOM document can'):
        documents.write(tmp_path / 'x.png', tmp_path, found(), ORIGIN)
    with pytest.raises(OSError, match='y.dcm'):
        documents.write(tmp_path / 'y.dcm', tmp_path, found(), ORIGIN)


def test_the_documents_of_a_film_are_called_by_its_uid(tmp_path, caplog):
    film, out = make_film(tmp_path / 'film.dcm', PatientAge='64'), tmp_path / 'new' / 'folder'
    assert documents.write(film, out, found(), ORIGIN) == [out / '1.2.3.4.sr.dcm', out / '1.2.3.4.seg.dcm']
    assert documents.write(film, out, [], ORIGIN) == [out / '1.2.3.4.sr.dcm']
    assert documents.write(film, out, found(), ORIGIN, kinds=['seg']) == [out / '1.2.3.4.seg.dcm']
    assert pydicom.dcmread(out / '1.2.3.4.seg.dcm').Modality == 'SEG'
    assert sum('left out of the documents: PatientAge' in message for message in caplog.messages) == 3


@pytest.mark.parametrize('write', [structured_report.write, segmentation.write])
def test_masks_must_be_of_the_films_size(film, tmp_path, write):
    wrong = [Finding('Mass', 0.5, (1, 2, 3, 4), encode_mask(np.ones((COLUMNS, ROWS), bool)))]
    with pytest.raises(UserError, match=r'finding 1 \(Mass\): mask of 90 x 120 pixels, but film 1.2.3.4 has 120 x 90'):
        write(film, tmp_path / 'a.dcm', wrong, ORIGIN)


def test_a_detector_without_masks_has_no_segmentation(film, tmp_path):
    with pytest.raises(UserError, match='a segmentation needs masks'):
        segmentation.write(film, tmp_path / 'a.dcm', found(with_masks=False), ORIGIN)


@pytest.mark.parametrize('write', [structured_report.write, segmentation.write])
def test_missing_and_invalid_elements_of_the_film_stay_out_of_the_documents(tmp_path, caplog, write):
    nobody = dict.fromkeys(('PatientID', 'PatientName', 'PatientBirthDate', 'StudyID', 'StudyDate', 'AccessionNumber'))
    film = read_film(make_film(tmp_path / 'film.dcm', **nobody, PatientSex='X', PatientAge='64', StudyTime='noon',
                     PixelSpacing=[0, 0]))
    out = write(film, tmp_path / 'a.dcm', found(), ORIGIN)
    assert validate(out) == []
    assert 'not valid, and left out of the documents: StudyTime, PatientAge' in caplog.text
    document = pydicom.dcmread(out)
    assert 'PatientAge' not in document and not document.PatientSex and not document.StudyTime
    assert (document.PatientID, document.StudyDate) == ('', '')


@pytest.mark.parametrize('write', [structured_report.write, segmentation.write])
def test_names_keep_their_letters(tmp_path, write):
    film = read_film(make_film(tmp_path / 'film.dcm', SpecificCharacterSet='ISO_IR 100', PatientName='Müller^Jörg'))
    out = write(film, tmp_path / 'a.dcm', [found()[0]._replace(name='気胸')], ORIGIN)
    document = pydicom.dcmread(out)
    assert document.PatientName == 'Müller^Jörg' and validate(out) == []
    assert '気胸' in (document.SegmentSequence[0].SegmentLabel if document.Modality == 'SEG' else
                    [group['meaning'] for group in read_report(out)])


@pytest.mark.parametrize('write', [structured_report.write, segmentation.write])
def test_names_of_any_length_are_valid(film, tmp_path, write):
    name, checkpoint = 'a long name ' * 9, 'runs/' * 30
    out = write(film, tmp_path / 'a.dcm', [found()[0]._replace(name=name)], ORIGIN._replace(checkpoint=checkpoint))
    assert validate(out) == []


def test_result_records_become_findings():
    results = [dict(image_id=3, category_id=7, bbox=[10.0, 20.0, 5.0, 6.5], score=0.25, segmentation={'size': [1, 2]}),
               dict(image_id=3, category_id=9, bbox=[0.0, 0.0, 1.0, 1.0], score=1.0)]
    assert findings(results, {7: 'Mass', 9: 'Nodule'}) == [
        Finding('Mass', 0.25, (10.0, 20.0, 15.0, 26.5), {'size': [1, 2]}), Finding('Nodule', 1.0, (0.0, 0.0, 1.0, 1.0))]


@pytest.mark.parametrize('sample', ['RG1_J2KI.dcm', 'RG3_J2KI.dcm', 'mlut_18.dcm', 'vlut_04.dcm', '1.2.276'])
def test_documents_of_real_films_are_valid(real_data, tmp_path, sample):
    (path,) = (real_data / 'dicom_samples').glob(f'{sample}*')
    film = read_film(path)
    mask = np.zeros((film.Rows, film.Columns), bool)
    mask[100:300, 50:400] = True
    mask[150:160, 100:120] = False
    what = [Finding('Mass', 0.9, (50, 100, 400, 300), encode_mask(mask)),
            Finding('Nodule/Mass', 0.4, (50, 100, 400, 300), encode_mask(~mask))]
    assert validate(structured_report.write(film, tmp_path / 'some.dcm', what, ORIGIN)) == []
    assert validate(structured_report.write(film, tmp_path / 'none.dcm', [], ORIGIN)) == []
    out = segmentation.write(film, tmp_path / 'seg.dcm', what, ORIGIN)
    assert validate(out) == []
    np.testing.assert_array_equal(pydicom.dcmread(out).pixel_array[0], mask)
