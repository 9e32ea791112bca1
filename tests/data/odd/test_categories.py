"""Tables of categories with the oddities of real exports."""
import pytest

from relnet_jax.data.issues import summary
from tests.data.odd.documents import clean_document


def test_an_unused_category_that_repeats_a_name_is_left_out(files):
    for name in ('nodule', 'Nodule', ' nodule'):
        document = clean_document()
        document['categories'].insert(0, dict(id=0, name=name))
        source = files(document)
        assert source.classes == ('nodule', 'mass') and source.category_ids == (1, 2)
        assert 'repeats a name' in summary(source.issues)[-1]


def test_two_categories_of_one_name_that_are_both_used_stop(files):
    document = clean_document()
    document['categories'][1]['name'] = 'nodule'
    with pytest.raises(ValueError, match=r"categories \[1, 2\] are all called 'nodule', and all have annotations"):
        files(document)


def test_names_that_differ_by_case_or_spaces_are_named_and_kept_apart(files):
    document = clean_document()
    document['categories'][1]['name'] = 'NODULE'
    source = files(document)
    assert source.classes == ('nodule', 'NODULE')
    assert [i.problem for i in source.issues] == ['names that differ by case or spaces alone']


def test_spaces_around_a_name_are_no_part_of_it(files):
    document = clean_document()
    document['categories'][1]['name'] = ' mass '
    assert files(document).classes == ('nodule', 'mass')


@pytest.mark.parametrize('name', ['', '  ', None])
def test_a_category_without_a_name_is_left_out_with_its_objects(files, name):
    document = clean_document()
    document['categories'][1]['name'] = name
    source = files(document, max_dropped=0.5)
    assert source.classes == ('nodule',) and source.counts['dropped'] == 10
    assert 'category without a name (id 2, 10 annotations)' in str(source.issues[0])


@pytest.mark.parametrize('name', ['_background_', '__background__', 'Background', 'BG', '<background>'])
def test_background_is_no_class_unless_asked_for(files, name, caplog):
    document = clean_document()
    document['categories'].insert(0, dict(id=0, name=name))
    document['annotations'][0]['category_id'] = 0
    with caplog.at_level('INFO', logger='absl'):
        source = files(document)
    assert source.classes == ('nodule', 'mass') and source.counts['not_wanted'] == 1 and f'{name} (1)' in caplog.text
    assert files(document, classes=(name, 'mass')).classes == (name, 'mass')


def test_a_category_that_is_there_twice_counts_once(files):
    document = clean_document()
    document['categories'].append(dict(document['categories'][0]))
    assert files(document).classes == ('nodule', 'mass')


def test_asked_for_names_may_differ_by_case_and_spaces(files):
    document = clean_document()
    document['categories'][0]['name'] = 'Ground Glass  Opacity'
    source = files(document, classes=('ground glass opacity',))
    assert source.classes == ('ground glass opacity',) and source.category_ids == (1,) and len(source.issues) == 1


def test_a_name_of_a_hundred_thousand_letters_is_refused_in_a_short_line(files):
    document = clean_document()
    document['categories'][0]['name'] = 'x' * 100_000
    with pytest.raises(ValueError, match='at most 200 printable letters, got 100000') as error:
        files(document)
    assert len(str(error.value)) < 400
