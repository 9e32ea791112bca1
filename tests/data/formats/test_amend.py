"""What a config adds to and changes in a data set of any format: its table, names, parts and smallest boxes."""
import json

import cv2
import numpy as np
import pytest

from configs import base
from relnet_jax.data.annotations import grow_box
from relnet_jax.data.formats import FORMATS, amend
from relnet_jax.data.formats.meta import add_meta
from relnet_jax.data.formats.parts_file import add_parts
from relnet_jax.data.formats.rename import rename


@pytest.fixture
def document():
    return dict(images=[dict(id='a', file_name='x/a.png', width=9, height=9), dict(id=2, file_name='b')],
                annotations=[dict(image_id='a', category_id=7, bbox=[1, 1, 2, 2]),
                             dict(image_id=2, category_id=8, bbox=[1, 1, 3, 3]),
                             dict(image_id=2, category_id=9, bbox=[1, 1, 4, 4]), 'broken', dict(category_id=99)],
                categories=[dict(id=7, name='nodule'), dict(id=8, name='mass'), dict(id=9, name='scar')])


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        file = tmp_path / name
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file
    return write


def test_a_table_gives_sizes_and_whatever_else_it_knows_of_the_images(document, write):
    file = write('meta.csv', 'image_id,dim0,dim1,Sex\na,2430,1994.0,F\nb,100,200,M\nc,1,1,M\n')
    found, issues = add_meta(document, file)
    assert issues == []
    assert found['images'] == [dict(id='a', file_name='x/a.png', height=2430, width=1994, sex='F'),
                               dict(id=2, file_name='b', height=100, width=200, sex='M')]
    assert document['images'][0]['width'] == 9 and found['annotations'] is document['annotations']
    by_file, _ = add_meta(document, write('meta.csv', 'file_name,patient\nx/a.png,7\nb.dicom,8\n'))
    assert [i.get('patient') for i in by_file['images']] == ['7', None]


def test_rows_of_the_table_that_are_wrong_or_missing_are_named(document, write):
    found, issues = add_meta(document, write(
        'meta.csv', 'image_id,height,width\na,20,30\na,20,30\na,20,31\nb,0,5\n,1,1\nb,x,2\nb,2,\n'))
    assert found['images'][0]['width'] == 30 and 'width' not in found['images'][1]
    assert [str(issue) for issue in issues] == [
        'meta.csv: row 4: says other things of an image than an earlier row (a): the first is used',
        "meta.csv: row 5: height and width are no size in pixels (['0', '5']): dropped",
        'meta.csv: row 6: no image_id: dropped', "meta.csv: row 7: height is no number ('x'): dropped",
        'meta.csv: row 8: no number in width: dropped',
        'meta.csv: image without a row in data.meta (2): kept as it is']
    with pytest.raises(ValueError, match="a row for none of the images; its first is of 'q', the first image is 'a'"):
        add_meta(document, write('meta.csv', 'image_id,height,width\nq,20,30\n'))


def test_categories_are_renamed_merged_and_left_out(document, write):
    found, issues = rename(document, (('mass', 'nodule'), ('scar', ''), ('nodul', 'x')), write('films.json', ''))
    assert found['categories'] == [dict(id=7, name='nodule')]
    assert found['annotations'] == [dict(image_id='a', category_id=7, bbox=[1, 1, 2, 2]),
                                    dict(image_id=2, category_id=7, bbox=[1, 1, 3, 3]), 'broken', dict(category_id=99)]
    assert [str(issue) for issue in issues] == [
        'films.json: name in data.rename that is no category (nodul): passed over',
        "films.json: annotations of 'scar' (1): left out, as data.rename says"]
    found, _ = rename(document | dict(parts=['scar']), (('nodule', 'mass'), ('scar', 'Scar')), write('films.json', ''))
    assert found['categories'] == [dict(id=7, name='mass'), dict(id=9, name='Scar')] and found['parts'] == ['Scar']


def test_part_boxes_come_from_a_file_of_their_own_in_either_form(document, write):
    boxes = write('parts.json', {'a.png': {'Left Lung': [10, 20, 40, 80], 'Heart': [5, 5, 1, 9]}, 'zz.png': {}, 'b': 3})
    coco = write('coco.json', dict(
        images=[dict(id=5, file_name='x/a.png')], categories=[dict(id=1, name='Left Lung'), dict(id=2, name='Heart')],
        annotations=[dict(image_id=5, category_id=1, bbox=[10, 20, 30, 60]), dict(image_id=6, category_id=1, bbox=[]),
                     dict(image_id=5, category_id=2, bbox=[1, 2])]))
    for file, words in ((boxes, ['parts.json: a.png, Heart: box (xyxy)', 'parts.json: b: expected a dict']),
                        (coco, ['coco.json: annotations[1]: no such', 'coco.json: annotations[2]: bbox is not'])):
        found, issues = add_parts(document, str(file), ())
        assert found['parts'] == ['Left Lung'] and found['categories'][-1] == dict(id=10, name='Left Lung')
        assert found['annotations'][-1] | dict(where='') == dict(
            image_id='a', category_id=10, bbox=[10, 20, 30, 60], where='')
        assert [str(issue).startswith(start) for issue, start in zip(issues, words, strict=True)] == [True, True]
    named, _ = add_parts(document, str(boxes), ('Heart', 'scar'))
    assert named['parts'] == ['Heart', 'scar'] and named['annotations'] == document['annotations']
    assert named['categories'][3:] == [dict(id=10, name='Heart')]
    unknown, issues = add_parts(document, 'none', ('Heart',))
    assert unknown['parts'] == ['Heart'] and unknown['annotations'] == document['annotations'] and issues == []
    with pytest.raises(ValueError, match="data.parts_file has none of the images; its first is 'q.png'"):
        add_parts(document, str(write('q.json', {'q.png': {'Heart': [1, 2, 3, 4]}})), ())
    with pytest.raises(ValueError, match='expected a COCO file or a dict of file names, got list'):
        add_parts(document, str(write('q.json', [])), ())


@pytest.mark.parametrize('box, expected', [
    ([100, 100, 104, 130], [92, 100, 112, 130]), ([100, 100, 103, 101], [91.5, 90.5, 111.5, 110.5]),
    ([0, 50, 2, 190], [0, 50, 11, 190]), ([190, 199, 200, 200], [185, 189.5, 200, 200]),
    ([10, 10, 30, 30], [10, 10, 30, 30])])
def test_short_sides_grow_around_their_middle_inside_the_image(box, expected):
    assert grow_box(box, 20, 200, 200) == expected


def test_all_of_it_in_one_data_set_that_is_opened(write, tmp_path):
    cv2.imwrite(str(tmp_path / '1.png'), np.zeros((120, 100), np.uint8))
    films = write('films.json', [dict(
        file_name='1.png', rows=120, cols=100, boxes=[[50, 50, 54, 60], [5, 5, 30, 40]], syms=[['Nodule'], ['Tube']],
        polygon=[[[50, 50], [54, 50], [54, 60]], []])])
    parts = write('parts.json', {'1.png': {'Heart': [1, 1, 9, 9]}})
    meta = write('meta.csv', 'file_name,patient\n1.png,p7\n')
    data = base.get_config().data.unlock()
    data.update(format='lab', meta=str(meta), parts_file=str(parts), rename=(('Nodule', 'Spot'), ('Tube', '')),
                min_box=20, mask_size=14)
    data.train.update(annotations=str(films), images=str(tmp_path))
    source = FORMATS['lab'](data, 'train', None)
    example = source.load(0)
    assert source.classes == ('Spot',) and source.parts == ('Heart',) and source.records[0]['patient'] == 'p7'
    assert example.boxes.tolist() == [[42, 45, 62, 65]] and example.has_mask.tolist() == [True]
    assert 0 < (example.masks[0] > 127).mean() < 0.1        # the triangle keeps its size in the grown box
    assert example.part_boxes.tolist() == [[1, 1, 9, 9]]    # a part is not grown
    assert [str(issue) for issue in source.issues] == [
        "films.json: annotations of 'Tube' (1): left out, as data.rename says"]
    assert amend(dict(images=[]), [], films, base.get_config().data) == (dict(images=[]), [])
