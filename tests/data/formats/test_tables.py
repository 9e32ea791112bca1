"""VinDr-CXR, RSNA and SIIM: every row of a CSV file is used or reported, whatever the file looks like."""
import re

import cv2
import numpy as np
import pycocotools.mask as rle_tools
import pytest

from configs import base
from relnet_jax.data.formats import rsna, siim, vindr
from relnet_jax.data.formats.broken import Broken
from relnet_jax.data.formats.rows import read_rows
from relnet_jax.data.rle import decode_mask

VINDR = 'image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max'


@pytest.fixture
def write(tmp_path):
    def write(*lines, encoding='utf-8', newline='\n'):
        file = tmp_path / 'train.csv'
        file.write_bytes((newline.join(lines) + newline).encode(encoding))
        return file
    return write


def options(**changes):
    data = base.get_config().data.unlock()
    data.update(changes)
    return data


def read_vindr(file, **changes):
    return vindr.read(file, file.parent, options(**changes))


def read_rsna(file):
    return rsna.read(file, file.parent, options())


def read_siim(file):
    return siim.read(file, file.parent, options())


def used(document):
    """Line numbers of the rows that went into a document."""
    return [line for record in (*document['images'], *document['annotations']) for line in record['rows']]


def reported(issues):
    return [int(found[1]) for found in (re.fullmatch(r'[^:]*: row (\d+)', issue.where) for issue in issues) if found]


def assert_all_rows_accounted_for(document, issues, lines):
    assert sorted(used(document) + reported(issues)) == list(lines)


# ---- the real files ----
@pytest.mark.parametrize('fusion, boxes', [('none', 1597), ('wbf', 1560), ('majority', 1227)])
def test_the_vindr_excerpt_is_read_completely(real_data, fusion, boxes):
    file = real_data / 'annotation_formats' / 'vinbigdata-train_excerpt.csv'
    document, issues = read_vindr(file, fusion=fusion)
    assert_all_rows_accounted_for(document, issues, range(2, 3001))        # 2,999 rows below the header
    assert len(document['images']) == 2648 and len(document['annotations']) == boxes
    assert reported(issues) == [] and len(issues) == (fusion == 'majority')
    empty = {i['id'] for i in document['images']} - {a['image_id'] for a in document['annotations']}
    assert len(empty) > 1000


def test_fusion_on_the_vindr_excerpt_is_what_a_hand_computes(real_data):
    file = real_data / 'annotation_formats' / 'vinbigdata-train_excerpt.csv'
    film = '56dd85ec693c65d811902a9054610f8b'       # R8 and R9 drew the aorta, R9 a consolidation, R10 a fibrosis

    def found(fusion):
        document, _ = read_vindr(file, fusion=fusion)
        return {(a['category_id'], *a['bbox']): a['readers'] for a in document['annotations'] if a['image_id'] == film}

    mean = (0, (1120 + 1104) / 2, (898 + 885) / 2, (1369 + 1372 - 1120 - 1104) / 2, (1195 + 1148 - 898 - 885) / 2)
    alone = {(4, 496., 1279., 380., 568.): ['R9'], (13, 487., 791., 385., 351.): ['R10']}
    assert found('wbf') == {mean: ['R8', 'R9']} | alone
    assert found('majority') == {mean: ['R8', 'R9']}
    assert len(found('none')) == 4


def test_the_rsna_excerpt_is_read_completely(real_data):
    document, issues = read_rsna(real_data / 'annotation_formats' / 'rsna_stage_2_train_labels_excerpt.csv')
    assert_all_rows_accounted_for(document, issues, range(2, 1501))
    assert issues == [] and len(document['images']) == 1242 and len(document['annotations']) == 656
    first = next(a for a in document['annotations'] if a['image_id'] == '00436515-870c-4b36-a041-de91049b9ab4')
    assert first['bbox'] == [264, 152, 213, 379] and first['rows'] == [6]


def test_the_siim_excerpt_is_read_completely(real_data):
    document, issues = read_siim(real_data / 'annotation_formats' / 'siim-pneumothorax-train-rle_excerpt.csv')
    assert_all_rows_accounted_for(document, issues, range(2, 151))
    assert issues == [] and len(document['images']) == 149 and len(document['annotations']) == 44
    for annotation in document['annotations']:
        rle = rle_tools.frPyObjects(annotation['segmentation'], 1024, 1024)
        mask, (x, y, w, h) = decode_mask(rle).astype(np.uint8), map(int, annotation['bbox'])
        assert mask.sum() == sum(annotation['segmentation']['counts'][1::2])
        assert mask[y:y + h, x:x + w].sum() == mask.sum()
        # nearly all of a pneumothorax hangs together; read in a wrong order it falls apart into lines
        assert np.bincount(cv2.connectedComponents(mask)[1].ravel())[1:].max() > 0.5 * mask.sum()


# ---- the encodings ----
def test_siim_runs_are_relative_and_go_down_the_columns():
    mask = decode_mask(rle_tools.frPyObjects(siim.decode('1027 2 1022 3 0 1'), 1024, 1024))
    assert sorted(zip(*np.nonzero(mask))) == [(3, 1), (3, 2), (4, 1), (4, 2), (5, 2), (6, 2)]       # (y, x)
    assert siim.decode('-1') is None
    for wrong, words in (('', 'neither'), ('5', 'neither'), ('1 2 3', 'neither'), ('5 x', 'neither'),
                         ('-5 3', 'neither'), ('1048570 7', 'leaves'), ('5 0', 'without a pixel')):
        with pytest.raises(Broken, match=words):
            siim.decode(wrong)


def test_several_rows_of_a_film_are_several_findings(write):
    document, issues = read_siim(write('ImageId, EncodedPixels', 'a.1,10 5', 'a.1,2048 9 1015 9', 'b.2,-1', 'c.3,-1',
                                       'c.3,7 7', 'd.4,oops', ',4 4'))
    assert [(a['image_id'], a['bbox'], a['rows']) for a in document['annotations']] == [
        ('a.1', [0, 10, 1, 5], [2]), ('a.1', [2, 0, 2, 9], [3]), ('c.3', [0, 7, 1, 7], [6])]
    assert [(i['id'], i['rows']) for i in document['images']] == [('a.1', []), ('b.2', [4]), ('c.3', [])]
    assert reported(issues) == [7, 8, 5]
    assert str(issues[-1]).endswith("other rows of the image do not ('c.3'): dropped")


def test_an_rsna_row_whose_target_and_box_disagree_is_reported(write):
    document, issues = read_rsna(write(
        'patientId,x,y,width,height,Target', 'a,1,2,3,4,1', 'b,,,,,0', 'c,1,2,3,4,0', 'd,,,,,1', 'e,1,2,,4,1',
        'f,1,2,0,4,1', 'g,1,2,3,4,2', 'h,1,2,3,4,1', 'h,,,,,0', ',1,2,3,4,1', 'i,x,2,3,4,1', 'j,,,,,0.0'))
    assert_all_rows_accounted_for(document, issues, range(2, 14))
    assert [a['image_id'] for a in document['annotations']] == ['a', 'h']
    assert [i['id'] for i in document['images']] == ['a', 'b', 'h', 'j']
    words = {4: 'Target 0 with a box', 5: 'Target 1 without a box', 6: 'no number in width',
             7: 'without positive width', 8: 'neither 0 nor 1', 10: "other rows of the image do not ('h')",
             11: 'no patientId', 12: "x is no number ('x')"}
    assert {line: True for line in words} == {
        line: words[line] in str(issue) for line, issue in zip(reported(issues), issues)}


def test_vindr_rows_that_contradict_are_reported(write):
    document, issues = read_vindr(write(
        VINDR, 'a,No finding,14,R1,,,,', 'a,no finding,14,R2,0,0,1,1', 'b,ILD,5,R1,10,20,30,40',
        'b,ILD,5,R1,10,20,30,40', 'b,ILD,5,R2,10,20,30,40', 'b,ILD,6,R1,1,2,3,4', 'b,COPD,5,R1,1,2,3,4',
        'b,COPD,20,R1,1,2,3,4', 'b,ILD,5.5,R1,1,2,3,4', 'b,,5,R1,1,2,3,4', 'b,ILD,5,R1,,,,', 'b,ILD,5,R1,30,2,3,4',
        'b,ILD,5,R1,nan,2,3,4', 'b,ILD,5,R1,inf,2,3,4', ',ILD,5,R1,1,2,3,4', 'b,ILD,5,R1,1,2,3',
        'b,ILD,,R1,1,2,3,5'))
    assert_all_rows_accounted_for(document, issues, range(2, 19))
    assert [(a['category_id'], a['rows'], a['readers']) for a in document['annotations']] == [
        (5, [4], ['R1']), (5, [6], ['R2']), (20, [9], ['R1']), (5, [18], ['R1'])]
    assert {i['id']: (i['readers'], i['rows']) for i in document['images']} == {
        'a': (['R1', 'R2'], [2, 3]), 'b': (['R1', 'R2'], [])}
    assert {c['name']: c['id'] for c in document['categories']} == {
        **{name: i for i, name in enumerate(vindr.CLASSES)}, 'COPD': 20}
    words = {5: 'earlier row', 7: "as elsewhere (['ILD', 6])", 8: "as elsewhere (['COPD', 5])",
             10: 'no whole number (5.5)', 11: 'no class_name', 12: 'without a box', 13: 'without positive width',
             14: 'no number in x_min', 15: "x_min is no number ('inf')", 16: 'no image_id', 17: 'another number (7)'}
    assert {line: True for line in words} == {
        line: words[line] in str(issue) for line, issue in zip(reported(issues), issues)}


def test_the_form_of_physionet_needs_neither_class_ids_nor_readers(write):
    document, issues = read_vindr(write('image_id,class_name,x_min,y_min,x_max,y_max', 'a,Cardiomegaly,1,2,3,4',
                                        'a,Rib fracture,5,6,7,8', 'b,No finding,,,,'), fusion='majority')
    assert issues == [] and len(document['images']) == 2
    assert [(a['category_id'], a['bbox']) for a in document['annotations']] == [(3, [1, 2, 2, 2]), (15, [5, 6, 2, 2])]


@pytest.mark.parametrize('read, column', [(read_vindr, 'image_id'), (read_rsna, 'patientId'), (read_siim, 'ImageId')])
def test_a_table_of_names_alone_is_a_list_of_films(write, read, column):
    document, issues = read(write(f'{column},PredictionString', 'a,0.5 0 0 100 100', 'b,', ',x'))
    assert [i['id'] for i in document['images']] == ['a', 'b'] and document['annotations'] == []
    assert_all_rows_accounted_for(document, issues, range(2, 5))


def test_a_table_that_has_some_of_its_columns_is_no_list(write):
    for read, header in ((read_vindr, 'image_id,class_name'), (read_rsna, 'patientId,x,y,width,height')):
        with pytest.raises(ValueError, match="no column '(x_min|target)'"):
            read(write(header, 'a' + ',1' * header.count(',')))


# ---- CSV as it comes ----
@pytest.mark.parametrize('kind', ['bom', 'crlf', 'quoted', 'reordered', 'semicolons', 'tabs', 'capitals', 'blanks'])
def test_a_table_is_read_in_whatever_dress_it_comes(write, kind):
    lines = [VINDR + ',note', 'a,Nodule/Mass,8,R1,1.5,2,3.0,4,', 'b,No finding,14,R2,,,,,seen']
    expected = read_vindr(write(*lines))
    assert expected[1] == [] and len(expected[0]['annotations']) == 1
    changed = {
        'bom': dict(encoding='utf-8-sig'), 'crlf': dict(newline='\r\n'),
        'quoted': [','.join(f'"{cell}"' for cell in line.split(',')) for line in lines],
        'reordered': [','.join(line.split(',')[::-1]) for line in lines],
        'semicolons': [line.replace(',', ';') for line in lines], 'tabs': [line.replace(',', '\t') for line in lines],
        'capitals': [lines[0].upper(), *lines[1:]], 'blanks': [line.replace(',', ' , ') for line in lines]}[kind]
    file = write(*lines, **changed) if isinstance(changed, dict) else write(*changed)
    assert read_vindr(file) == expected


def test_what_is_no_such_table_is_refused_by_name(write, tmp_path):
    with pytest.raises(FileNotFoundError, match="annotation file '.*lost.csv' is not there"):
        read_rows(tmp_path / 'lost.csv', ('a',))
    with pytest.raises(ValueError, match=r"train.csv: no column 'x_min', 'y_max'; its first line is \['image_id'"):
        read_vindr(write('image_id,class_name,y_min,x_max', 'a,ILD,1,2'))
    with pytest.raises(ValueError, match="column 'x' is there twice"):
        read_rows(write('x,x,y', '1,2,3'), ('x',))
    with pytest.raises(ValueError, match='not text in UTF-8, byte 9 is 0xe9'):
        read_rows(write('image_id,é', encoding='latin-1'), ('image_id',))
    with pytest.raises(ValueError, match='train.csv: line 3 is no CSV'):
        read_rows(write('x,y', '1,2', '3,"4'), ('x',))
    with pytest.raises(ValueError, match='expected a header with the columns x, y'):
        (tmp_path / 'train.csv').write_bytes(b'')
        read_rows(tmp_path / 'train.csv', ('x', 'y'))


def test_empty_lines_are_no_rows_and_numbers_stay_those_of_the_file(write):
    rows, issues = read_rows(write('x,y', '', '1,2', '', '"3\n",4', '5,6,7'), ('x',))
    assert [(row.line, row.cells) for row in rows] == [(3, {'x': '1', 'y': '2'}), (6, {'x': '3', 'y': '4'})]
    assert [str(issue) for issue in issues] == [
        'train.csv: row 7: the header has 2 cells, the row another number (3): dropped']
