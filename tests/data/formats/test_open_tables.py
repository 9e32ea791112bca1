"""VinDr-CXR, RSNA and SIIM opened with their films: found by id, any suffix and size, results in the CSV's pixels."""
import cv2
import numpy as np
import pytest

from configs import base
from relnet_jax.data import pipeline
from relnet_jax.evaluation.submissions import write_submission

UID = '1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819'


@pytest.fixture
def open_films(tmp_path):
    def open_films(format_name, lines, files, **options):
        """The training source of a CSV file with these lines and films {path: (height, width)}."""
        for name, (height, width) in files.items():
            (tmp_path / 'films' / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.tile(np.arange(width, dtype=np.uint8), (height, 1))
            cv2.imwrite(str(tmp_path / 'films' / name), pixels)
        (tmp_path / 'train.csv').write_text('\n'.join(lines) + '\n')
        config = base.get_config().unlock()
        config.data.update(format=format_name, mask_size=14, **options)
        config.data.train.update(annotations=str(tmp_path / 'train.csv'), images=str(tmp_path / 'films'))
        return pipeline.FORMATS[format_name](config.data, 'train', None)
    return open_films


def test_boxes_of_vindr_fit_resized_copies_by_the_table_of_sizes(open_films, tmp_path):
    meta = tmp_path / 'meta.csv'
    meta.write_text('image_id,dim0,dim1\na1,200,100\nb2,400,400\nunused,1,1\n')
    source = open_films(
        'vindr', ['image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max', 'a1,Cardiomegaly,3,R1,10,20,30,60',
                  'a1,Cardiomegaly,3,R2,14,20,34,60', 'a1,ILD,5,R1,50,50,60,60', 'b2,No finding,14,R1,,,,'],
        {'train/a1.png': (100, 50), 'train/b2.jpg': (400, 400)}, meta=str(meta), fusion='majority')
    assert source.image_ids == ['a1', 'b2'] and len(source.classes) == 14
    assert source.load(0).boxes.tolist() == [[6, 10, 16, 30]]       # the mean of both readers, at half the size
    assert source.load(0).labels.tolist() == [4] and len(source.load(1).boxes) == 0
    truth = source.ground_truth()
    assert [(a['image_id'], a['category_id'], a['bbox']) for a in truth['annotations']] == [('a1', 3, [12, 20, 20, 40])]
    assert [i.problem for i in source.issues] == [
        "boxes that no more than half of the image's readers drew (data.fusion)"]
    assert len(source.notes) == 1 and source.notes[0].startswith('1 of 2 files are resized copies')
    results = [dict(a, score=0.5) for a in truth['annotations']]
    write_submission(tmp_path / 'submission.csv', 'vindr', results, source)
    assert (tmp_path / 'submission.csv').read_text().splitlines()[1:] == [
        'a1,3 0.5 12.0 20.0 32.0 60.0', 'b2,14 1 0 0 1 1']


def test_boxes_of_rsna_refer_to_1024_pixels(open_films):
    source = open_films('rsna', ['patientId,x,y,width,height,Target', 'p-1,100,200,300,400,1', 'p-1,600,200,40,400,1',
                                 'p-2,,,,,0'], {'p-1.png': (256, 256), 'p-2.png': (1024, 1024), 'p-1.txt.png': (8, 8)})
    assert source.load(0).boxes.tolist() == [[25, 50, 100, 150], [150, 50, 160, 150]]
    assert [(r['width'], r['height']) for r in source.records] == [(1024, 1024)] * 2 and source.issues == ()
    assert len(source.load(1).boxes) == 0 and source.load(1).image.shape == (1024, 1024, 3)


def test_masks_of_siim_fit_films_deep_in_folders_with_dotted_names(open_films):
    runs = ' '.join(f'{100 * 1024 + 200 if i == 0 else 1024 - 300} 300' for i in range(200))     # columns 100 to 300
    source = open_films('siim', ['ImageId, EncodedPixels', f'{UID},{runs}', f'{UID}1, -1'],
                        {f'x/y/{UID}.png': (512, 512), f'x/z/{UID}1.png': (512, 512)})
    assert source.image_ids == [UID, f'{UID}1'] and source.issues == ()
    example = source.load(0)
    assert example.boxes.tolist() == [[50, 100, 150, 250]] and (example.masks == 255).all()
    assert example.has_mask.tolist() == [True] and len(source.load(1).boxes) == 0


def test_a_film_that_is_not_there_is_named_with_its_row(open_films):
    films = [f'f{i}' for i in range(60)]
    source = open_films('rsna', ['patientId,x,y,width,height,Target', *(f'{f},1,2,30,40,1' for f in films)],
                        {f'{f}.png': (16, 16) for f in films[:-1]})
    assert [str(i) for i in source.issues] == ["train.csv: row 61: file not found ('f59'): image dropped"]
    assert len(source) == 59
