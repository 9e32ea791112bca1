"""The generated page of all runs, from made-up results."""
import pytest

from relnet_jax.ablation import docs, results
from relnet_jax.ablation.results import ResultError
from tests.ablation import fake


def written(folder, *found):
    """A result folder with these results."""
    for result in found:
        results.write(results.file_of(folder, result['run'], result['seed']), result)
    return folder


def cells(text, run):
    """Ours, seeds, difference and folder of a run."""
    line, = fake.lines_of(text, run)
    return [*line[4:7], line[7].removesuffix('|').strip()]


@pytest.fixture
def three(tmp_path):
    return written(tmp_path / 'results' / 'three', *fake.three_seeds())


def test_every_run_is_in_the_documents_measured_or_not(tmp_path, three):
    path = tmp_path / 'docs' / 'tables.md'
    docs.renew(path, [three], fake.TEXTS)
    text = path.read_text()
    assert all(f'| `{run}` |' in text for run in fake.TEXTS)
    assert cells(text, 'fpn_5') == ['47.0 ± 6.6', '3', '**+5.0** [+2.5, +7.5] to `base`', 'three']
    assert cells(text, 'base') == ['42.0 ± 5.0', '3', '', 'three']
    assert '| `original` | plain, C4 | 25.96 | 40.19 |  |  |  |  |' in text
    assert text.index('## A.') < text.index('## E.') < text.index('## F.') < text.index('not in the lab')


def test_the_page_links_to_the_commands_instead_of_repeating_them(tmp_path, three):
    path = tmp_path / 'docs' / 'tables.md'
    docs.renew(path, [three], fake.TEXTS)
    text = path.read_text()
    assert '| [three](../results/three/table.md) | phantom (val), 100 images' in text
    for said in ('a processor, 2 cores', '2026-01-02', 'say nothing about patients', 'on its private films'):
        assert said in text
    assert 'relnet_jax.ablate --runs' not in text and 'train.steps=600' not in text
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith('|'))


def test_a_folder_of_other_settings_joins_and_is_compared_with_its_own_control(tmp_path, three):
    """base is 42 in the one folder, on average, and 30 in the other; fpn_6 is compared with the latter."""
    other = written(tmp_path / 'results' / 'other', fake.result('base', 0, 0.29), fake.result('base', 1, 0.31),
                    fake.result('fpn_6', 0, 0.31), fake.result('fpn_6', 1, 0.34))
    path = tmp_path / 'docs' / 'tables.md'
    docs.renew(path, [three, other], fake.TEXTS)
    text = path.read_text()
    assert cells(text, 'base') == ['42.0 ± 5.0<br>30.0 ± 12.7', '3<br>2', '', 'three<br>other']
    assert cells(text, 'fpn_5')[2:] == ['**+5.0** [+2.5, +7.5] to `base`', 'three']
    assert cells(text, 'fpn_6')[2:] == ['+2.5 [-3.9, +8.9] to `base`', 'other']
    assert '(../results/three/table.md)' in text and '(../results/other/table.md)' in text


def test_a_run_in_two_folders_has_a_line_for_each(tmp_path, three):
    again = written(tmp_path / 'again', *fake.three_seeds()[:3], fake.result('fpn_5', 0, 0.5))
    text = docs.renewed(tmp_path / 'tables.md', [three, again], fake.TEXTS)
    assert cells(text, 'fpn_5') == ['47.0 ± 6.6<br>50.0', '3<br>1',
                                    '**+5.0** [+2.5, +7.5] to `base`<br>+10.0 to `base`', 'three<br>again']


def test_two_folders_of_one_name_are_two(tmp_path, three):
    same = written(tmp_path / 'elsewhere' / 'three', fake.result('base', 0, 0.3))
    text = docs.renewed(tmp_path / 'docs' / 'tables.md', [three, same], fake.TEXTS)
    assert cells(text, 'base')[0] == '42.0 ± 5.0<br>30.0'


def test_what_people_wrote_around_the_table_stays(tmp_path, three):
    path = tmp_path / 'tables.md'
    docs.renew(path, [], fake.TEXTS)
    old = path.read_text()
    path.write_text('Before.\n' + old + 'After.\n')
    docs.renew(path, [three], fake.TEXTS)
    new = path.read_text()
    assert new.startswith('Before.\n') and new.endswith('After.\n') and '47.0 ± 6.6' in new
    docs.renew(path, [], fake.TEXTS)
    assert path.read_text() == 'Before.\n' + old + 'After.\n'


def test_a_document_without_markers_is_left_alone(tmp_path):
    path = tmp_path / 'README.md'
    path.write_text('My own words.\n')
    with pytest.raises(ResultError, match='README.md: expected one line'):
        docs.renew(path, [], fake.TEXTS)
    assert path.read_text() == 'My own words.\n'
